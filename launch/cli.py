"""The command line: each command once, with its options, its help and what it calls.

The option ``--train-file`` is ``TRAIN_FILE=`` for make and ``LAUNCH_TRAIN_FILE`` in the environment.  What a
command needs above ``core`` is imported when it runs.  All before :func:`_enter` is standard library only.
"""

import argparse
import difflib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Iterable, List, Mapping, NoReturn, Optional, Sequence, Tuple

from .core import child, files, machine, paths
from .core.errors import KitError
from .core.files import hold_lock
from .core.progress import format_duration, format_size
from .model import variants
from .model.variants import VARIANTS

if TYPE_CHECKING:
    from .build.rules import Selection
    from .build.training import Training
    from .setup.environment import Venv
    from .share.page import Speed
    from .sources.source import Source

PROG = "python -m launch"

# --- what is declared ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """A value that a person may give; without it, ``default`` holds, or what ``otherwise`` says in words."""

    value: str
    what: str
    default: str = ""
    otherwise: str = ""

    @property
    def shown(self) -> str:
        """The default, without the folder that the kit is in."""
        return self.default.replace(f"{paths.REPOSITORY}/", "")


@dataclass(frozen=True)
class Command:
    """A command, which is a make target too."""

    name: str
    run: "Handler"  # its docstring is the help: a summary in a line, details, an example after each $
    group: str
    options: Mapping[str, Option]
    required: Sequence[str]
    shown: str  # other options that the list of targets shows with it
    words: str  # what further words are; empty where it takes none

    @property
    def help(self) -> Tuple[str, str, Sequence[str]]:
        """Summary, details, and the words of examples after ``python -m launch``."""
        first, *more = [line.strip() for line in (self.run.__doc__ or "").strip().splitlines()]
        examples = [line[2:] for line in more if line.startswith("$ ")] or [self.name]
        return first, " ".join(line for line in more if line and line[0] != "$"), examples

    @property
    def summary(self) -> str:
        """The summary as the lists of commands show it."""
        return self.help[0][0].lower() + self.help[0][1:].rstrip(".")


Given = argparse.Namespace
"""One call: the text of each option, empty where not given and without default, or not the command's.

Beside them: ``command``; ``argv``, all words; ``typed``, the options on the command line; ``words``, where
the command takes any; and ``entered``, whether :func:`_enter` has started over.
"""

Handler = Callable[[Given], Optional[int]]  # returns the exit status, or None for 0

COMMANDS: Dict[str, Command] = {}

_MAKE, _TRUST, _FORKS, _KIT = "Make trees", "Trust and share them", "Forks and patches", "Look after the kit"


def _command(
    name: str,
    group: str,
    options: str = "",
    required: str = "",
    shown: str = "",
    words: str = "",
    **own: Option,
) -> Callable[[Handler], Handler]:
    """Declare a command with the named :data:`OPTIONS`; ``own`` has those that mean another thing to it."""

    def declare(run: Handler) -> Handler:
        taken = {option: own.get(option, OPTIONS[option]) for option in options.split()}
        for option, found in taken.items():
            taken[option] = replace(found, what=found.what.replace(f"{name}: ", "", 1))
        COMMANDS[name] = Command(name, run, group, taken, required.split(), shown, words)
        return run

    return declare


OPTIONS: Dict[str, Option] = {
    "v": Option("<names>", "variants, by name, as below; for command, or a configuration"),
    "precision": Option("8bit|fp32", "fp32: nothing is quantized; the tree is <V>-fp32", otherwise="8bit"),
    "out": Option("<folder>", "where trees are published", str(paths.REPOSITORY / "gen_hybrid_sparse")),
    "input": Option(
        "sample|files|hub",
        "sample: text that comes with the kit; files: yours; hub: the names upstream uses",
        "sample",
    ),
    "hub": Option(
        "<file>",
        "INPUT=hub: another list of repository, files and questions, of the same form",
        otherwise="launch/model/hub.json",
    ),
    "model": Option("<folder>", "INPUT=files: folder with config.json and a tokenizer"),
    "train_file": Option("<file>", "INPUT=files: questions to calibrate on (SQuAD's JSON, nested or flat)"),
    "validation_file": Option("<file>", "INPUT=files: questions to evaluate on"),
    "predictions": Option("<file>", "evaluate: answers to score, without a model"),
    "seed": Option("<number>", "seed of the random weights, 0 to 2³² − 1", otherwise="the launch file's, 42"),
    "weights": Option(
        "random|<folder>",
        "trees: the folder with a trained checkpoint, and its config and tokenizer unless MODEL has them;"
        " random: drawn from the seed",
        otherwise="random for trees; evaluate: the model folder's, but the sample's are random",
    ),
    "heads": Option(
        "importance|first",
        "of a dense checkpoint: which heads and feed-forward rows stay, those that count most for the answers"
        " to TRAIN_FILE, or the first",
        otherwise="importance",
    ),
    "threads": Option(
        "<number>",
        "threads of a program, on which masks depend; the published sums are for 2",
        otherwise="as many as torch would take",
    ),
    "launch": Option(
        "<file>|upstream",
        "the launch file; upstream: that of the transformers fork, as it is",
        str(paths.LAUNCH_FILE),
    ),
    "source": Option(
        "auto|fork|registry",
        "nncf and transformers from: fork (the submodules), registry (releases); auto: the forks if they are"
        " checked out, else the releases",
        "auto",
    ),
    "mo": Option(
        "2022.1|2021.4",
        "Model Optimizer; 2021.4: IR version 10, minutes a variant, not seconds",
        "2022.1",
    ),
    "fast": Option("1|0", "with the patches that make runs faster and smaller and change no byte", "1"),
    "size": Option("full|small", "bench-pipeline: full, or small: a quick look on a two-layer model", "full"),
    "repeat": Option("<number>", "bench-pipeline: runs of each", "1"),
    "train_python": Option(
        "<path>",
        "train: another Python to train with, which has torch, transformers (4.9 to 5) and accelerate",
        otherwise="that of .venv",
    ),
    "accelerate": Option(
        "<arguments>|<file>", "train: start it by `accelerate launch` with these, or with this config file"
    ),
    "threshold": Option(
        "global|layer", "train: one threshold for all matrices, or one for each", otherwise="global"
    ),
    "epochs": Option("<number>", "train: epochs of the variant's training", otherwise="30"),
    "hyperparameters": Option("<file>", "train: JSON that changes those in launch/train/hyperparameters.py"),
    "explain": Option("1|0", "show instead each part as in the file, as it runs, and by which rule", "0"),
    "to": Option(
        "<path>",
        "report: the page; package, qdq, bench, train: the folder",
        otherwise="OUT/report.html; packages; qdq; OUT/bench; trained/<V>",
    ),
    "trained": Option(
        "<folder>",
        "report: a checkpoint, or a folder of them, whose training.json has the curves of trees made from it",
        str(paths.REPOSITORY / "trained"),
    ),
    "runtimes": Option("<names>", "bench: which of openvino-2022.1, openvino, onnxruntime", otherwise="all"),
    "seq": Option("<number>", "bench: tokens of a sequence", otherwise="the exported length, 384"),
    "batch": Option("<number>", "bench: sequences of a run, for throughput", "1"),
    "seconds": Option("<number>", "bench: what one measurement takes", "1"),
    "base": Option("<file>", "bench: the bench.json of an earlier run to compare with"),
    "format": Option("folder|tar", "package: a folder or one file", "folder"),
    "a": Option("<path>", "compare: an ONNX file, a tree or a folder of trees"),
    "b": Option("<path>", "compare: what A is compared with, of the same kind"),
    "level": Option("bytes|weights|structure", "compare: what must be the same", "bytes"),
    "mirror": Option(
        "<folder>",
        "git directories nncf and transformers to take the forks from",
        otherwise="their public places",
    ),
    "p": Option("nncf|transformers", "the fork whose patches are meant"),
    "python": Option(
        "<path>", "a Python 3.8 for the environment", otherwise="python3.8, pyenv's or uv's, found"
    ),
}


# --- what commands share ---------------------------------------------------------------------------------

_YES, _NO = ("1", "yes", "true"), ("0", "no", "false")


def is_yes(text: str, name: str) -> bool:
    """Return whether the ``text`` of the option ``name`` is on; a KitError where it is neither on nor off."""
    if text.strip().lower() in (*_YES, *_NO):
        return text.strip().lower() in _YES
    raise KitError(
        f"{name.upper()} is neither on nor off.",
        where=f"{name.upper()}={text}",
        hint=f"Set it to one of {', '.join(_YES)}, or to one of {', '.join(_NO)}.",
    )


def _path(given: Given, name: str) -> Path:
    return files.expand_path(getattr(given, name), name.upper())


def _say(what: str) -> None:
    print(f"setup: {what}", file=sys.stderr, flush=True)


def _source(given: Given, told: bool = True) -> "Source":
    """Return the chosen source; that of the forks is made, as a launch configuration may name its files."""
    from .build import rules
    from .sources.source import choose_source

    source = choose_source(given.source, is_yes(given.fast, "fast"))
    if told:
        print(f"source  {source.describe()}", file=sys.stderr, flush=True)
    if rules.is_upstreams(source):
        source.ensure(_say)
    return source


def _set_up(given: Given, source: "Source", *separate: Optional["Venv"], alone: bool = False) -> None:
    """Make what is not current of the environments and the source; ``alone``: say where all is current."""
    from .setup.environment import KIT

    machine.check_place()
    started = time.monotonic()
    made = [KIT.ensure(given.python), *[other.ensure() for other in separate if other], source.ensure(_say)]
    if any(made):
        _say(f"done in {format_duration(time.monotonic() - started)}")
    elif alone:
        _say("up to date")


def _set_up_alone(given: Given, *separate: Optional["Venv"]) -> None:
    machine.check_place()
    _set_up(given, _source(given), *separate, alone=True)


def _ready_environment(given: Given) -> None:
    from .setup.environment import KIT

    if not KIT.is_ready():
        KIT.ensure(given.python)


_ENTERED = "LAUNCH_ENTERED"  # set by _enter for the process that it becomes


def _enter(given: Given) -> None:
    """Become the environment's Python and start over with the same words; a KitError where that has failed.

    A Ctrl-C while it imports is kept for :func:`launch.core.errors.exit_with_message`.
    """
    from .setup.environment import KIT

    if KIT.is_ready() and os.path.realpath(sys.prefix) == os.path.realpath(str(paths.VENV)):
        return
    _ready_environment(given)
    if given.entered:
        raise KitError(
            "The environment's Python does not run in the environment.",
            where=paths.show_path(paths.VENV_PYTHON),
            hint="Make the environment again: rm -r .venv && make setup",
        )
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    env = {**machine.inherit_variables(os.environ), "PYTHONPATH": str(paths.REPOSITORY), _ENTERED: "1"}
    _become([str(paths.VENV_PYTHON), "-m", str(__package__), *given.argv], env)


def _become(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], list(argv), dict(env))


def _selection(given: Given) -> "Selection":
    from .build import rules

    chosen = rules.choose_inputs(
        given.input,
        given.model,
        given.train_file,
        given.validation_file,
        given.seed,
        given.weights,
        given.hub,
        lambda: _ready_environment(given),
        given.heads,
    )
    return replace(chosen, threads=machine.parse_threads(given.threads))


_RUN = "input hub model train_file validation_file seed threads launch source fast python"
_V = Option(
    "<names>", "variants, with spaces between them; `python -m launch help` says what names there are"
)


def _make(given: Given, chosen: Sequence[variants.Variant]) -> None:
    from .build import convert, jobs, pipeline

    source, selection = _source(given), _selection(given)
    optimizer = convert.find_optimizer(given.mo)
    tree_jobs = [jobs.load_tree(given.launch, variant, selection, source) for variant in chosen]
    out = _path(given, "out")
    build = pipeline.Build(tree_jobs, out, lambda: _set_up(given, source, optimizer.separate), optimizer)
    print(pipeline.format_table(build.run()))


@_command("all", _MAKE, f"out precision {_RUN} weights heads mo")
def _all(given: Given) -> None:
    """The five artifact trees.

    What is current is not made again, and an interrupted run resumes after its last stage.  A tree is
    published when it has passed verification, by one rename.

    $ all
    $ all --out /data/trees --seed 7
    $ all --input files --model my-bert --train-file train.json
    """
    _make(given, variants.find_variants(" ".join(VARIANTS), given.precision))


@_command(
    "variant", _MAKE, f"v precision out {_RUN} weights heads mo", required="v", shown="[PRECISION=]", v=_V
)
def _variant(given: Given) -> None:
    """The trees of variants by name.

    As `all`, for those of any sparsity, number of heads and feed-forward rows.

    $ variant --v 90pc_unstructured_sparse
    $ variant --v "75pc_sparse-08_head-2048_ffnn 50pc_unstructured_sparse"
    $ variant --v 00pc_sparse-16_head-4096_ffnn --precision fp32
    $ variant --v 90pc_sparse-08_head-2048_ffnn --weights my-bert --train-file a.json
    """
    _make(given, variants.find_variants(given.v, given.precision))


@_command("configs", _MAKE, "input hub model launch source fast python")
def _configs(given: Given) -> int:
    """The four hybrid model configs, from the dense one.

    They are those in launch/configs/, byte for byte; with INPUT=files, those of your model, below
    build/configs/user/.
    """
    from .build import jobs, other_jobs

    source = _source(given)
    job = jobs.load_job(given.launch, "configs", _selection(given), source)
    return other_jobs.write_configs(job, lambda: _set_up(given, source), lambda: _ready_environment(given))


@_command(
    "command",
    _MAKE,
    f"v precision explain {_RUN} weights heads",
    required="v",
    shown="[EXPLAIN=1]",
    v=Option("<name>", "the configuration: variants, configs, evaluate, or another of the file"),
)
def _print_command(given: Given) -> None:
    """Print a launch configuration as a shell command, and run nothing.

    It may write what the command reads: your model's hybrid config (INPUT=files), what is downloaded
    (INPUT=hub), and for the forks the patched sources and the questions in their form.  `setup` comes
    before running what it prints; where that has not been done, it says so on standard error.

    $ command --v 90pc_unstructured_sparse
    $ command --v evaluate --explain
    $ command --v 90pc_unstructured_sparse | sh
    """
    from .build import jobs, preflight, training
    from .build.jobs import Run

    explain = is_yes(given.explain, "explain")
    if given.v == training.NAME:
        runs: List[Run] = [_training(given)]
    else:
        source = _source(given, told=False)
        selection, names = _selection(given), _configurations(given)
        runs = [jobs.run_of(given.launch, name, selection, source) for name in names]
    texts = [run.explain() if explain else run.shell() for run in runs]
    text = ("\n\n" if explain else "\n").join(texts)
    for note in filter(None, dict.fromkeys(map(preflight.find_missing, runs))):
        print(note, file=sys.stderr, flush=True)
    try:
        # A path that is not UTF-8 has to reach the shell that this is pasted into as it is.
        line = os.fsencode(text + "\n")
    except UnicodeEncodeError:
        print(text)
    else:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


def _configurations(given: Given) -> List[str]:
    """Return the names in V: of variants, or the one of a configuration, which may hold spaces."""
    words = given.v.replace(",", " ").split()
    if given.precision or (words and all(map(variants.parse_name, words))):
        return [variant.name for variant in variants.find_variants(given.v, given.precision)]
    return [given.v]


@_command(
    "evaluate",
    _MAKE,
    f"v precision out predictions {_RUN} weights",
    shown="[V=]",
    v=Option("<names>", "variants: trees in OUT, not a model folder"),
    validation_file=Option("<file>", "V, PREDICTIONS or INPUT=files: questions to evaluate on"),
    model=Option("<folder>", "INPUT=files: the model folder; with V: the tokenizer's, if not the sample's"),
    weights=Option(
        "random|<folder>",
        "random, drawn from the seed; with V: the checkpoint that the trees were made from",
        otherwise="the model folder's; the sample's are random",
    ),
)
def _evaluate(given: Given) -> None:
    """Exact match and F1 of a model, of published trees, or of answers, on questions.

    By default the full-size model on the sample, which takes some minutes: its weights are random, and
    the result says so.  A model folder's are read from model.safetensors or pytorch_model.bin, or from
    several such files with their index.  With V, OpenVINO runs the ONNX file and the IR of the trees in
    OUT, torch the checkpoint, if one is named, and OUT/<V>-evaluation.json is written.  With PREDICTIONS,
    answers that are there already are scored: one JSON object of question ids and answers.  A question
    that is not in it counts 0.

    $ evaluate
    $ evaluate --v 90pc_unstructured_sparse --validation-file dev.json
    $ evaluate --input files --model my-bert --validation-file dev.json
    $ evaluate --predictions answers.json --validation-file dev.json
    """
    from .build import jobs, other_jobs

    if given.predictions or given.v:
        _score(given) if given.predictions else _evaluate_trees(given)
        return
    _refuse(given, ("out", "precision"), "without V: no tree is evaluated.", ", or name trees")
    source = _source(given)
    job = jobs.load_job(given.launch, "evaluate", _selection(given), source)
    print(other_jobs.evaluate_job(job, lambda: _set_up(given, source)))


def _refuse(given: Given, names: Sequence[str], why: str, instead: str = "") -> None:
    """:raises KitError: one of the options ``names`` was given; ``instead``: what else to leave out."""
    for name in given.typed:
        if name in names:
            raise KitError(
                f"{name.upper()} has no meaning {why}",
                where=f"{name.upper()}={getattr(given, name)}",
                hint=f"Leave {name.upper()} out{instead}.",
            )


def _evaluate_trees(given: Given) -> None:
    from .build import rules, tree_evaluation
    from .verify import tree

    _refuse(given, ("train_file", "seed", "launch"), "with V: the trees are there already.")
    chosen = tree.choose_trees(_path(given, "out"), variants.find_variants(given.v, given.precision))
    questions, model = rules.choose_questions(
        given.input if "input" in given.typed else "files",
        given.model,
        given.validation_file,
        given.hub,
        lambda: _ready_environment(given),
    )
    _enter(given)
    source = _source(given)
    _set_up(given, source)
    inputs = tree_evaluation.Inputs(
        questions,
        model,
        _path(given, "weights") if given.weights else None,
        machine.parse_threads(given.threads) or machine.count_torch_threads(os.environ),
    )
    print(tree_evaluation.format_table(tree_evaluation.evaluate_trees(chosen, inputs, source.python_path)))


def _score(given: Given) -> None:
    from .build import other_jobs

    taken = ("predictions", "validation_file", "python")  # in PYTHON the kit itself may run
    others = [name for name in COMMANDS["evaluate"].options if name not in taken]
    _refuse(given, others, "with PREDICTIONS: no model answers.", ", or PREDICTIONS")
    if not given.validation_file:
        raise KitError(
            "PREDICTIONS needs the questions that were answered.",
            where="VALIDATION_FILE is empty",
            hint="Give VALIDATION_FILE=<questions in SQuAD's JSON, nested or flat>.",
        )
    predictions = _path(given, "predictions")
    print(other_jobs.score_predictions(predictions, _path(given, "validation_file")))


@_command(
    "train",
    _MAKE,
    "v model train_file validation_file to train_python accelerate threshold seed epochs hyperparameters"
    " threads explain launch python",
    shown="[V=]",
    v=Option("<name>", "the variant to train", otherwise="the launch file's"),
    model=Option(
        "<folder>", "the dense model: config.json, tokenizer, weights", otherwise="the launch file's"
    ),
    train_file=Option("<file>", "questions to train on", otherwise="the launch file's"),
    validation_file=Option("<file>", "questions to evaluate on", otherwise="the launch file's"),
    to=Option("<folder>", "the checkpoint that is made", otherwise="trained/<V>"),
    seed=Option("<number>", "seed of order and dropout", otherwise="the launch file's, 42"),
)
def _train(given: Given) -> None:
    """A variant's checkpoint, trained from a dense model.

    The dense model is fine-tuned first if it has no question-answering head.  It is cut to the variant's
    heads and feed-forward rows, and trained with it as teacher while single weights are pruned.  TO then
    has config, tokenizer, weights and training.json.  What was interrupted goes on from the last saved
    state, in .work beside TO.

    $ train --model my-bert --train-file train.json --validation-file dev.json
    $ train --train-python /opt/torch/bin/python --accelerate gpus.yaml
    """
    from .build import training
    from .sources.source import Registry

    if is_yes(given.explain, "explain"):
        print(_training(given).explain())
        return
    read = _training(given)
    if read.source is not None:
        _set_up(given, Registry())
    print(training.train(read))


def _training(given: Given) -> "Training":
    from .build import training

    texts = {name.upper(): text for name, text in vars(given).items() if isinstance(text, str)}
    if given.command != "train":
        texts.pop("V")  # which has named the configuration
    return training.read_training(given.launch, texts, machine.parse_threads(given.threads))


_IN = Option("<folder>", "the folder that the trees are in", OPTIONS["out"].default)


@_command(
    "verify",
    _TRUST,
    "v out python",
    shown="[V=]",
    v=Option("<names>", "the variants", otherwise="all that are there"),
    out=_IN,
)
def _verify(given: Given) -> int:
    """Measure the trees in OUT, or one: whether each is what it must be.

    Ends with 0 where every tree passed, with 1 where one did not.

    $ verify
    $ verify --v 90pc_unstructured_sparse
    """
    from .verify import tree

    chosen = variants.find_variants(given.v) if given.v else []
    trees = tree.choose_trees(_path(given, "out"), chosen)
    _enter(given)
    return 0 if tree.verify_all(trees) else 1


@_command(
    "report",
    _TRUST,
    "out to trained python",
    shown="[TO=]",
    out=_IN,
    to=Option("<file>", "the page", otherwise="report.html beside the trees"),
)
def _report(given: Given) -> int:
    """One HTML page on the trees in OUT, and the same as a table.

    $ report
    $ report --to /tmp/trees.html
    """
    from .share import report

    out = _path(given, "out")
    target = report.find_target(out, given.to)
    _enter(given)
    trees = report.write_report(out, target, _read_speed(out), [_path(given, "trained")])
    print(report.write_text(trees))
    print(f"\nreport  {paths.show_path(target)}  ({format_size(target.stat().st_size)})")
    return 1 if any(tree.faults for tree in trees) else 0


def _read_speed(out: Path) -> Optional["Speed"]:
    """Return what the page shows of an earlier `bench` of the same folder."""
    from .runtimes import bench, bench_figures, bench_plots
    from .share.page import Speed

    path = out / bench.FOLDER / bench.NAMES[0]
    if not path.is_file():
        return None
    found = bench_figures.read_results(path)
    lines = (*found.warnings(), *found.failed)
    drawn = list(bench_plots.draw_figures(found).values())
    return Speed(found.content["finished"], found.tables(), found.notes(), lines, drawn, bench_plots.STYLE)


@_command(
    "package",
    _TRUST,
    "v out to format python",
    required="v",
    shown="[FORMAT=tar]",
    v=_V,
    out=_IN,
    to=Option("<folder>", "the folder that the package appears in", str(paths.REPOSITORY / "packages")),
)
def _package(given: Given) -> None:
    """A tree with report, model card and checksums below TO, ready to upload.

    The tree is verified first; the same tree gives the same bytes.  Of several, each is a package.

    $ package --v 90pc_unstructured_sparse
    $ package --v 90pc_unstructured_sparse --format tar --to /tmp
    """
    from .share import package

    out, to = _path(given, "out"), _path(given, "to")
    chosen = variants.find_variants(given.v)
    places = [package.find_place(variant.name, out, to, given.format) for variant in chosen]
    _enter(given)
    for tree, target in places:
        package.make_package(tree, target)
        print(f"package  {paths.show_path(target)}", flush=True)


@_command(
    "qdq",
    _TRUST,
    "v out to python",
    shown="[V=]",
    v=Option("<name>", "the variant", otherwise="all that are there"),
    out=_IN,
    to=Option("<folder>", "the folder that the files appear in", str(paths.QDQ)),
)
def _qdq(given: Given) -> None:
    """The trees in OUT, or one, in a form that every runtime reads.

    <TO>/<V>/<V>-8bit-qdq.onnx has standard operators alone, where the tree's ONNX file has an
    operator of OpenVINO's.  It appears once its weights are the tree's, and its outputs, in old and new
    releases of ONNX Runtime and OpenVINO, those of the tree's IR.  What is current is not made again.

    $ qdq
    $ qdq --v 90pc_unstructured_sparse --to /data/qdq
    """
    from .runtimes import publish
    from .runtimes.running import NEWEST
    from .verify import tree

    chosen = variants.find_variants(given.v) if given.v else []
    trees = tree.choose_trees(_path(given, "out"), chosen)
    quantized = [one for one in trees if chosen or variants.find_variant(one.name).quantized]
    places = publish.find_places(quantized, _path(given, "to"))
    _enter(given)
    NEWEST.ensure()
    for folder, target in places:
        made = publish.make_qdq(folder, target)
        print(f"qdq  {paths.show_path(target)}" + ("" if made else "  up to date"), flush=True)


@_command(
    "bench",
    _TRUST,
    "v runtimes seq batch threads seconds base out to python",
    shown="[BASE=]",
    v=Option("<names>", "the variants", otherwise="all that are there"),
    threads=Option("<number>", "threads of a runtime", otherwise="one for each core of the process"),
    base=Option("<file>", "the bench.json of an earlier run to compare with"),
    out=_IN,
    to=Option("<folder>", "the folder that the results appear in", otherwise="bench beside the trees"),
)
def _bench(given: Given) -> int:
    """How fast the trees in OUT run, and what sparsity has to do with it.

    Latency and throughput in OpenVINO 2022.1, the newest OpenVINO and ONNX Runtime: a table,
    and <TO>/bench.json with everything, latency.svg and runtimes.svg, which `report` shows when they are
    in OUT/bench.  With a dense tree in OUT (V=00pc_sparse-16_head-4096_ffnn), and its 32-bit form, the
    others are compared with them.  Ends with 1 where a runtime does not take a model.

    $ bench
    $ bench --v 90pc_unstructured_sparse --runtimes openvino --seconds 5
    $ bench --base gen_hybrid_sparse/bench/bench.json --to /tmp/bench
    """
    from .runtimes import bench
    from .verify import tree

    settings = bench.read_settings(given.runtimes, given.seq, given.batch, given.threads, given.seconds)
    out = _path(given, "out")
    to = _path(given, "to") if given.to else out / bench.FOLDER
    folders = tree.choose_trees(out, variants.find_variants(given.v) if given.v else [])
    bench.check_target(to, folders)
    _enter(given)
    from .runtimes import bench_figures, bench_plots

    base = bench_figures.read_results(_path(given, "base"), "BASE") if given.base else None
    figures = bench_figures.Figures(bench.measure_trees(folders, settings))
    bench.write_results(to, figures.content, bench_plots.draw_files(figures))
    print(bench_figures.write_text(figures, base))
    print(f"\nbench  {paths.show_path(to)}")
    return 1 if figures.failed else 0


@_command("compare", _TRUST, "a b level python", required="a b")
def _compare(given: Given) -> int:
    """Whether two trees, or folders of trees, are the same.

    bytes: every file; weights: the same graph, weights and masks, with the ranges' differences told;
    structure: the same graph.  Ends with 0 only where they are the same in that sense.

    $ compare --a gen_hybrid_sparse --b /data/trees --level weights
    """
    from .share import compare

    for name in ("a", "b"):
        if not getattr(given, name):
            raise KitError(
                f"{name.upper()} was not named.",
                where=f"{name.upper()}=",
                hint=f"Set {name.upper()}= to an ONNX file, a tree or a folder of trees.",
            )
    a, b = _path(given, "a"), _path(given, "b")
    compare.find_pairs(a, b, given.level)
    _enter(given)
    same = True
    for result in compare.compare_paths(a, b, given.level):
        print(f"{result.name}: {result.text}", flush=True)
        same = same and result.same
    return 0 if same else 1


@_command("third_party", _FORKS, "mirror", shown="[MIRROR=]")
def _third_party(given: Given) -> None:
    """Check the forks out at their pins.

    $ third_party
    $ third_party --mirror /data/git
    """
    from .sources import third_party

    mirror = _path(given, "mirror") if given.mirror else None
    with hold_lock():
        third_party.fetch_forks(mirror)


@_command("patches-check", _FORKS)
def _patches_check(_: Given) -> None:
    """Whether every patch says what it must, applies and exports unchanged.

    Without the submodules the patches are read, and not applied.
    """
    from .sources import patch_work

    print("\n".join(patch_work.check_patches()))


@_command("patch-edit", _FORKS, "p", required="p")
def _patch_edit(given: Given) -> None:
    """A scratch clone of a fork (nncf, transformers) with its patches as commits.

    It is below build/patches/; change the commits there with git, then export them.

    $ patch-edit --p nncf
    """
    from .sources import patch_work, third_party

    fork = third_party.find_fork(given.p)
    with hold_lock():
        clone = paths.show_path(patch_work.edit_patches(fork))
    print(f"{clone} is the pinned commit with each patch as one commit on top.")
    print(f"Change them with git there; then: make patch-export P={given.p}")


@_command("patch-export", _FORKS, "p", required="p")
def _patch_export(given: Given) -> None:
    """The scratch clone's commits as patches.

    Replaces the fork's folder in patches/ by what its scratch clone holds.

    $ patch-export --p nncf
    """
    from .sources import patch_work, third_party

    fork = third_party.find_fork(given.p)
    with hold_lock():
        written = patch_work.export_patches(fork)
    for path in written:
        print(paths.show_path(path))


@_command(
    "setup",
    _KIT,
    "python source fast mo input",
    input=Option("sample|files|hub", "hub: with the client that INPUT=hub downloads with"),
)
def _setup(given: Given) -> None:
    """The environment and the patched sources (implied by whatever needs them).

    Installs 2.7 GB into .venv/ from locks with hashes.

    $ setup
    $ setup --source registry --python /opt/python3.8/bin/python3
    """
    from .build import convert, hub, rules

    if given.input:
        rules.check_kind(given.input)
    own = convert.find_optimizer(given.mo).separate
    _set_up_alone(given, own, hub.ENVIRONMENT if given.input == "hub" else None)


_WORDS = "arguments for pytest; those that begin with - after --"


@_command("test", _KIT, "python", words=_WORDS)
def _test(given: Given) -> None:
    """The tests, side by side.

    Sets up SOURCE=registry, INPUT=hub and the newest runtimes first.  `-n 0` after -- runs them one by one.

    $ test
    $ test tests/cli/test_cli.py
    $ test -- -k launch -x
    """
    _run_tests(given)


@_command("test-long", _KIT, "python", words=_WORDS)
def _test_long(given: Given) -> None:
    """The tests that take minutes: full size, MO=2021.4, FAST=0, many made-up cases.

    Sets up SOURCE=registry, MO=2021.4 and INPUT=hub first.  Of what is made up, 500 cases are tried, or as
    many as KIT_CASES=<number> in the environment says; `test` tries 50.

    $ test-long
    $ test-long tests/build/test_full_size.py
    """
    from .build.convert import OPTIMIZERS

    _run_tests(given, *(optimizer.separate for optimizer in OPTIMIZERS.values()))


@_command("test-forks", _KIT, "python mirror", words=_WORDS)
def _test_forks(given: Given) -> None:
    """The tests that run upstream's own code; needs the submodules.

    Sets up SOURCE=registry and INPUT=hub, and checks the submodules out first.

    $ test-forks
    $ test-forks --mirror /data/git
    """
    _third_party(given)
    _run_tests(given)


_TESTS = {
    "test": ("--numprocesses=auto", "--maxprocesses=4", "--dist=worksteal"),
    "test-long": ("-m", "long or hypothesis"),
    "test-forks": ("-m", "forks"),
}
"""What each test command tells pytest, whose own settings leave the long tests and the forks' out."""


def _run_tests(given: Given, *separate: Optional["Venv"]) -> None:
    from .build import hub
    from .runtimes.running import NEWEST

    given.source, given.fast = "registry", OPTIONS["fast"].default
    _set_up_alone(given, hub.ENVIRONMENT, NEWEST, *separate)
    _pytest(given)


def _pytest(given: Given) -> NoReturn:
    """Become pytest, whose last ``-m`` counts."""
    os.chdir(str(paths.REPOSITORY))
    env = {"KIT_CASES": "500", **os.environ} if given.command == "test-long" else os.environ
    _become([str(paths.VENV_PYTHON), "-m", "pytest", *_TESTS[given.command], *given.words], env)


@_command(
    "bench-pipeline",
    _KIT,
    "size v repeat to source python",
    shown="[SIZE=]",
    v=Option("<name>", "the variant", otherwise="all five"),
    to=Option("<folder>", "the folder that the results appear in", str(paths.BUILD / "bench")),
)
def _bench_pipeline(given: Given) -> int:
    """The recipe by hand and the kit in turn: time, processor, memory, ratios.

    With the submodules checked out, against upstream's recipe; else the releases with the set fast
    against those without.  Ends with 0 only where both give the same bytes.

    $ bench-pipeline --size small
    $ bench-pipeline --v 90pc_unstructured_sparse --repeat 3
    """
    from tests.bench import command as bench

    from .sources.source import choose_source

    source, to = choose_source(given.source), _path(given, "to")
    return bench.run(source, given.size, given.v, given.repeat, to, lambda: _set_up(given, source))


@_command("lint", _KIT, "python")
def _lint(given: Given) -> int:
    """Ruff and mypy."""
    _ready_environment(given)
    for tool, *words in (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)):
        path = str(paths.VENV / "bin" / tool)
        code = subprocess.run([path, *words], cwd=str(paths.REPOSITORY), check=False).returncode
        if code:
            return code
    return 0


@_command("lock", _KIT, "python")
def _lock(given: Given) -> int:
    """Resolve launch/setup/locks/*.in into *.lock anew.

    Needs a route to the package index.
    """
    from .setup import installer, steps

    _ready_environment(given)
    script = str(paths.ENVIRONMENT_DATA / "lock.sh")
    with hold_lock() as lock:
        uv = installer.find_uv() or installer.fetch_uv(steps.Steps(paths.BUILD / "log" / "uv.log", lock))
    return subprocess.run([script], env={**os.environ, "UV": uv}, check=False).returncode


@_command("clean", _KIT)
def _clean(given: Given) -> None:
    """Remove build/ (published trees and the environment stay).

    Refuses while patches are being worked on there that are not exported.
    """
    from .sources import patch_work, third_party

    with hold_lock():
        for fork in third_party.read_forks():
            patch_work.check_exported(fork)
        for entry in (*paths.BUILD.iterdir(), *([paths.VENV] if given.command == "distclean" else [])):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != files.LOCK and os.path.lexists(str(entry)):  # the lock is held meanwhile
                entry.unlink()


@_command("distclean", _KIT)
def _distclean(given: Given) -> None:
    """Remove build/ and .venv/.

    As `clean`.
    """
    _clean(given)


@_command("help", _KIT, words="a command, whose own help is wanted")
def _help(_: Given) -> None:
    """Targets, variables with their defaults, variants."""
    print(write_help())


# --- help ------------------------------------------------------------------------------------------------


def _listing(row: Callable[[str, Command], str]) -> List[str]:
    """Return what the kit is and its commands by group, each as ``row`` shows it."""
    lines = ["Five 90 % sparse, 8-bit BERT-large question-answering models: ONNX and OpenVINO IR."]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", group]
        lines += ["  " + row(name, command) for name, command in COMMANDS.items() if command.group == group]
    return lines


def write_overview() -> str:
    """Return what ``python -m launch --help`` says."""
    return "\n".join(
        [
            f"usage: {PROG} <command> [options]",
            "",
            *_listing(lambda name, command: f"{name:<15}{command.summary}"),
            "",
            f"`{PROG} <command> --help` says what a command does, with its options and examples.",
            f"`{PROG} help` lists the variants and what each takes.",
            "Every command is a make target too; there options are variables: --train-file is TRAIN_FILE=.",
            "Exported, they begin with LAUNCH_, for make too: LAUNCH_TRAIN_FILE.",
        ]
    )


def write_help() -> str:
    """Return what ``make`` alone says."""
    from .build import preflight
    from .model.variants import make_bert_large

    def target(name: str, command: Command) -> str:
        words = ["make", name, *(f"{option.upper()}=" for option in command.required), command.shown]
        return f"{' '.join(words):<31}{command.summary}"

    lines = [*_listing(target), ""]
    lines.append(
        "Variables, with their defaults; on make's command line, or exported as LAUNCH_OUT, LAUNCH_SEED …"
    )
    for name, option in OPTIONS.items():
        what = option.what + (f" (default: {option.otherwise})" if option.otherwise else "")
        first, *rest = textwrap.wrap(what, 84)
        lines.append(f"  {name.upper() + '=' + option.shown:<27}{first}")
        lines += [" " * 29 + line for line in rest]
    lines += ["", "Variants V (24 layers, hidden size 1024, sequence length 384; times on 2 cores)"]
    lines.append(f"  {'':<32}{'heads':>5}{'intermediate':>14}{'time':>8}{'memory':>10}{'disk':>9}")
    for variant in VARIANTS.values():
        need = preflight.estimate_need(make_bert_large(variant))
        lines.append(
            f"  {variant.name:<32}{variant.heads or 16:>5}{variant.intermediate_size or 4096:>14}"
            f"{format_duration(need.seconds):>8}"
            f"{need.memory / preflight.GB:>7.1f} GB{need.disk / preflight.GB:>6.1f} GB"
        )
    lines += [
        "",
        f"Others by name: {variants.FORM},",
        "with S percent of the weights zero or removed (00 to 99), HH heads and NNNN feed-forward rows kept,",
        "as in 00pc_sparse-16_head-4096_ffnn, the dense one.  V=<V>-fp32 is V=<V> PRECISION=fp32.",
    ]
    setup = f"The first run also sets up {paths.show_path(paths.VENV)} (2.7 GB)."
    return "\n".join([*lines, "", setup])


def write_for_make(example: str) -> str:
    """Return an example of a command line, whose options have values, as make takes it."""
    name, *words = shlex.split(example)
    values = {word[2:].replace("-", "_"): value for word, value in zip(words[::2], words[1::2])}
    return " ".join(["make", name, *(f"{option.upper()}={value}" for option, value in values.items())])


# --- the command line ------------------------------------------------------------------------------------

_PREFIX = "LAUNCH_"
_MADE = "LAUNCH_MAKE"  # the Makefile's, with make's command line: targets, and variables with = after them
_OTHERS = ("LAUNCH_IGNORE_MEMORY", child.STATUS_FD)  # variables of the kit that no option is


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command and return the exit status, unless this process becomes another.

    :raises KitError: the user's input is at fault.
    :raises SystemExit: only a command's help was wanted, and is printed.
    """
    given = parse_words(sys.argv[1:] if argv is None else argv)
    return (COMMANDS[given.command].run(given) or 0) if given else 0


class _Parser(argparse.ArgumentParser):
    """Argparse whose errors are the kit's."""

    def error(self, message: str) -> NoReturn:
        raise _wrong(self.prog, message)


def _wrong(prog: str, message: str, hint: str = "") -> KitError:
    what = f"The command line is wrong: {message}."
    return KitError(what, where=prog, hint=f"{hint}{prog} --help lists what it takes.")


def parse_words(words: Sequence[str]) -> Optional[Given]:
    """Return the call; None where only help was wanted, and printed.

    An option that is not given, or empty, has the value of its environment variable, else its default.
    """
    if not words or words[0] in ("-h", "--help"):
        print(write_overview())
        return None
    on_make = os.environ.pop(_MADE, "").replace(f" {_PREFIX}", " ").split()
    entered = bool(os.environ.pop(_ENTERED, ""))
    _check_command(words[0], "make" if on_make else PROG)
    parser, command = _parser(words[0]), COMMANDS[words[0]]
    given, unknown = parser.parse_known_args(
        words[1:], Given(**dict.fromkeys(OPTIONS, ""), command=words[0], argv=words, entered=entered)
    )
    if unknown:
        meant = "v" in command.options and not unknown[0].startswith("-")
        hint = f"A name comes after --v: {parser.prog} --v {shlex.quote(unknown[0])}\n" if meant else ""
        raise _wrong(parser.prog, f"unrecognized arguments: {' '.join(unknown)}", hint)
    if words[0] == "help" and given.words:
        return parse_words([*given.words, "--help"])
    if not entered:
        _check_variables([word for word in on_make if word[-1] != "="] or [words[0]], on_make)
    given.typed = []
    for name, option in command.options.items():
        exported = os.environ.get(_PREFIX + name.upper(), "")
        if getattr(given, name) or (exported and f"{name.upper()}=" in on_make):
            given.typed.append(name)
        setattr(given, name, getattr(given, name) or exported or option.default)
    return given


def _check_command(name: str, prog: str) -> None:
    if name not in COMMANDS:
        hint = _nearest(name, COMMANDS)
        if variants.parse_name(name):
            hint = f"It is a variant: make variant V={name}\n"
        what, where = f"There is no command {name!r}.", f"{prog} {name}"
        raise KitError(what, where=where, hint=f"{hint}The commands: {', '.join(COMMANDS)}")


def _check_variables(targets: Sequence[str], on_make: Sequence[str]) -> None:
    """Check that each variable of ``on_make``, make's command line less prefixes, is one of its targets'.

    A variable in the environment that is unknown is named on stderr.  No value is shown: it may be secret.
    """
    for target in targets:
        _check_command(target, "make")
    taken = list(dict.fromkeys(option.upper() for name in targets for option in COMMANDS[name].options))
    known = [option.upper() for option in OPTIONS]
    made = " ".join(["make", *targets])
    for word in on_make:
        name = word[:-1]
        if word[-1] != "=" or name in taken or _PREFIX + name in _OTHERS:
            continue
        hint = f"{made} takes {', '.join(taken)}." if taken else f"{made} takes no variables."
        if name in known:
            users = ", ".join(user for user, command in COMMANDS.items() if name.lower() in command.options)
            what = f"The variable {name} means nothing to {made}."
            hint = f"Leave it out.  {hint}\n{name} is for make {users}."
        else:
            what = f"There is no variable {name}."
            hint = (_nearest(name, taken) or _nearest(name, known)) + hint
        raise KitError(what, where=f"{made} {name}=", hint=hint)
    for word in sorted(os.environ):
        if word.startswith(_PREFIX) and word not in _OTHERS and word[len(_PREFIX) :] not in known:
            near = _nearest(word[len(_PREFIX) :], known, _PREFIX)
            note = f"note: {word} in the environment is no variable of the kit. {near}"
            print(note.strip(), file=sys.stderr)


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the question whether the nearest of ``known`` was meant, if one is near."""
    folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    return f"Did you mean {prefix + folded[near[0]]!r}?\n" if near else ""


def _parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    summary, details, examples = command.help
    after = ["examples:", *(f"  {PROG} {example}" for example in examples)]
    after.append("  " + write_for_make(examples[0]))
    if command.options:
        last = list(command.options)[-1]
        after += [
            "",
            "The variable of each option on make's command line stands in brackets.  With LAUNCH_ before it,",
            f"it may be exported: --{last} is {last.upper()}= and {_PREFIX}{last.upper()}.",
        ]
    prog = f"{PROG} {name}"
    parser = _Parser(
        prog=prog,
        usage=prog + " [options]" * bool(command.options) + " [<word> ...]" * bool(command.words),
        description="\n".join([summary, *textwrap.wrap(details, 100)]),
        epilog="\n".join(after),
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=100, max_help_position=32),
        allow_abbrev=False,
        add_help=False,
    )
    if command.words:
        arguments = parser.add_argument_group("arguments")
        arguments.add_argument("words", nargs="*", metavar="<word>", help=command.words)
    options = parser.add_argument_group("options")
    for name, option in command.options.items():
        default = option.otherwise or option.shown
        notes = [f"{name.upper()}="]
        notes += ["required"] if name in command.required else [f"default: {default}"] if default else []
        what = f"{option.what} ({'; '.join(notes)})".replace("%", "%%")
        flag = "--" + name.replace("_", "-")
        argument = options.add_argument(flag, dest=name, metavar=option.value, help=what)
        if option.value == "1|0":
            argument.nargs, argument.const = "?", "1"
    options.add_argument("-h", "--help", action="help", help="this text")
    return parser
