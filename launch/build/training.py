"""``make train``: the launch file's entry ``train`` with its rules, the checks before it, and its run."""

import contextlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

from ..artifact import trees
from ..core import child, files, hidden, machine, paths
from ..core.errors import KitError
from ..core.files import Stamp
from ..core.progress import Progress, align_columns
from ..model import bert_config, model_folder, squad, variants
from ..model.variants import BertShape
from ..setup import requirements
from ..sources.source import Registry
from ..train.arguments import Arguments, Request, parse_arguments
from ..train.model import describe_work, read_dense
from ..vscode.invocation import Rewriter
from . import jobs, preflight, rules, upstream

NAME = "train"
"""Of the entry in the launch file."""

_PATHS = {
    "MODEL": "--model_name_or_path",
    "TRAIN_FILE": "--train_file",
    "VALIDATION_FILE": "--validation_file",
    "TO": "--output_dir",
    "HYPERPARAMETERS": "--hyperparameters",
}
_OPTIONS = {**_PATHS, "THRESHOLD": "--threshold", "SEED": "--seed", "EPOCHS": "--epochs"}
"""The program's options by the variables that set them."""

_PLACES = (*(option[2:] for option in _PATHS.values()), "work_dir")
"""The program's arguments that are paths."""

_ACCELERATE = ("-m", "accelerate.commands.launch")

OLDEST = {
    "python": (3, 8),
    "torch": (1, 9),
    "transformers": (4, 9),
    "accelerate": (0, 20),
    "safetensors": (0, 3),
}
"""Of what a Python must have to run the program; the first of each is what the kit's own environment has."""

_ASK = """
import json, platform
found = {"python": platform.python_version()}
for name in ("torch", "transformers", "accelerate", "safetensors"):
    try:
        found[name] = __import__(name).__version__
    except Exception as error:
        found[name] = type(error).__name__
try:
    import torch
    found["gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
except Exception:
    found["gpus"] = 0
print("\\n" + json.dumps(found))
"""

# Bytes of what a training on a CPU holds in 32 bits.  Measured with BERT-large and 4 windows a step: 12.5 GB
# without structure, where this makes 13.0; 9.3 GB of 8 heads and 2,048 rows, where it makes 11.2.
_BASE = 1.0 * preflight.GB  # the libraries
_PER_WEIGHT = 16  # of a step: weight, gradient, AdamW's two moments
_PER_PRUNED = 36  # of pruning, which has no gradients but compares and sorts
_PER_TOKEN = (68, 10)
"""In a layer, for each hidden value, and for each head and token of a row of scores: twice the 34 and 5 that
Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", count in 16 bits."""

_STATES = 12  # of disk: weights and moments; two states exist while one replaces the other


@dataclass(frozen=True)
class Training(jobs.Configured):
    """The entry ``train`` as it runs; ``request`` is its command line, parsed."""

    arguments: Arguments
    request: Request


def read_training(launch: str, given: Mapping[str, str], threads: Optional[int] = None) -> Training:
    """Return the training that the launch file and make's variables ask for.

    :param given: texts by variable: of :data:`_OPTIONS`, V, TRAIN_PYTHON, ACCELERATE; empty: not given.
    :raises KitError: the launch file, or a value, is at fault.
    """
    source = Registry()
    if launch == upstream.UPSTREAM:
        raise KitError(
            "Upstream's launch file has no configuration that trains.",
            where="LAUNCH=upstream",
            hint="Leave LAUNCH out.",
        )
    read = jobs.read_configuration(launch, NAME, source)
    rewriter, configuration = read.rewriter, read.configuration
    assert configuration is not None
    _set_variant(rewriter, given.get("V", ""))
    chosen = {name: given[name] for name in _OPTIONS if given.get(name)}
    for name in _PATHS:
        if name in chosen:
            chosen[name] = str(files.expand_path(chosen[name], name))
    missing = [name for name in ("TRAIN_FILE", "VALIDATION_FILE") if name not in chosen]
    if "MODEL" in chosen and missing:
        raise KitError(
            f"A training of your model needs {missing[0]}.",
            where=f"{missing[0]} is empty",
            hint=f"Give {missing[0]}=<questions in SQuAD's JSON, nested or flat>.",
        )
    for name, value in chosen.items():
        rewriter.set(_OPTIONS[name], value, name)
    if given.get("TRAIN_PYTHON"):
        rewriter.set_python(_find_python(given["TRAIN_PYTHON"]), "TRAIN_PYTHON")
        rewriter.set_variable("PYTHONPATH", None, "TRAIN_PYTHON: its own transformers")
    words = _read_accelerate(given.get("ACCELERATE", ""))
    if words:
        rewriter.target.change((*_ACCELERATE, *words, *rewriter.target.after), "ACCELERATE")
    if threads or not words:
        rules.set_threads(rewriter, threads, os.environ)  # accelerate shares cores among its processes itself
    rules.drop_shells(rewriter, os.environ)
    try:
        parse_arguments(list(map(hidden.show_word, rewriter.result().args)))  # whose errors show nothing
        request = parse_arguments(rewriter.result().args)
    except KitError as error:
        said = f"{error.what} {error.where}"
        blamed = [f"{name}={chosen[name]}" for name in chosen if _OPTIONS[name] in said]
        where = "\n".join(blamed) or f"{configuration.place(configuration.path('args'))}: {error.where}"
        raise KitError(error.what, where=where, hint=error.hint) from None
    run = (
        NAME,
        rewriter.result(),
        read.origin,
        rewriter.parts(),
        None if given.get("TRAIN_PYTHON") else source,
    )
    return Training(*run, configuration, request.arguments, request)


def _set_variant(rewriter: Rewriter, name: str) -> None:
    """Let the entry train another variant, whose name then stands wherever the entry's stood."""
    entry = rewriter.value("--variant") or ""
    if name and name != entry:
        variant = variants.find_variant(name).base
        rewriter.map_words(lambda word: word.replace(entry, variant) if entry else word, "V")
        rewriter.set("--variant", variant, "V")


def _find_python(text: str) -> str:
    """Return the path of a program, by its path or its name; links stay, by which an environment is known."""
    found = shutil.which(str(Path(text).expanduser().absolute()) if os.sep in text else text)
    if found is None:
        raise KitError(
            "There is no such program, or it cannot be run.",
            where=f"TRAIN_PYTHON={text}",
            hint="Name a Python with torch, transformers and accelerate: <environment>/bin/python.",
        )
    return str(Path(found).absolute())


def _read_accelerate(text: str) -> List[str]:
    """Return the arguments of ``accelerate launch``; those that the text names, or its config file."""
    if not text.strip():
        return []
    if Path(text).expanduser().is_file():
        return ["--config_file", str(files.expand_path(text, "ACCELERATE"))]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise KitError(
            f"These are no arguments: {error}.", where=f"ACCELERATE={text}", hint="Close the quotation marks."
        ) from None
    if not words[0].startswith("-"):
        raise KitError(
            "This is neither an argument of `accelerate launch` nor a file that there is.",
            where=f"ACCELERATE={text}",
            hint="Give its arguments, as in ACCELERATE='--num_processes 2 --mixed_precision bf16', or a file"
            " that `accelerate config` has written.",
        )
    return words


# --- before the first long step --------------------------------------------------------------------------


class Found(NamedTuple):
    """What a Python has: versions by package, and GPUs that its torch sees."""

    versions: Mapping[str, str]
    gpus: int


def ask_python(training: Training) -> Found:
    """:raises KitError: the interpreter cannot run the program: a package is missing, or too old."""
    invocation = training.invocation
    python, own = invocation.python, invocation.python == str(paths.VENV_PYTHON)
    where = ".venv" if own else f"TRAIN_PYTHON={hidden.show_word(python)}"
    wanted = ", ".join(f"{name} {'.'.join(map(str, oldest))}" for name, oldest in OLDEST.items())
    hint = (
        "Make the environment again: make setup" if own else f"It needs at least {wanted}: pip install them."
    )
    try:
        done = subprocess.run(
            [python, *invocation.options, "-c", _ASK],
            env=invocation.environment(os.environ),
            cwd=invocation.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        found: Dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except OSError as error:
        raise KitError(f"This Python cannot be started: {error.strerror}.", where=where, hint=hint) from None
    except (subprocess.CalledProcessError, ValueError, IndexError):
        raise KitError("This Python does not say what it has.", where=where, hint=hint) from None
    faults = []
    for name, oldest in OLDEST.items():
        version = str(found[name])
        numbers = tuple(map(int, re.findall("[0-9]+", version)[:2]))
        if not version[0].isdigit():
            missing = version in ("ModuleNotFoundError", "ImportError")
            faults.append(f"{name} is not there" if missing else f"{name} cannot be imported ({version})")
        elif numbers < oldest:
            faults.append(f"{name} is {version}")
    if faults:
        raise KitError(f"This Python cannot train: {', '.join(faults)}.", where=where, hint=hint)
    return Found({name: str(found[name]) for name in OLDEST}, int(found["gpus"]))


def _count_weights(shape: BertShape) -> int:
    """Return the weights of the dense model."""
    return shape.dense_block_weights + (shape.vocab_size + shape.max_positions + 2) * shape.hidden


def estimate_memory(
    shape: BertShape, windows: int, tokens: int, processes: int = 1, *, teacher: bool = False
) -> int:
    """Return the peak bytes of a training on a CPU, in all its processes.

    :param shape: the variant's; a step is taken for one of the dense model, as the teacher's is.
    :param windows: of a step, in all processes, that are computed at once.
    :param teacher: whether the teacher stays, for its hidden states.
    """
    values, scores = _PER_TOKEN
    heads = shape.hidden // shape.head_size
    token = shape.layers * (values * shape.hidden + scores * heads * tokens)
    weights = _count_weights(shape)
    step = processes * _PER_WEIGHT * weights + windows * tokens * token
    pruning = processes * _PER_PRUNED * (weights - shape.dense_block_weights + shape.kept_weights)
    kept = processes * 4 * weights if teacher else 0
    return int(processes * _BASE + kept + max(step, pruning))


def check_training(training: Training) -> None:
    """Check interpreter, inputs, output, memory and disk.

    :raises KitError: one of them is at fault.
    """
    preflight.check_job(training)
    args = _locate(training)
    with _naming(training):
        folder, variant = Path(args.model_name_or_path), variants.find_variant(args.variant)
        config = read_dense(folder, variant, args.max_seq_length)[2]
        shape = bert_config.read_shape(config, str(folder))
        model_folder.find_checkpoint(folder)
        squad.check_trainable(squad.read_questions(Path(args.train_file), "--train_file"))
        squad.check_scorable(squad.read_questions(Path(args.validation_file), "--validation_file"))
        args.check_output()
    found, given = ask_python(training), training.request.hyperparameters
    disk = (2 * _STATES + 4 + 4) * _count_weights(shape)  # two states, teacher, result
    machine.check_disk(f"Training {args.variant}", args.work, disk, "TO")
    if not found.gpus:
        batch = math.ceil(given["batch_size"] / args.gradient_accumulation_steps)
        teacher, processes = given["hidden_weight"] > 0, _count_processes(training)
        need = estimate_memory(shape, batch, args.max_seq_length, processes, teacher=teacher)
        smaller = "take a GPU, a smaller batch_size, or --gradient_accumulation_steps in the launch file"
        preflight.check_memory(f"Training {args.variant}", preflight.Estimate(need, disk, 0, 0, 0), smaller)


def _locate(training: Training) -> Arguments:
    """Return the program's arguments, with paths as this process can open them."""
    args = training.arguments
    found: Dict[str, Any] = {
        name: str(training.local(getattr(args, name))) for name in _PLACES if getattr(args, name)
    }
    return replace(args, **found)


def _count_processes(training: Training) -> int:
    words = " ".join(training.invocation.target).replace("=", " ").split()
    named = [value for word, value in zip(words, words[1:]) if word in ("--num_processes", "--num-processes")]
    return int(named[-1]) if named and named[-1].isdigit() else 1


@contextlib.contextmanager
def _naming(training: Training) -> Any:
    """Let errors name what a person has set, and not the program's options."""
    try:
        yield
    except KitError as error:
        for name in _PLACES:
            error.where = error.where.replace(f"--{name}=", f"{training.named(name)}=")
        raise


# --- the run ---------------------------------------------------------------------------------------------


def make_key(training: Training) -> Dict[str, Any]:
    """Return what the checkpoint of a training depends on, as JSON; files count by their content."""
    args = training.arguments
    rooms = [
        path for room in ("core", "model", "qa", "train") for path in (paths.PACKAGE / room).glob("*.py")
    ]
    model = training.local(args.model_name_or_path)
    return {
        "arguments": {name: value for name, value in vars(args).items() if name not in _PLACES},
        "hyperparameters": training.request.hyperparameters,
        "model": [files.digest_model_folder(model), model_folder.digest_checkpoint(model)],
        "questions": [
            files.digest_file(training.local(path)) for path in (args.train_file, args.validation_file)
        ],
        "program": files.digest_files(rooms, paths.PACKAGE),
        "target": list(map(hidden.show_word, training.invocation.target[:-1])),
        "lock": None if training.source is None else requirements.digest_lock("runtime.lock"),
    }


def train(training: Training) -> str:
    """Train, unless the checkpoint is there and current, and return its figures as a table.

    What was interrupted goes on from its last saved state.

    :raises KitError: an input is at fault, or the program fails.
    """
    args = _locate(training)
    to = args.output
    stamp = to.with_name(f".{to.name}.stamp.json")
    progress = Progress(f"train {args.variant}", None)
    with contextlib.suppress(KitError, OSError):  # the checks say what is wrong
        found = Stamp.read(stamp)
        if found and found.key == make_key(training) and trees.is_intact(to, found.made, by_hash=False):
            progress.done(f"{paths.show_path(to)}  up to date")
            return format_scores(to)
    check_training(training)
    key = make_key(training)
    log = paths.BUILD / "log" / f"train-{args.variant}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    progress.note(f"log: {paths.show_path(log)}")
    alone = len(training.invocation.target) == 1
    try:
        with _naming(training), progress:
            child.run_child(
                training.invocation.argv(),
                env=training.invocation.environment(os.environ),
                cwd=Path(training.invocation.cwd),
                log=log,
                what="training",
                tick=lambda stated: progress.tick(stated if alone else read_step(log)),
                status=alone,
            )
    except KeyboardInterrupt:
        progress.note("the same command goes on from the last saved state")
        raise
    made = trees.describe_files(to, sorted(path.name for path in to.iterdir() if path.is_file()))
    Stamp(key, made).write(stamp)
    progress.note(describe_work(args.work))
    progress.done(paths.show_path(to))
    return format_scores(to)


_STEP = re.compile(r"^\[ *[0-9.]+ s\] (.+)$", re.M)


def read_step(log: Path) -> Optional[str]:
    """Return the step that was last said in a log; None where there is none."""
    with contextlib.suppress(OSError), log.open("rb") as handle:
        handle.seek(max(0, log.stat().st_size - 4096))
        found = _STEP.findall(handle.read().decode("utf-8", "replace"))
        return found[-1] if found else None
    return None


def format_scores(to: Path) -> str:
    """Return exact match and F1 in the report of a training as a table."""
    report: Dict[str, Any] = files.read_json(to / model_folder.TRAINING)
    lines: List[Sequence[str]] = [["", "exact match", "F1"]]
    for name, label in model_folder.TRAINING_SCORES.items():
        if name in report["scores"]:
            score = report["scores"][name]
            lines.append([label, f"{score['exact_match']:.2f}", f"{score['f1']:.2f}"])
    again = f"make variant V={report['variant']} WEIGHTS={paths.show_path(to)}"
    return "\n".join([*align_columns(lines, (1, 2)), f"its trees: {again}"])
