"""What turns a launch file's invocation into the one that runs: the source, the threads, the inputs.

A person chooses by make's variables: SOURCE, FAST, THREADS, INPUT, HUB, MODEL, TRAIN_FILE, VALIDATION_FILE,
SEED, WEIGHTS, HEADS.
"""

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..core import files, hidden, machine, paths
from ..core.errors import KitError, make_unknown_error
from ..model import bert_config, hub_list, model_folder, squad
from ..model.variants import PLAIN, Variant
from ..qa.arguments import HEADS
from ..sources.source import Fork, Registry, Source
from ..vscode.invocation import Rewriter
from ..vscode.launch_file import parse_jsonc

ALLOCATOR = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1048576"
"""glibc's allocator ("Memory Allocation Tunables" in its manual): a megabyte and more is mapped by itself.

By default the heap keeps freed tensors of up to 32 MB and grows by 0.7 GB with each calibration batch of the
unstructured variant.  ``hugetlb=1`` (from glibc 2.35 on) makes pages 2 MB large: fewer page faults.
"""

PROGRAMS = ("gen_hybrid_sparse_qa.py", "run_qa.py")  # the kit's and upstream's have the same names

PYTHON = "interpreter: the kit's environment"

KINDS = ("sample", "files", "hub")

VARIABLES = ("MODEL", "TRAIN_FILE", "VALIDATION_FILE", "WEIGHTS", "TO", "HYPERPARAMETERS")
"""Each is the rule by which an argument is changed."""

_OFFLINE = ("TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


# --- what any run gets -----------------------------------------------------------------------------------


def select_source(rewriter: Rewriter, source: Source) -> None:
    """Let an invocation run on ``source``: its packages and the tools that it calls."""
    name = f"SOURCE={source.name}"
    own = os.pathsep.join(map(str, source.python_path))
    rewriter.set_variable("PYTHONPATH", own, f"{name}: selects nncf, transformers and the script's modules")
    tools = str(paths.VENV / "bin")
    search = rewriter.variable("PATH")
    search = search or hidden.hide_variable("PATH", os.environ.get("PATH", "")) or os.defpath
    if tools not in search.split(os.pathsep):
        search = hidden.join_words(os.pathsep, [tools, search])
    rewriter.set_variable("PATH", search, "ninja compiles NNCF's functions for a GPU")
    rewriter.set_variable("TORCH_EXTENSIONS_DIR", str(source.extensions), f"{name}: its functions for a GPU")
    rewriter.set_variable("PYTHONHASHSEED", "0", "same order in every run")
    allocator = rewriter.variable("GLIBC_TUNABLES")
    if source.fast and allocator is None:
        rewriter.set_variable("GLIBC_TUNABLES", ALLOCATOR, "freed tensors leave the process at once")
    elif not source.fast and allocator == ALLOCATOR:
        rewriter.drop_variable("GLIBC_TUNABLES", "FAST=0: the allocator as it is")


def set_threads(rewriter: Rewriter, threads: Optional[int], environ: Mapping[str, str]) -> None:
    """Set the threads (None: as many as torch would take); drop the shell's variables that change results."""
    if not rewriter.has("--gen_sparse_cfg"):  # which computes nothing
        rule = "THREADS" if threads else "as many threads as torch would take; THREADS= sets another number"
        wanted = threads or machine.count_torch_threads(rewriter.result().environment(environ))
        for name in machine.THREADS:
            rewriter.set_variable(name, str(wanted), rule)
        if wanted > machine.count_cores():
            # Only then: with it, MKL does not choose fewer for a small product either.
            rewriter.set_variable("MKL_DYNAMIC", "FALSE", "more threads than there are cores")
    drop_shells(rewriter, environ)


def drop_shells(rewriter: Rewriter, environ: Mapping[str, str]) -> None:
    """Drop the shell's variables that change what is computed, or how, but those that are set."""
    for name in sorted(environ):
        if name.startswith(machine.NOT_INHERITED) and name not in rewriter.env:
            rewriter.set_variable(name, None, "not from the shell: it changes what is computed, or how")


# --- which variant ---------------------------------------------------------------------------------------

_PRUNING, _QUANTIZATION = "magnitude_sparsity", "quantization"

_NNCF = "--nncf_config"


def make_variant(rewriter: Rewriter, variant: Variant, entry: str) -> None:
    """Let the configuration of one variant, ``entry``, make another of its kind, or one of another precision.

    A hybrid's own config is the inputs' matter: it follows from the dense model.

    :raises KitError: the NNCF config cannot be read, or has no algorithm to change.
    """
    if entry not in (variant.name, variant.base):
        rule = f"V: as {entry}, the launch file's first of its kind"
        rewriter.map_words(lambda word: word.replace(entry, variant.base), rule)
        if not variant.hybrid:
            _change_compression(
                rewriter, lambda one: _prune(one, variant), f"V: sparsity_init {variant.overall_sparsity}"
            )
    if entry == variant.name or variant.quantized:
        return
    _change_compression(
        rewriter,
        lambda one: None if one["algorithm"] == _QUANTIZATION else one,
        f"PRECISION={PLAIN}: not quantized",
    )
    if variant.hybrid:
        _move(rewriter, "--output_dir", lambda path: path / PLAIN)
        return
    # Here the arguments name the tree's own folder.
    _move(rewriter, "--output_dir", lambda path: path.parent / PLAIN / path.name)
    _move(
        rewriter,
        "--to_onnx",
        lambda path: path.parent.parent / PLAIN / path.parent.name / f"{variant.stem}.onnx",
    )


def _move(rewriter: Rewriter, option: str, change: Callable[[Path], Path]) -> None:
    named = rewriter.value(option)
    if named is not None:
        moved = hidden.map_word(lambda text: str(change(Path(text))), named)
        rewriter.set(option, moved, f"PRECISION={PLAIN}: a folder of its own")


def _prune(algorithm: Dict[str, Any], variant: Variant) -> Dict[str, Any]:
    if algorithm["algorithm"] != _PRUNING:
        return algorithm
    return {**algorithm, "sparsity_init": variant.overall_sparsity}


def _change_compression(
    rewriter: Rewriter, change: Callable[[Dict[str, Any]], Optional[Dict[str, Any]]], rule: str
) -> None:
    """Let an invocation read a copy of its NNCF config with each algorithm changed, or left out for None."""
    named = rewriter.value(_NNCF)
    if named is None:
        return  # the program says so
    path = Path(rewriter.cwd.after[0]) / named
    config = read_nncf_config(path)
    config["compression"] = [new for new in map(change, config["compression"]) if new]
    made = paths.BUILD / "configs" / files.digest_value(config)[:12] / "nncf.json"
    if not made.is_file():
        files.write_text(made, json.dumps(config, indent=2) + "\n")
    rewriter.set(_NNCF, str(made), rule)


def read_nncf_config(path: Path) -> Dict[str, Any]:
    """Return an NNCF config with a list of algorithms.

    :raises KitError: it cannot be read, is no JSON (comments and trailing commas aside), or names none.
    """
    where = f"{_NNCF} {paths.show_path(path)}"
    try:
        text = files.read_bytes(path, 1 << 20).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KitError(
            f"The NNCF config cannot be read: {reason}.", where=where, hint=f"Correct {_NNCF}."
        ) from None
    config = parse_jsonc(text, paths.show_path(path)).value
    found = config.get("compression") if isinstance(config, dict) else None
    found = [found] if isinstance(found, dict) else found
    if (
        isinstance(found, list)
        and found
        and all(isinstance(one, dict) and "algorithm" in one for one in found)
    ):
        return {**config, "compression": found}
    raise KitError("The NNCF config names no compression.", where=where, hint="Name the algorithms to apply.")


def is_quantized(nncf_config: Mapping[str, Any]) -> bool:
    """Return whether an NNCF config has the model quantized."""
    return any(one["algorithm"] == _QUANTIZATION for one in nncf_config["compression"])


# --- which program ---------------------------------------------------------------------------------------


def is_upstreams(source: Source) -> bool:
    """Return whether the programs of ``source`` are upstream's own scripts."""
    return source.name == Fork.name


def runs_the_kits(rewriter: Rewriter) -> bool:
    """Return whether an invocation runs one of the kit's own programs, by whatever path."""
    target = rewriter.target.after
    program = Path(os.path.normpath(Path(rewriter.cwd.after[0], target[-1])))
    return len(target) == 1 and program.parent == Registry().programs and program.name in PROGRAMS


def move_to_source(rewriter: Rewriter, source: Source, where: str) -> None:
    """Let a configuration that was written for the releases run on ``source``.

    :param where: the place of the program in the launch file, for the error.
    :raises KitError: the program is not the kit's.
    """
    if not is_upstreams(source):
        return
    rule = f"SOURCE={source.name}: upstream's own script"
    if not runs_the_kits(rewriter):
        raise KitError(
            f"SOURCE={source.name} runs upstream's scripts in place of the kit's program, and this"
            " configuration runs neither.",
            where=where,
            hint="Run it with SOURCE=registry, or set its program to one of launch/qa/.",
        )
    set_program(rewriter, source, rule)
    rewriter.set_python(str(paths.VENV_PYTHON), PYTHON)
    select_source(rewriter, source)
    if rewriter.has("--gen_sparse_cfg"):
        write_elsewhere(rewriter, source)
        # Upstream's script tokenizes questions before it writes configs.
        rule = f"SOURCE={source.name}: upstream's script wants questions first"
        for option, name in (("--train_file", "train.json"), ("--validation_file", "validation.json")):
            if not rewriter.has(option):
                rewriter.set(option, str(paths.SAMPLE / name), rule)
        rewriter.flag("--do_eval", rule)


def set_program(rewriter: Rewriter, source: Source, rule: str) -> None:
    """Let an invocation run the program of the same name that ``source`` has."""
    rewriter.target.change((str(source.programs / Path(rewriter.target.after[-1]).name),), rule)


def write_elsewhere(rewriter: Rewriter, source: Source) -> None:
    """Run upstream's generator of configs below ``build/``: it writes below its working folder."""
    rule = "writes below its working folder: not into the sources"
    set_program(rewriter, source, rule)
    folder = paths.BUILD / "configs" / source.name
    folder.mkdir(parents=True, exist_ok=True)  # so that the printed command can be pasted, too
    rewriter.cwd.change((str(folder),), rule)


# --- what it reads ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """What the user chose; None and empty leave what the launch file says.

    :param weights: ``random``, or empty.
    :param checkpoint: of trees: the folder with their trained weights.
    :param heads: of trees with a checkpoint: ``importance`` or ``first``, or empty.
    :param threads: None for as many as torch would take.
    :param listing: for ``hub``: what to download; ``ready`` makes the kit's environment for it.
    :param downloaded: for ``hub``, once the files are here: see :class:`launch.build.hub.Local`.
    """

    kind: str = "sample"
    model: Optional[Path] = None
    train_file: Optional[Path] = None
    validation_file: Optional[Path] = None
    seed: Optional[int] = None
    weights: str = ""
    checkpoint: Optional[Path] = None
    heads: str = ""
    threads: Optional[int] = None
    listing: Optional[hub_list.Listing] = None
    ready: Optional[Callable[[], None]] = None
    downloaded: Optional[Mapping[str, Any]] = None

    def rule(self, variable: str) -> str:
        """Return the rule by which a run reads a file: its variable, or the hub's repository and revision."""
        if self.downloaded is None:
            return variable
        return f"INPUT={self.kind}: {self.downloaded['repository']} at {self.downloaded['revision'][:12]}"


def find_user_configs() -> Path:
    """Return the folder of the configs that are cut from a person's model."""
    return paths.BUILD / "configs" / "user"


def check_kind(kind: str) -> None:
    """:raises KitError: the text of ``INPUT=`` is none of :data:`KINDS`."""
    if kind not in KINDS:
        raise make_unknown_error("input", kind, "INPUT", KINDS)


def choose_inputs(
    kind: str,
    model: str,
    train_file: str,
    validation_file: str,
    seed: str,
    weights: str = "",
    listing: str = "",
    ready: Optional[Callable[[], None]] = None,
    heads: str = "",
) -> Selection:
    """Return the selection for the texts of make's variables; empty: not given; ``listing``: ``HUB=``.

    A checkpoint brings its model with it, unless ``MODEL`` or the hub has it: ``INPUT=files`` is implied.

    :raises KitError: a value is not allowed, or goes with another INPUT.
    """
    check_kind(kind)
    checkpoint = None
    if weights not in ("", model_folder.RANDOM):
        checkpoint = files.expand_path(weights, "WEIGHTS")
        weights, kind = "", "files" if kind == "sample" else kind
        if kind == "files":
            model = model or str(_check_checkpoint(checkpoint))
    if heads and (checkpoint is None or heads not in HEADS):
        raise KitError(
            f"HEADS is {' or '.join(HEADS)}, and says how a checkpoint is cut.",
            where=f"HEADS={heads}",
            hint="Correct HEADS, and add WEIGHTS=<folder with a checkpoint>, or leave HEADS out.",
        )
    given = {"MODEL": model, "TRAIN_FILE": train_file, "VALIDATION_FILE": validation_file}
    for name, value in (("HUB", listing), *given.items()):
        belongs = "hub" if name == "HUB" else "files"
        if value and kind != belongs:
            raise KitError(
                f"{name} has no meaning with INPUT={kind}.",
                where=f"{name}={value}",
                hint=f"Add INPUT={belongs}, or leave {name} out.",
            )
    if kind == "files" and not model:
        raise KitError(
            "INPUT=files needs a model.",
            where="MODEL is empty",
            hint="Give MODEL=<folder with config.json and tokenizer>, with TRAIN_FILE=<questions> for trees\n"
            "and VALIDATION_FILE=<questions> for an evaluation.",
        )
    if seed and not (re.fullmatch("[0-9]{1,10}", seed) and int(seed) < 2**32):
        what = "The seed is not a whole number from 0 to 4294967295."
        raise KitError(what, where=f"SEED={seed}", hint="Correct SEED.")
    places = {name: files.expand_path(value, name) if value else None for name, value in given.items()}
    for name, place in places.items():
        reason = files.explain_special(place) if place else ""  # the reader says what else is wrong
        if reason:
            raise KitError(
                f"The file cannot be read: {reason}.",
                where=f"{name}={place}",
                hint=f"Make it readable or correct {name}.",
            )
    hub_file = files.expand_path(listing, "HUB") if listing else hub_list.LIST
    return Selection(
        kind,
        places["MODEL"],
        places["TRAIN_FILE"],
        places["VALIDATION_FILE"],
        seed=int(seed) if seed else None,
        weights=weights,
        checkpoint=checkpoint,
        heads=heads,
        listing=hub_list.read_hub_list(hub_file) if kind == "hub" else None,
        ready=ready if kind == "hub" else None,
    )


def choose_questions(
    kind: str, model: str, validation_file: str, listing: str, ready: Callable[[], None]
) -> Tuple[Path, Optional[Path]]:
    """Return the questions to evaluate trees on, and the tokenizer's folder, None if none is named.

    :raises KitError: a value is not allowed, goes with another INPUT, or no questions are named.
    """
    assumed = str(paths.SAMPLE / "model") if kind == "files" and not model else model
    chosen = choose_inputs(kind, assumed, "", validation_file, "", "", listing, ready)
    questions, folder = chosen.validation_file, chosen.model if model else None
    if kind == "sample":
        questions, folder = paths.SAMPLE / "validation.json", paths.SAMPLE / "model"
    elif chosen.listing is not None:
        from . import hub  # imported where something is read from there

        found = hub.fetch_local(chosen.listing, "validation", False, ready)
        questions, folder = found.questions, found.model
    if questions is None:
        raise KitError(
            "Trees are evaluated on questions, and none are named.",
            where="VALIDATION_FILE is empty",
            hint="Give VALIDATION_FILE=<questions in SQuAD's JSON, nested or flat>, or INPUT=hub.",
        )
    return questions, folder


def _check_checkpoint(folder: Path) -> Path:
    """Return the folder of a checkpoint that has its model's config; a KitError for another."""
    if (folder / "config.json").is_file():
        return folder
    if folder.is_dir():
        what, hint = "has no config.json", "Name the folder of its model: MODEL=<folder>."
    else:
        what, hint = "is no folder" if folder.exists() else "does not exist", "Correct WEIGHTS."
    raise KitError(
        f"The checkpoint's folder {what}.",
        where=f"WEIGHTS={folder}",
        hint=f"{hint} WEIGHTS={model_folder.RANDOM} draws weights.",
    )


def _config_for(model: Path, name: str, variant: Variant, committed: Path, cut: bool) -> Path:
    """Return the hybrid config cut from ``model``, ``name`` in errors: the committed one if the same.

    :param cut: whether the model may be a hybrid's, which is one of the same dense model as ``variant``.
    """
    where, dense = str(bert_config.find_config(model)), bert_config.read_config(model, name)
    dense = bert_config.make_dense(dense) if cut else dense
    hybrid = bert_config.make_hybrid(dense, variant, where)
    bert_config.read_shape(hybrid, where)
    text = bert_config.format_config(hybrid)
    made = paths.BUILD / "configs" / files.digest_value(hybrid)[:12] / variant.base / "config.json"
    for path in (committed, made):
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            return path
    files.write_text(made, text)
    return made


def apply_selection(
    rewriter: Rewriter,
    selection: Selection,
    variant: Optional[Variant],
    *,
    sample_is_default: bool,
    upstreams_script: bool,
    cut: bool = False,
) -> Selection:
    """Let an invocation read what the user chose; return the selection, with files for what ``hub`` names.

    :param variant: None where the configuration makes no tree.
    :param cut: whether the hybrid's config is to be cut from the sample, too, as the launch file names none.
    :param sample_is_default: whether the launch file names the sample itself; then its arguments stand.
    :raises KitError: a file that is needed is missing, or the model is unfit for the variant.
    """
    # The kit's own program computes configs from a folder's dense one, and reads no questions for it.
    computes_configs = rewriter.has("--gen_sparse_cfg") and not upstreams_script
    if selection.seed is not None and not computes_configs:
        rewriter.set("--seed", str(selection.seed), "SEED")
    rule = f"INPUT={selection.kind}"
    evaluates = variant is None and rewriter.has("--do_eval") and not rewriter.has("--gen_sparse_cfg")
    if variant is not None and (selection.checkpoint or selection.weights):
        _choose_weights(rewriter, selection)
    elif evaluates and selection.weights:
        rewriter.set("--weights", selection.weights, "WEIGHTS")
    elif evaluates and selection.kind != "sample":
        rewriter.drop("--weights", f"{rule}: the model's own weights")
    elif evaluates and not sample_is_default:
        rewriter.set("--weights", model_folder.RANDOM, f"{rule}: it comes without weights")
    elif selection.weights:
        raise KitError(
            "WEIGHTS has no meaning here: no weights are read.",
            where=f"WEIGHTS={selection.weights}",
            hint="Leave WEIGHTS out.",
        )
    if variant is None and selection.checkpoint:
        raise KitError(
            "A folder of weights is for trees; an evaluation reads the model folder's, or random ones.",
            where=f"WEIGHTS={selection.checkpoint}",
            hint="Name the folder with INPUT=files MODEL=<folder>.",
        )
    if upstreams_script or not sample_is_default:
        for name in _OFFLINE:
            rewriter.set_variable(name, "1", f"{rule}: no hub is asked")
    if upstreams_script:
        cache = str(paths.BUILD / "cache" / "huggingface")
        rewriter.set_variable("HF_HOME", cache, "caches: below the build folder")
    if selection.kind == "hub":
        selection = _downloaded(rewriter, selection, variant)
    if selection.kind != "sample":
        _read_files(rewriter, selection, variant, upstreams_script)
    elif not sample_is_default:
        rewriter.set("--model_name_or_path", str(paths.SAMPLE / "model"), rule)
        if not computes_configs:
            _read_sample_questions(rewriter, rule)
    if variant is not None and variant.hybrid and (cut or selection.kind != "sample"):
        _cut_hybrid(rewriter, selection, variant)
    return selection


def _choose_weights(rewriter: Rewriter, selection: Selection) -> None:
    """Let a tree's weights be trained ones or, in place of those that the launch file names, drawn."""
    if selection.checkpoint is None:
        rewriter.drop("--weights", "WEIGHTS")
        rewriter.drop("--heads", "WEIGHTS")
        return
    rewriter.set("--weights", str(selection.checkpoint), "WEIGHTS")
    if selection.heads:
        rewriter.set("--heads", selection.heads, "HEADS")


def _cut_hybrid(rewriter: Rewriter, selection: Selection, variant: Variant) -> None:
    """Let a hybrid's config follow from the dense model that an invocation names."""
    option, config, dense = "--config_name", rewriter.value("--config_name"), "--model_name_or_path"
    folder = Path(rewriter.cwd.after[0])
    if config is None:
        return
    own = selection.kind != "sample"
    model = folder / (rewriter.value(dense) or "")
    name, trained = "MODEL" if own else dense, selection.checkpoint is not None
    wanted = _config_for(model, name, variant, folder / config, trained)
    if wanted != folder / config:
        rule = selection.rule("MODEL") if own else "V: cut from the dense model"
        rewriter.set(option, str(wanted), rule)


def _downloaded(rewriter: Rewriter, selection: Selection, variant: Optional[Variant]) -> Selection:
    """Return the selection with the hub's names as files here; only an evaluation reads weights."""
    from . import hub  # imported where something is read from there

    assert selection.listing is not None
    assert selection.ready is not None
    questions, weights = "" if variant is None else "train", False
    if variant is None and not rewriter.has("--gen_sparse_cfg"):
        questions, weights = "validation", selection.weights != model_folder.RANDOM
    found = hub.fetch_local(selection.listing, questions, weights, selection.ready)
    read = {f"{questions}_file": found.questions} if questions else {}
    return replace(selection, model=found.model, downloaded=found.downloaded, **read)  # type: ignore[arg-type]


def _read_files(
    rewriter: Rewriter, selection: Selection, variant: Optional[Variant], upstreams_script: bool
) -> None:
    assert selection.model is not None
    train = selection.train_file, selection.rule("TRAIN_FILE")
    if selection.checkpoint and variant is not None and train[0] is None:
        train = paths.SAMPLE / "train.json", "WEIGHTS: calibrated on the sample's questions"
    validation = selection.validation_file, selection.rule("VALIDATION_FILE")
    writes_configs = rewriter.has("--gen_sparse_cfg")
    _check_model_folder(selection.model)
    if writes_configs:
        rewriter.set("--output_dir", str(find_user_configs()), f"INPUT={selection.kind} keeps the kit's own")
    rewriter.set("--model_name_or_path", str(selection.model), selection.rule("MODEL"))
    if writes_configs and upstreams_script:
        # It reads questions on its way and does nothing with them.
        _read_sample_questions(rewriter, "upstream's script wants questions: the sample's")
    elif rewriter.has("--do_eval") and not writes_configs:
        needed, given = ("VALIDATION_FILE", validation) if variant is None else ("TRAIN_FILE", train)
        if given[0] is None:
            raise KitError(
                f"INPUT=files needs {needed} here.",
                where=f"{needed} is empty",
                hint=f"Give {needed}=<questions in SQuAD's JSON, nested or flat>.",
            )
        if upstreams_script and validation[0] is None:
            validation = train[0], "upstream's script wants some, and does nothing with them"
        _read_questions(rewriter, train_file=train, validation_file=validation)


def _read_sample_questions(rewriter: Rewriter, rule: str) -> None:
    train, validation = paths.SAMPLE / "train.json", paths.SAMPLE / "validation.json"
    _read_questions(rewriter, train_file=(train, rule), validation_file=(validation, rule))


def _read_questions(rewriter: Rewriter, **chosen: Tuple[Optional[Path], str]) -> None:
    """Set the files of questions, each by its rule; an option without a file is dropped."""
    rewriter.drop("--dataset_name", "questions come from files")
    for option, (path, rule) in chosen.items():
        if path is None:
            rewriter.drop(f"--{option}", "INPUT=files")
        else:
            rewriter.set(f"--{option}", str(path), rule)


def flatten_questions(path: Path, name: str) -> Path:
    """Return a file with the questions of ``path``, nested or flat, in the flat form, made once.

    :param name: the variable that names the file (``TRAIN_FILE``), for errors.
    :raises KitError: it cannot be read, or holds no questions in SQuAD's form.
    """
    try:
        files.check_regular(path)
        made = paths.BUILD / "inputs" / files.digest_file(path)[:16] / "questions.json"
    except OSError:
        squad.read_questions(path, name)
        raise
    if not made.is_file():
        rows = [example.flat() for example in squad.read_questions(path, name)]
        files.write_text(made, json.dumps({"data": rows}) + "\n")
    return made


def _check_model_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise KitError(
            "The model folder does not exist." if not folder.exists() else "MODEL is not a folder.",
            where=f"MODEL={folder}",
            hint="Give a folder with config.json and a tokenizer (vocab.txt or tokenizer.json).",
        )
    bert_config.read_shape(bert_config.read_config(folder, "MODEL"), str(folder / "config.json"))
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise KitError(
            "The model folder has no tokenizer.",
            where=f"MODEL={folder}",
            hint="Put the model's vocab.txt or tokenizer.json there.",
        )
