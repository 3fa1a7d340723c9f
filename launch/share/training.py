"""What a training's ``training.json`` says of a tree's weights, as the report draws it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ..artifact import trees
from ..core import files
from ..core.errors import KitError
from ..model import model_folder

Points = List[Tuple[float, float]]
"""Step and value."""

WIDTH, HEIGHT = 300.0, 90.0
"""Of a drawing, in units of its own."""


@dataclass(frozen=True)
class Training:
    """The curves of a training by title, and exact match and F1 by what they are of."""

    curves: Mapping[str, Points]
    scores: Mapping[str, Tuple[float, float]]


def find_training(weights: Mapping[str, Any], folders: Sequence[Path]) -> Optional[Training]:
    """Return the training of a tree's weights; None if none of the checkpoints in ``folders`` is theirs.

    :param weights: those of the tree's provenance.
    :param folders: checkpoints, or folders with checkpoints.
    """
    if weights.get("kind") == model_folder.RANDOM:
        return None
    for folder in folders:
        for path in sorted([folder / model_folder.TRAINING, *folder.glob(f"*/{model_folder.TRAINING}")]):
            try:
                if model_folder.digest_checkpoint(path.parent) == weights.get("sha256"):
                    return read_training(path)
            except (KitError, OSError, ValueError, KeyError, TypeError, RecursionError):
                continue  # no checkpoint, or no report of one
    return None


def read_training(path: Path) -> Training:
    """:raises ValueError, KeyError, TypeError: it has not the form in which the program writes it."""
    content: Dict[str, Any] = trees.parse_json(files.read_bytes(path, trees.MAX_BYTES))

    def points(rows: Any, name: str) -> Points:
        return [(float(row["step"]), float(row[name])) for row in rows]

    last = [{"step": content["steps"]["all"], **content["scores"]["result"]}]
    curves = {
        "Loss": points(content["curve"], "loss"),
        "Block sparsity of what is left, in percent": [
            (step, 100 * share) for step, share in points(content["curve"], "sparsity")
        ],
        "F1, in percent": points([*content["evaluations"], *last], "f1"),
    }
    scores = {
        label: (float(content["scores"][name]["exact_match"]), float(content["scores"][name]["f1"]))
        for name, label in model_folder.TRAINING_SCORES.items()
        if name in content["scores"]
    }
    return Training({title: found for title, found in curves.items() if found}, scores)


def draw_curve(title: str, points: Points) -> Dict[str, Any]:
    """Return a curve for the page: its line in units of the drawing, its ends, and a text alternative."""
    steps, values = [step for step, _ in points], [value for _, value in points]
    low, high, last = min([0.0, *values]), max(values), max(1.0, *steps)
    span = (high - low) or 1.0
    line = " ".join(
        f"{WIDTH * step / last:.1f},{HEIGHT * (1 - (value - low) / span):.1f}" for step, value in points
    )
    return {
        "title": title,
        "line": line if len(points) > 1 else f"0,{line.split(',')[1]} {line}",
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "last": f"{last:,.0f}",
        "label": f"{title}, over {last:,.0f} steps: from {values[0]:.3g} to {values[-1]:.3g},"
        f" at least {min(values):.3g}, at most {high:.3g}.",
    }
