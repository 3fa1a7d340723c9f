"""The help that ``make`` alone prints."""

from . import paths, resources
from .progress import duration
from .spec import bert_large
from .variants import VARIANTS

_TARGETS = (
    (
        "Make trees",
        (
            ("all", "the five artifact trees"),
            ("variant V=<name>", "one of them"),
            ("configs", "the four hybrid model configs, from the dense one"),
            (
                "command V=<name>",
                "print a launch configuration as a shell command, run nothing (EXPLAIN=1: why)",
            ),
            ("evaluate", "exact match and F1 of a model on questions"),
        ),
    ),
    (
        "Trust and share them",
        (
            ("verify", "measure the trees in OUT (V=: one): whether each is what it must be"),
            ("report", "one HTML page on the trees in OUT (TO=: where), and the same as a table"),
            ("package V=", "a tree with report, model card and checksums below TO, ready to upload"),
            ("compare A= B=", "whether two trees, or folders of trees, are the same"),
        ),
    ),
    (
        "Forks and patches",
        (
            ("third_party", "check the forks out at their pins (MIRROR= without a route to them)"),
            ("patches-check", "whether every patch says what it must, applies and exports unchanged"),
            ("patch-edit P=", "a scratch clone of a fork (nncf, transformers) with its patches as commits"),
            ("patch-export P=", "the scratch clone's commits as patches"),
        ),
    ),
    (
        "Look after the kit",
        (
            ("setup", "the environment and the patched sources (implied by whatever needs them)"),
            ("test", "all tests but test-forks', one tree at full size included"),
            ("test-forks", "the tests that run upstream's own code; needs the submodules"),
            ("test-fast", "the tests that take seconds"),
            ("bench-pipeline", "the recipe by hand and the kit in turn: time, processor, memory, ratios"),
            ("lint", "ruff and mypy"),
            ("lock", "resolve launch/env/*.in into *.lock anew"),
            ("clean", "remove build/ (published trees and the environment stay)"),
            ("distclean", "remove build/ and .venv/"),
        ),
    ),
)

_VARIABLES = (
    ("OUT=gen_hybrid_sparse", "where trees are published"),
    ("INPUT=sample", "sample: text that comes with the kit; files: yours; hub: the names upstream uses"),
    ("MODEL=", "INPUT=files: folder with config.json and tokenizer"),
    ("TRAIN_FILE=", "INPUT=files: questions to calibrate on (SQuAD's JSON, nested or flat)"),
    ("VALIDATION_FILE=", "INPUT=files: questions to evaluate on"),
    ("SEED=42", "seed of the random weights (default: the launch file's)"),
    ("LAUNCH=launch/launch.json", "the launch file; upstream: that of the transformers fork, as it is"),
    ("SOURCE=auto", "nncf and transformers from: fork (the submodules), registry (releases), auto: the"),
    ("", "forks if they are checked out, else the releases"),
    ("FAST=1", "0 leaves out the patches that make runs faster and smaller and change no byte"),
    ("MO=2022.1", "Model Optimizer: 2022.1, or 2021.4 (IR version 10; minutes a variant, not seconds)"),
    ("TO=", "report: the page (OUT/report.html); package: the folder (build/package)"),
    ("FORMAT=folder", "package: folder or tar"),
    ("SIZE=full", "bench-pipeline: full, or small: a quick look on a two-layer model (V=: one variant)"),
    ("REPEAT=1", "bench-pipeline: runs of each"),
    ("LEVEL=bytes", "compare: what must be the same: bytes, weights or structure"),
    ("MIRROR=", "third_party: folder with git directories nncf and transformers"),
    ("PYTHON=", "a Python 3.8 for the environment (default: found)"),
)


def text() -> str:
    """Return the help: targets by group, variables with their defaults, the five variants."""
    lines = ["Five 90 % sparse, 8-bit BERT-large question-answering models: ONNX and OpenVINO IR.", ""]
    for title, targets in _TARGETS:
        lines.append(title)
        lines += [f"  make {name:<18}{what}" for name, what in targets]
        lines.append("")
    lines.append("Variables, with their defaults")
    lines += [f"  {name:<27}{what}" for name, what in _VARIABLES]
    lines += ["", "Variants V (24 layers, hidden size 1024, sequence length 384; times on 2 cores)"]
    lines.append(f"  {'':<32}{'heads':>5}{'intermediate':>14}{'time':>8}{'memory':>10}{'disk':>9}")
    for variant in VARIANTS.values():
        need = resources.estimate(bert_large(variant))
        lines.append(
            f"  {variant.name:<32}{variant.heads or 16:>5}{variant.intermediate_size or 4096:>14}"
            f"{duration(need.seconds):>8}"
            f"{need.memory / resources.GB:>7.1f} GB{need.disk / resources.GB:>6.1f} GB"
        )
    lines += [
        "",
        f"The first run also sets up {paths.shown(paths.VENV)} (2.4 GB) and compiles an extension.",
    ]
    return "\n".join(lines)
