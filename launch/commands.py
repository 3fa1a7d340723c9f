"""The commands and their options: what each does and takes, in words.

This is the one list: ``make`` alone, ``python -m launch --help`` and each command's ``--help`` are made of
it, and the Makefile has a target for each command.
"""

from dataclasses import dataclass, field
from typing import Dict, Mapping, Sequence

from . import choices, paths
from .variants import VARIANTS

OUT = str(paths.REPOSITORY / "gen_hybrid_sparse")
"""Where trees are published unless ``OUT=`` says otherwise; the name that the origin gives the folder."""

PACKAGES = str(paths.REPOSITORY / "packages")
"""Where packages appear unless ``TO=`` says otherwise."""


@dataclass(frozen=True)
class Option:
    """A value that a person may give.

    :param value: what kind of value it is, in a word, for the help.
    :param what: what it is for.
    :param default: its value where it is not given.
    :param otherwise: what happens where it is not given, in words, where ``default`` does not say it.
    :param flag: whether it is on or off; given without a value, it is on.
    """

    value: str
    what: str
    default: str = ""
    otherwise: str = ""
    flag: bool = False

    @property
    def shown(self) -> str:
        """The default as a person wants to read it."""
        return self.default.replace(f"{paths.REPOSITORY}/", "")


OPTIONS: Dict[str, Option] = {
    "v": Option("<name>", "the variant, one of those below; for command, a configuration"),
    "out": Option("<folder>", "where trees are published", OUT),
    "input": Option(
        "|".join(choices.INPUTS),
        "sample: text that comes with the kit; files: yours; hub: the names upstream uses",
        choices.INPUTS[0],
    ),
    "hub": Option(
        "<file>",
        "INPUT=hub: another list of repository, files and questions, of the same form",
        otherwise="launch/hub.json",
    ),
    "model": Option("<folder>", "INPUT=files: folder with config.json and a tokenizer"),
    "train_file": Option("<file>", "INPUT=files: questions to calibrate on (SQuAD's JSON, nested or flat)"),
    "validation_file": Option("<file>", "INPUT=files: questions to evaluate on"),
    "predictions": Option("<file>", "evaluate: answers to score, without a model"),
    "seed": Option("<number>", "seed of the random weights, 0 to 2³² − 1", otherwise="the launch file's, 42"),
    "weights": Option(
        "|".join(choices.WEIGHTS),
        "evaluate: random, drawn from the seed",
        otherwise="the model folder's; the sample's are random",
    ),
    "threads": Option(
        "<number>",
        "threads of a program, on which masks depend; README's sums are for 2",
        otherwise="as many as torch would take",
    ),
    "launch": Option(
        "<file>|upstream",
        "the launch file; upstream: that of the transformers fork, as it is",
        str(paths.LAUNCH_FILE),
    ),
    "source": Option(
        "|".join(choices.SOURCES),
        "nncf and transformers from: fork (the submodules), registry (releases); auto: the forks if they are"
        " checked out, else the releases",
        choices.SOURCES[0],
    ),
    "mo": Option(
        "|".join(choices.OPTIMIZERS),
        "Model Optimizer; 2021.4: IR version 10, minutes a variant, not seconds",
        choices.OPTIMIZERS[0],
    ),
    "fast": Option(
        "1|0", "with the patches that make runs faster and smaller and change no byte", "1", flag=True
    ),
    "size": Option("full|small", "bench-pipeline: full, or small: a quick look on a two-layer model", "full"),
    "repeat": Option("<number>", "bench-pipeline: runs of each", "1"),
    "explain": Option(
        "1|0", "show instead each part as in the file, as it runs, and by which rule", "0", flag=True
    ),
    "to": Option("<path>", "report: the page; package: the folder", otherwise="OUT/report.html; packages"),
    "format": Option("|".join(choices.FORMATS), "package: a folder or one file", choices.FORMATS[0]),
    "a": Option("<path>", "compare: an ONNX file, a tree or a folder of trees"),
    "b": Option("<path>", "compare: what A is compared with, of the same kind"),
    "level": Option("|".join(choices.LEVELS), "compare: what must be the same", choices.LEVELS[0]),
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


@dataclass(frozen=True)
class Command:
    """A command, which is a make target too.

    :param group: the heading it is listed under.
    :param summary: what it does, in a line.
    :param details: what else to know before running it.
    :param options: the options it takes, of :data:`OPTIONS`; where it has others to say, their own.
    :param shown: the options that the list of targets shows with it.
    :param examples: what people type after ``python -m launch``.
    :param words: what further words are; empty where it takes none.
    """

    group: str
    summary: str
    details: str = ""
    options: Sequence[str] = ()
    shown: str = ""
    examples: Sequence[str] = ()
    words: str = ""
    own: Mapping[str, Option] = field(default_factory=dict)

    @property
    def required(self) -> Sequence[str]:
        """The options that it does not run without: those that the list of targets shows without brackets."""
        return [word[:-1].lower() for word in self.shown.split() if word.endswith("=")]

    def option(self, name: str) -> Option:
        """Return the option ``name`` as this command means it."""
        return self.own.get(name) or OPTIONS[name]


_VARIANT = next(reversed(list(VARIANTS)))
_READ = (
    "input",
    "hub",
    "model",
    "train_file",
    "validation_file",
    "seed",
    "threads",
    "launch",
    "source",
    "fast",
)
_RUN = (*_READ, "python")
_DRAWS = ("train_file", "validation_file", "seed", "threads")
"""What says nothing to a command that reads no questions and draws no weights."""

_V = Option("<name>", "the variant; `python -m launch help` lists them")
_MAKE, _TRUST, _FORKS, _KIT = (
    "Make trees",
    "Trust and share them",
    "Forks and patches",
    "Look after the kit",
)
_PYTEST = "arguments for pytest; those that begin with - after --"

COMMANDS: Dict[str, Command] = {
    "all": Command(
        _MAKE,
        "the five artifact trees",
        "What is current is not made again, and an interrupted run resumes after its last stage.  A tree is"
        " published when it has passed verification, by one rename.",
        ("out", *_RUN, "mo"),
        examples=(
            "all",
            "all --out /data/trees --seed 7",
            "all --input files --model my-bert --train-file train.json",
        ),
    ),
    "variant": Command(
        _MAKE,
        "one of the five trees",
        "As `all`, for one variant.",
        ("v", "out", *_RUN, "mo"),
        "V=",
        (f"variant --v {_VARIANT}",),
        own={"v": _V},
    ),
    "configs": Command(
        _MAKE,
        "the four hybrid model configs, from the dense one",
        "They are those in launch/configs/, byte for byte; with INPUT=files, those of your model, below"
        " build/configs/user/.",
        [name for name in _RUN if name not in _DRAWS],
        examples=("configs",),
    ),
    "command": Command(
        _MAKE,
        "print a launch configuration as a shell command, and run nothing",
        "It may write what the command reads: your model's hybrid config (INPUT=files), what is downloaded"
        " (INPUT=hub), and for the forks the patched sources and the questions in their form.  `setup` comes"
        " before running what it prints; where that has not been done, it says so on standard error.",
        ("v", "explain", *_RUN, "weights"),
        "V= [EXPLAIN=1]",
        (f"command --v {_VARIANT}", "command --v evaluate --explain", f"command --v {_VARIANT} | sh"),
        own={
            "v": Option("<name>", "the configuration: a variant, configs, evaluate, or another of the file")
        },
    ),
    "evaluate": Command(
        _MAKE,
        "exact match and F1 of a model on questions",
        "By default the full-size model on the sample, which takes some minutes: its weights are random, and"
        " the result says so.  A model folder's are read from model.safetensors or pytorch_model.bin, or from"
        " several such files with their index.  With PREDICTIONS, answers that are there already are scored:"
        " one JSON object of question ids and answers.  A question that is not in it counts 0.",
        ("predictions", *_RUN, "weights"),
        "[PREDICTIONS=]",
        (
            "evaluate",
            "evaluate --input files --model my-bert --validation-file dev.json",
            "evaluate --predictions answers.json --validation-file dev.json",
        ),
        own={
            "predictions": Option(
                "<file>", "answers to score without a model: a JSON object of question ids and texts"
            ),
            "validation_file": Option("<file>", "INPUT=files or PREDICTIONS: questions to evaluate on"),
            "weights": Option(
                "random", "draw them from the seed", otherwise="the model's; the sample's are drawn"
            ),
        },
    ),
    "verify": Command(
        _TRUST,
        "measure the trees in OUT, or one: whether each is what it must be",
        "Ends with 0 where every tree passed, with 1 where one did not.",
        ("v", "out", "python"),
        "[V=]",
        examples=("verify", f"verify --v {_VARIANT}"),
        own={
            "v": Option("<name>", "the variant", otherwise="all that are there"),
            "out": Option("<folder>", "the folder that the trees are in", OUT),
        },
    ),
    "report": Command(
        _TRUST,
        "one HTML page on the trees in OUT, and the same as a table",
        options=("out", "to", "python"),
        shown="[TO=]",
        examples=("report", "report --to /tmp/trees.html"),
        own={
            "out": Option("<folder>", "the folder that the trees are in", OUT),
            "to": Option("<file>", "the page", otherwise="report.html beside the trees"),
        },
    ),
    "package": Command(
        _TRUST,
        "a tree with report, model card and checksums below TO, ready to upload",
        "The tree is verified first; the same tree gives the same bytes.",
        ("v", "out", "to", "format", "python"),
        "V= [FORMAT=tar]",
        (f"package --v {_VARIANT}", f"package --v {_VARIANT} --format tar --to /tmp"),
        own={
            "v": _V,
            "format": Option("|".join(choices.FORMATS), "a folder or one file", choices.FORMATS[0]),
            "out": Option("<folder>", "the folder that the trees are in", OUT),
            "to": Option("<folder>", "the folder that the package appears in", PACKAGES),
        },
    ),
    "compare": Command(
        _TRUST,
        "whether two trees, or folders of trees, are the same",
        "bytes: every file; weights: the same graph, weights and masks, with the ranges' differences told;"
        " structure: the same graph.  Ends with 0 only where they are the same in that sense.",
        ("a", "b", "level", "python"),
        "A= B=",
        ("compare --a gen_hybrid_sparse --b /data/trees --level weights",),
        own={
            "a": Option("<path>", "an ONNX file, a tree or a folder of trees"),
            "b": Option("<path>", "what A is compared with, of the same kind"),
            "level": Option("|".join(choices.LEVELS), "what must be the same", choices.LEVELS[0]),
        },
    ),
    "third_party": Command(
        _FORKS,
        "check the forks out at their pins",
        options=("mirror",),
        shown="[MIRROR=]",
        examples=("third_party", "third_party --mirror /data/git"),
    ),
    "patches-check": Command(
        _FORKS,
        "whether every patch says what it must, applies and exports unchanged",
        "Without the submodules the patches are read, and not applied.",
        examples=("patches-check",),
    ),
    "patch-edit": Command(
        _FORKS,
        "a scratch clone of a fork (nncf, transformers) with its patches as commits",
        "It is below build/patches/; change the commits there with git, then export them.",
        ("p",),
        "P=",
        ("patch-edit --p nncf",),
    ),
    "patch-export": Command(
        _FORKS,
        "the scratch clone's commits as patches",
        "Replaces the fork's folder in patches/ by what its scratch clone holds.",
        ("p",),
        "P=",
        ("patch-export --p nncf",),
    ),
    "setup": Command(
        _KIT,
        "the environment and the patched sources (implied by whatever needs them)",
        "Installs 2.7 GB into .venv/ from locks with hashes.",
        ("python", "source", "fast", "mo", "input"),
        examples=("setup", "setup --source registry --python /opt/python3.8/bin/python3"),
        own={"input": Option("|".join(choices.INPUTS), "hub: with the client that INPUT=hub downloads with")},
    ),
    "test": Command(
        _KIT,
        "all tests but test-forks', one tree at full size included",
        "Sets up SOURCE=registry, MO=2021.4 and INPUT=hub first, on which they run.",
        ("python",),
        examples=("test", "test tests/test_cli.py", "test -- -k launch -x"),
        words=_PYTEST,
    ),
    "test-forks": Command(
        _KIT,
        "the tests that run upstream's own code; needs the submodules",
        "Sets up SOURCE=registry and INPUT=hub, and checks the submodules out first.",
        ("python", "mirror"),
        examples=("test-forks", "test-forks --mirror /data/git"),
        words=_PYTEST,
    ),
    "test-fast": Command(
        _KIT,
        "the tests that take seconds",
        "Sets up SOURCE=registry, MO=2021.4 and INPUT=hub first.  KIT_CASES=<number> in the environment"
        " tries the launch file's reader on as many made-up files.",
        ("python",),
        examples=("test-fast", "test-fast tests/test_vscode.py -- -q"),
        words=_PYTEST,
    ),
    "bench-pipeline": Command(
        _KIT,
        "the recipe by hand and the kit in turn: time, processor, memory, ratios",
        "With the submodules checked out, against upstream's recipe; else the releases with the set fast"
        " against those without.  Ends with 0 only where both give the same bytes.",
        ("size", "v", "repeat", "to", "source", "python"),
        "[SIZE=]",
        ("bench-pipeline --size small", f"bench-pipeline --v {_VARIANT} --repeat 3"),
        own={
            "size": Option("full|small", "full, or small: a quick look on a two-layer model", "full"),
            "v": Option("<name>", "the variant", otherwise="all five"),
            "repeat": Option("<number>", "runs of each", "1"),
            "to": Option("<folder>", "the folder that the results appear in", str(paths.BUILD / "bench")),
        },
    ),
    "lint": Command(_KIT, "ruff and mypy", options=("python",), examples=("lint",)),
    "lock": Command(
        _KIT,
        "resolve launch/env/*.in into *.lock anew",
        "Needs a route to the package index.",
        ("python",),
        examples=("lock",),
    ),
    "clean": Command(
        _KIT,
        "remove build/ (published trees and the environment stay)",
        "Refuses while patches are being worked on there that are not exported.",
        examples=("clean",),
    ),
    "distclean": Command(_KIT, "remove build/ and .venv/", "As `clean`.", examples=("distclean",)),
    "help": Command(
        _KIT,
        "targets, variables with their defaults, variants",
        examples=("help",),
        words="a command, whose own help is wanted",
    ),
}
