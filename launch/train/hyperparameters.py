"""The hyperparameters of training, and where each default is from; a file and the command line change them.

Sources, but for those that stand where they are used:

* Devlin: Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers", and its code.
* Dense: how the model card of bert-large-uncased-whole-word-masking-finetuned-squad says it was fine-tuned.
* Kurtic: Kurtic et al. 2022, "The Optimal BERT Surgeon"; the recipe that its authors publish for SQuAD, 90 %
  of BERT-base, 30 epochs (``30epochs_unstructured90_squad.yaml``).
* Zhu: Zhu and Gupta 2017, "To prune, or not to prune".
"""

import json
import math
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, NamedTuple

from ..core import files
from ..core.errors import KitError, make_unknown_error


class Hyperparameter(NamedTuple):
    """One hyperparameter; a value that ``fits`` is what ``words`` say, which follow "must be"."""

    default: float
    words: str
    fits: Callable[[float], bool]
    meaning: str
    source: str


def _count(default: int, meaning: str, source: str) -> Hyperparameter:
    def fits(value: float) -> bool:
        return isinstance(value, int) and value >= 1

    return Hyperparameter(default, "a whole number of at least 1", fits, meaning, source)


def _share(default: float, meaning: str, source: str) -> Hyperparameter:
    return Hyperparameter(default, "from 0 to 1", lambda value: 0 <= value <= 1, meaning, source)


def _amount(default: float, meaning: str, source: str) -> Hyperparameter:
    return Hyperparameter(default, "at least 0", lambda value: value >= 0, meaning, source)


def _rate(default: float, meaning: str, source: str) -> Hyperparameter:
    words = "above 0 and at most 1"
    return Hyperparameter(default, words, lambda value: 0 < value <= 1, meaning, source)


HYPERPARAMETERS: Dict[str, Hyperparameter] = {
    "batch_size": _count(16, "windows of a step, on all processes together", "Kurtic; Dense has 24"),
    "teacher_epochs": _amount(
        2.0, "fine-tuning of the dense model; unless set, 0 where it has a question-answering head", "Dense"
    ),
    "teacher_learning_rate": _rate(3e-5, "highest learning rate of fine-tuning", "Dense"),
    "epochs": _amount(30.0, "training of the variant, all phases", "Kurtic"),
    "dense_epochs": _amount(2.0, "of these, before single weights are pruned", "Kurtic"),
    "fixed_epochs": _amount(4.0, "of these, after, with the mask fixed", "Kurtic"),
    "learning_rate": _rate(
        5e-5,
        "highest learning rate of the variant's training",
        "Devlin, section 4.2, for BERT-large on SQuAD; Kurtic has 8e-5, for BERT-base",
    ),
    "final_learning_rate": _share(
        0.1, "share of the highest learning rate that the linear decay ends with", "Kurtic: 8e-5 to 8e-6"
    ),
    "warmup": _share(
        0.1, "share of the steps in which the learning rate rises from 0", "Devlin, run_squad.py"
    ),
    "weight_decay": _amount(0.01, "AdamW's, not for biases and layer norms", "Devlin, optimization.py"),
    "clip": Hyperparameter(
        1.0, "above 0", lambda value: value > 0, "largest norm of the gradient", "Devlin, optimization.py"
    ),
    "initial_sparsity": _share(0.0, "share pruned in the first pruning step; at most the target", "Zhu"),
    "prune_every": _count(100, "steps between two pruning steps", "Zhu: 100 to 1000"),
    "importance_windows": _count(
        1024, "windows on which heads and neurons are scored", "Kurtic: gradients of a pruning step"
    ),
    "hardness": _share(
        1.0, "weight of the teacher's logits in the loss; the answers have the rest", "Kurtic"
    ),
    "temperature": Hyperparameter(
        2.0, "above 0", lambda value: value > 0, "of the logits (Hinton et al. 2015)", "Kurtic"
    ),
    "hidden_weight": _amount(
        0.0,
        "weight of the mean squared difference from the teacher's hidden states, all layers'",
        "none; the loss is that of Jiao et al. 2020, TinyBERT",
    ),
}


def check_value(name: str, value: Any, where: str) -> float:
    """:raises KitError: ``value`` is none that the hyperparameter ``name`` can have."""
    one = HYPERPARAMETERS[name]
    number = type(value) in (int, float) and math.isfinite(value)
    if not number or not one.fits(value):
        raise KitError(
            f"{name} must be {one.words if number else 'a number'}: {one.meaning}.",
            where=f"{where} = {files.show_value(value)}",
            hint=f"Correct it; the default is {one.default:g} ({one.source}).",
        )
    return float(value) if isinstance(value, float) else int(value)


def read_hyperparameters(path: Path, name: str) -> Dict[str, float]:
    """Return what a file changes: one JSON object of names and values; errors call it ``name``.

    :raises KitError: it cannot be read, has another form, or names what is none, or a wrong value.
    """
    content = files.read_json(path, name, unique=True)
    if not isinstance(content, dict):
        raise KitError(
            "The hyperparameters are not one JSON object.",
            where=f"{name}={path}",
            hint=f"Write names and values: {json.dumps({'epochs': 10, 'learning_rate': 8e-5})}.",
        )
    for key, value in content.items():
        if key not in HYPERPARAMETERS:
            raise make_unknown_error("hyperparameter", key, f"{name}={path}: {key}", HYPERPARAMETERS)
        check_value(key, value, f"{name}={path}: {key}")
    return content


def complete_hyperparameters(changed: Mapping[str, float], where: str) -> Dict[str, float]:
    """Return all hyperparameters; a KitError where they contradict each other, which says ``where``."""
    made = {**{name: one.default for name, one in HYPERPARAMETERS.items()}, **changed}
    if made["dense_epochs"] + made["fixed_epochs"] > made["epochs"]:
        raise KitError(
            "The epochs before and after pruning are more than all together.",
            where=f"{where}: "
            + ", ".join(f"{n}={made[n]:g}" for n in ("epochs", "dense_epochs", "fixed_epochs")),
            hint="Train for more epochs, or take fewer for one of the phases.",
        )
    return made
