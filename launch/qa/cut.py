"""Which heads and feed-forward neurons of a trained BERT count least, and cutting them out.

torch alone: models are transformers' ``BertForQuestionAnswering``, of any version from 4.9 to 5.
"""

from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

import torch

from ..model.variants import ATTENTION, BLOCK_PREFIX, FEED_FORWARD

Indices = Tuple[Tuple[int, ...], ...]
"""For each layer the numbers of what is kept, in ascending order."""


class Scores(NamedTuple):
    """How much the loss depends on each part: float64 of (layers, heads) and (layers, intermediate size)."""

    heads: torch.Tensor
    rows: torch.Tensor


class Structure(NamedTuple):
    """What is kept: heads and feed-forward neurons (rows of the first feed-forward matrix)."""

    heads: Indices
    rows: Indices


_NEVER = -1e4
"""A logit whose probability is 0; finite, as 0 times infinity is no number."""


def mask_padding(logits: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """Return logits in 32 bits, in which padding has no probability."""
    return logits.float().masked_fill(attention_mask == 0, _NEVER)


def score_structure(model: Any, batches: Iterable[Mapping[str, torch.Tensor]]) -> Scores:
    """Return each part's importance for the answers to questions, the mean over all questions of ``batches``.

    With a gate of 1 on a part's output x and a question's loss L, the gate's gradient is g = Σ x·∂L/∂x over
    tokens and dimensions.  A head's importance is |g| (Michel et al. 2019, "Are Sixteen Heads Really Better
    than One?"); a neuron's is g², where g is also Σ w·∂L/∂w over its weights in the second feed-forward
    matrix (Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning").  Dropout is off;
    weights and their gradients stay as they are.

    :param batches: the model's inputs with ``start_positions`` and ``end_positions``, all inside the window.
    """
    layers = model.bert.encoder.layer
    device, training = next(model.parameters()).device, model.training
    inputs: List[torch.Tensor] = []  # of each layer: the heads' outputs, the neurons' outputs
    hooks = [
        dense.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        for layer in layers
        for dense in (layer.attention.output.dense, layer.output.dense)
    ]
    head_size = layers[0].attention.self.attention_head_size
    heads, rows, questions = torch.zeros(()), torch.zeros(()), 0
    model.eval()
    try:
        for batch in batches:
            inputs.clear()
            given = {name: tensor.to(device) for name, tensor in batch.items()}
            labels = [given.pop(f"{which}_positions") for which in ("start", "end")]
            output = model(**given)
            loss = torch.zeros((), device=device)
            for logits, label in zip((output.start_logits, output.end_logits), labels):
                masked = mask_padding(logits, given["attention_mask"])
                # The sum over the batch: a question's gradients are as large as they are without the others.
                loss = loss + torch.nn.functional.cross_entropy(masked, label, reduction="sum") / 2
            gradients = torch.autograd.grad(loss, inputs)
            count = len(gradients[0])
            gates = [
                (one.detach().double() * gradient.double()).sum(1) for one, gradient in zip(inputs, gradients)
            ]
            of_heads = torch.stack(gates[0::2]).reshape(len(layers), count, -1, head_size).sum(-1)
            heads = heads + of_heads.abs().sum(1).cpu()
            rows = rows + torch.stack(gates[1::2]).pow(2).sum(1).cpu()
            questions += count
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return Scores(heads / questions, rows / questions)


def choose_structure(scores: Scores, heads: int, rows: int) -> Structure:
    """Return the most important ``heads`` and ``rows`` of each layer; of equal ones, the first."""

    def best(values: List[float], count: int) -> Tuple[int, ...]:
        return tuple(sorted(sorted(range(len(values)), key=lambda index: -values[index])[:count]))

    return Structure(
        tuple(best(layer, heads) for layer in scores.heads.tolist()),
        tuple(best(layer, rows) for layer in scores.rows.tolist()),
    )


def first_structure(layers: int, heads: int, rows: int) -> Structure:
    """Return the first ``heads`` and ``rows`` of each layer, as upstream's configs keep them."""
    return Structure((tuple(range(heads)),) * layers, (tuple(range(rows)),) * layers)


def cut_state(
    state: Mapping[str, torch.Tensor], structure: Structure, head_size: int
) -> Dict[str, torch.Tensor]:
    """Return the tensors, named as ``BertForQuestionAnswering`` names them, with ``structure`` alone kept."""
    cut = dict(state)
    for layer, kept in enumerate(zip(*structure)):
        for name, tensor in _cut_layer(state, f"{BLOCK_PREFIX}{layer}.", kept, head_size).items():
            cut[name] = tensor
    return cut


def cut_model(model: Any, structure: Structure) -> None:
    """Cut a model and its config in place; its parameters are new ones, of the old ones' values."""
    config = model.config
    head_size = model.bert.encoder.layer[0].attention.self.attention_head_size
    state = cut_state(model.state_dict(), structure, head_size)
    gone = {}
    for number, (layer, heads) in enumerate(zip(model.bert.encoder.layer, structure.heads)):
        for name in (*ATTENTION, *FEED_FORWARD):
            dense = layer.get_submodule(name)
            for kind in ("weight", "bias"):
                tensor = state[f"{BLOCK_PREFIX}{number}.{name}.{kind}"]
                setattr(dense, kind, torch.nn.Parameter(tensor, getattr(dense, kind).requires_grad))
            dense.out_features, dense.in_features = dense.weight.shape
        attention = layer.attention.self
        attention.num_attention_heads, attention.all_head_size = len(heads), len(heads) * head_size
        gone[number] = [head for head in range(config.num_attention_heads) if head not in heads]
    config.pruned_heads = {number: heads for number, heads in gone.items() if heads}
    config.intermediate_size = len(structure.rows[0])


def _cut_layer(
    state: Mapping[str, torch.Tensor], prefix: str, kept: Sequence[Sequence[int]], head_size: int
) -> Dict[str, torch.Tensor]:
    heads, rows = kept
    dimensions = [head * head_size + place for head in heads for place in range(head_size)]
    *inward, outward = ATTENTION
    cut = {}
    for names, indices, sides in (
        (inward, dimensions, {"weight": 0, "bias": 0}),
        ([outward], dimensions, {"weight": 1}),
        ([FEED_FORWARD[0]], rows, {"weight": 0, "bias": 0}),
        ([FEED_FORWARD[1]], rows, {"weight": 1}),
    ):
        for name in names:
            for kind, side in sides.items():
                tensor = state[f"{prefix}{name}.{kind}"]
                index = torch.tensor(indices, device=tensor.device)
                cut[f"{prefix}{name}.{kind}"] = tensor.index_select(side, index)
    return cut
