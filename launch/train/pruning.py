"""Single weights are pruned by magnitude, more and more of them, to an exact number."""

from typing import Any, Dict

import torch

from ..model.variants import BertShape, is_block_matrix

Tensors = Dict[str, torch.Tensor]


def block_weights(model: Any) -> Tensors:
    """Return the weight matrices of the transformer blocks by parameter name."""
    return {name: one for name, one in model.named_parameters() if is_block_matrix(name)}


def count_zeros(shape: BertShape) -> int:
    """Return how many block weights are zero in the end: as many as the compression's threshold prunes.

    It sorts n weights and prunes up to the one at ``int((n - 1) * sparsity)``, counted from 0.
    """
    return int((shape.kept_weights - 1) * shape.unstructured_sparsity) + 1


class Schedule:
    """How many weights are pruned by when: none before ``begin``, ``final`` from ``end`` on.

    Between the two it is the cubic one of Zhu and Gupta 2017, "To prune, or not to prune", from ``initial``.
    """

    def __init__(self, initial: int, final: int, begin: int, end: int, every: int) -> None:
        self.initial, self.final = min(initial, final), final
        self.begin, self.end, self.every = begin, max(begin, end), every

    def is_due(self, step: int) -> bool:
        """Return whether weights are pruned before ``step``, counted from 0."""
        if not self.begin <= step <= self.end:
            return False
        return step == self.end or (step - self.begin) % self.every == 0

    def count(self, step: int) -> int:
        """Return how many weights are pruned before ``step``."""
        if step < self.begin:
            return 0
        left = (self.end - step) / (self.end - self.begin) if step < self.end else 0.0
        return self.final - int((self.final - self.initial) * left**3)


def choose_pruned(weights: Tensors, count: int, threshold: str) -> Tensors:
    """Return where each matrix is pruned: the ``count`` smallest of |w| / ‖W‖, of equal ones the first.

    :param threshold: ``global``: the smallest of all matrices, as the compression has it; ``layer``: as large
        a share of each.
    """
    scores = {name: _normed(weight.detach()).flatten() for name, weight in weights.items()}
    if threshold == "global":
        sizes = [score.numel() for score in scores.values()]
        chosen = dict(zip(scores, _smallest(torch.cat(list(scores.values())), count).split(sizes)))
    else:
        chosen, total, seen, taken = {}, sum(score.numel() for score in scores.values()), 0, 0
        for name, score in scores.items():
            seen += score.numel()
            chosen[name] = _smallest(score, count * seen // total - taken)
            taken = count * seen // total
    return {name: chosen[name].view_as(weight) for name, weight in weights.items()}


def _normed(weight: torch.Tensor) -> torch.Tensor:
    norm = torch.norm(weight)
    return weight.abs() / norm if norm > 0 else weight.abs()


def _smallest(values: torch.Tensor, count: int) -> torch.Tensor:
    if count == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    limit = values.kthvalue(count).values
    chosen = values < limit
    ties = (values == limit).nonzero().squeeze(1)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def apply_pruned(weights: Tensors, pruned: Tensors) -> None:
    """Set the pruned weights to zero, and their gradients where there are any."""
    with torch.no_grad():
        for name, gone in pruned.items():
            weights[name].masked_fill_(gone, 0.0)
            gradient = weights[name].grad
            if gradient is not None:
                gradient.masked_fill_(gone, 0.0)
