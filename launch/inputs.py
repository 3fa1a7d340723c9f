"""Which checkpoint, tokenizer and questions a run reads: INPUT, MODEL, TRAIN_FILE, VALIDATION_FILE and SEED.

The launch file says what a run reads by default.  What a make variable changes of that is rewritten by the
short list of rules in :func:`apply`, each change with its rule, and nothing else is.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from . import bert_config, digests, files, paths
from .errors import KitError
from .variants import Variant
from .vscode import Invocation

KINDS = ("sample", "files", "hub")

HUB_MODEL = "bert-large-uncased-whole-word-masking-finetuned-squad"
"""The model in upstream's launch file."""

HUB_DATASET = "squad"
"""The data set in upstream's launch file."""

_OFFLINE = ("TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@dataclass(frozen=True)
class Selection:
    """What the user chose.

    :param kind: one of :data:`KINDS`.
    :param model: folder with config and tokenizer, for ``files``.
    :param train_file: questions to calibrate on, for ``files``.
    :param validation_file: questions to evaluate on, for ``files``.
    :param seed: None leaves the launch file's.
    """

    kind: str = "sample"
    model: Optional[Path] = None
    train_file: Optional[Path] = None
    validation_file: Optional[Path] = None
    seed: Optional[int] = None


@dataclass(frozen=True)
class Change:
    """One argument or variable that differs from the launch file; an empty side means absent."""

    before: str
    after: str
    rule: str


def select(kind: str, model: str, train_file: str, validation_file: str, seed: str) -> Selection:
    """Return the selection that the make variables' texts (empty: not given) make.

    :raises KitError: a value is none of those allowed, or goes with another INPUT.
    """
    if kind not in KINDS:
        raise KitError(
            f"There is no input {kind!r}.",
            where=f"INPUT={kind}",
            hint="Set INPUT to " + ", ".join(KINDS) + ".",
        )
    given = {"MODEL": model, "TRAIN_FILE": train_file, "VALIDATION_FILE": validation_file}
    if kind != "files":
        for name, value in given.items():
            if value:
                raise KitError(
                    f"{name} has no meaning with INPUT={kind}.",
                    where=f"{name}={value}",
                    hint=f"Add INPUT=files, or leave {name} out.",
                )
    elif not model:
        raise KitError(
            "INPUT=files needs a model.",
            where="MODEL is empty",
            hint="Give MODEL=<folder with config.json and tokenizer>, with TRAIN_FILE=<questions> for trees\n"
            "and VALIDATION_FILE=<questions> for an evaluation.",
        )
    if seed and not (re.fullmatch("[0-9]{1,10}", seed) and int(seed) < 2**32):
        raise KitError(
            "The seed is not a whole number from 0 to 4294967295.", where=f"SEED={seed}", hint="Correct SEED."
        )
    places = {name: files.typed(value, name) if value else None for name, value in given.items()}
    return Selection(
        kind,
        model=places["MODEL"],
        train_file=places["TRAIN_FILE"],
        validation_file=places["VALIDATION_FILE"],
        seed=int(seed) if seed else None,
    )


def _value(args: Sequence[str], option: str) -> Optional[str]:
    for index, word in enumerate(args[:-1]):
        if word == option:
            return args[index + 1]
    return None


class _Rewriter:
    """An argument list under change, and the list of what was changed."""

    def __init__(self, invocation: Invocation) -> None:
        self.args = list(invocation.args)
        self.env = dict(invocation.env)
        self.changes: List[Change] = []

    def set(self, option: str, value: str, rule: str) -> None:
        """Give ``option`` another value, at its place or at the end."""
        before = _value(self.args, option)
        if before == value:
            return
        if before is None:
            self.args += [option, value]
        else:
            self.args[self.args.index(option) + 1] = value
        self.changes.append(Change("" if before is None else f"{option} {before}", f"{option} {value}", rule))

    def drop(self, option: str, rule: str) -> None:
        """Remove ``option`` and its value."""
        before = _value(self.args, option)
        if before is not None:
            place = self.args.index(option)
            del self.args[place : place + 2]
            self.changes.append(Change(f"{option} {before}", "", rule))

    def drop_variable(self, name: str, rule: str) -> None:
        """Remove an environment variable from what the configuration sets."""
        if name in self.env:
            self.changes.append(Change(f"{name}={self.env.pop(name)}", "", rule))

    def has(self, option: str) -> bool:
        return option in self.args


def _config_for(selection: Selection, variant: Variant, committed: Path) -> Path:
    """Return the hybrid config that belongs to the user's model, made where it is not there yet.

    The launch file's first configuration computes the hybrid configs from the dense one; with another dense
    model they are other configs.  A BERT-large gives the committed ones, byte for byte.
    """
    assert selection.model is not None
    where = str(bert_config.config_file(selection.model))
    dense = bert_config.read(selection.model, "MODEL")
    bert_config.shape(dense, where)
    hybrid = bert_config.hybrid(dense, variant, where)
    bert_config.shape(hybrid, where)
    text = bert_config.text(hybrid)
    if committed.is_file() and committed.read_text(encoding="utf-8") == text:
        return committed
    path = paths.BUILD / "configs" / digests.of_value(hybrid)[:12] / variant.name / "config.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        files.write(path, text)
    return path


def apply(
    invocation: Invocation, selection: Selection, variant: Optional[Variant]
) -> Tuple[Invocation, List[Change]]:
    """Return the invocation as it will run, and what was changed in it.

    :param variant: the variant that the configuration makes; None for a configuration that makes none.
    :raises KitError: a file is missing that this configuration needs, or the model is unfit for the variant.
    """
    rewriter = _Rewriter(invocation)
    writes_configs = rewriter.has("--gen_sparse_cfg")
    if selection.seed is not None and not writes_configs:
        rewriter.set("--seed", str(selection.seed), "SEED")
    if selection.kind == "hub" and not writes_configs:  # the sample's dense config is that of the hub's model
        rewriter.set("--model_name_or_path", HUB_MODEL, "INPUT=hub")
        if rewriter.has("--do_eval"):
            rewriter.set("--dataset_name", HUB_DATASET, "INPUT=hub")
        for option in ("--train_file", "--validation_file"):
            rewriter.drop(option, "INPUT=hub")
        for name in _OFFLINE:
            rewriter.drop_variable(name, "INPUT=hub")
    elif selection.kind == "files":
        assert selection.model is not None
        check_model_folder(selection.model)
        if writes_configs:
            rewriter.set(
                "--output_dir", str(paths.BUILD / "configs" / "user"), "INPUT=files keeps the kit's own"
            )
        rewriter.set("--model_name_or_path", str(selection.model), "MODEL")
        rewriter.drop("--dataset_name", "INPUT=files")
        needed = {"--train_file": variant is not None, "--validation_file": variant is None}
        chosen = {"--train_file": selection.train_file, "--validation_file": selection.validation_file}
        for option, path in chosen.items():
            name = option.strip("-").upper()
            if not rewriter.has("--do_eval"):
                continue
            if path is not None:
                rewriter.set(option, str(path), name)
            elif needed[option]:
                raise KitError(
                    f"INPUT=files needs {name} here.",
                    where=f"{name} is empty",
                    hint=f"Give {name}=<questions in SQuAD's JSON, nested or flat>.",
                )
            else:
                rewriter.drop(option, "INPUT=files")
        config = _value(rewriter.args, "--config_name")
        if variant is not None and variant.hybrid and config is not None:
            rewriter.set("--config_name", str(_config_for(selection, variant, Path(config))), "MODEL")
    return replace(invocation, args=tuple(rewriter.args), env=rewriter.env), rewriter.changes


def check_model_folder(folder: Path) -> None:
    """Check that ``folder`` has a BERT's config and a tokenizer.

    :raises KitError: it has not.
    """
    where = f"MODEL={folder}"
    if not folder.is_dir():
        raise KitError(
            "The model folder does not exist." if not folder.exists() else "MODEL is not a folder.",
            where=where,
            hint="Give a folder with config.json and a tokenizer (vocab.txt or tokenizer.json).",
        )
    config = bert_config.read(folder, "MODEL")
    bert_config.shape(config, str(folder / "config.json"))
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise KitError(
            "The model folder has no tokenizer.",
            where=where,
            hint="Put the model's vocab.txt or tokenizer.json there.",
        )
