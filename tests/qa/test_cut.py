"""Importance of heads and neurons, and cutting a model to the most important ones."""

import importlib

import pytest

from launch.qa import cut

torch = pytest.importorskip("torch")

LAYERS, HIDDEN, HEADS, ROWS, TOKENS = 2, 32, 4, 24, 16
SIZE = HIDDEN // HEADS
KEPT = cut.Structure(((1, 3), (0, 2)), ((0, 5, 7, 11, 23), (1, 2, 3, 4, 20)))


@pytest.fixture(scope="module")
def transformers(derived_source):
    return importlib.import_module("transformers")


@pytest.fixture
def model(transformers):
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=ROWS,
        max_position_embeddings=TOKENS,
        initializer_range=0.5,
    )
    torch.manual_seed(1)
    return transformers.BertForQuestionAnswering(config).eval()


def questions(count, seed=0):
    made = torch.Generator().manual_seed(seed)

    def draw(most, *shape):
        return torch.randint(most, shape, generator=made)

    return {
        "input_ids": draw(50, count, TOKENS),
        "attention_mask": torch.ones(count, TOKENS, dtype=torch.long),
        "token_type_ids": draw(2, count, TOKENS),
        "start_positions": draw(TOKENS, count),
        "end_positions": draw(TOKENS, count),
    }


def outward(model):
    """The matrices that read the heads' outputs, and those that read the neurons'."""
    layers = model.bert.encoder.layer
    return [layer.attention.output.dense for layer in layers], [layer.output.dense for layer in layers]


def mask(model, kept):
    """Let nothing else but what is kept reach the next matrix."""
    for matrices, indices, size in zip(outward(model), kept, (SIZE, 1)):
        for dense, parts in zip(matrices, indices):
            columns = [part * size + place for part in parts for place in range(size)]
            whole = torch.zeros_like(dense.weight)
            whole[:, columns] = dense.weight.detach()[:, columns]
            dense.weight.data = whole


def logits(model):
    with torch.no_grad():
        output = model(**questions(3))
    return torch.cat([output.start_logits, output.end_logits])


def sum_in_order(given, weight, bias=None):
    """A product whose sums run from the first to the last column: a product with zero changes no bit."""
    total = torch.zeros(*given.shape[:-1], len(weight))
    for column in range(weight.shape[1]):
        total = total + given[..., column, None] * weight[:, column]
    return total + bias


def test_the_cut_model_is_the_masked_one_to_the_bit(model, monkeypatch):
    mask(model, KEPT)
    fast = logits(model)
    monkeypatch.setattr(torch.nn.functional, "linear", sum_in_order)
    masked = logits(model)
    cut.cut_model(model, KEPT)
    assert torch.equal(logits(model), masked)
    monkeypatch.undo()
    # The libraries' products add in blocks, which begin elsewhere when columns have gone.
    torch.testing.assert_close(logits(model), fast, rtol=1e-4, atol=1e-5)


def test_a_cut_model_has_the_shapes_of_its_config(model, transformers):
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut.cut_model(model, KEPT)
    assert model.config.pruned_heads == {0: [0, 2], 1: [1, 3]}
    assert model.config.intermediate_size == 5
    again = transformers.BertForQuestionAnswering(transformers.BertConfig.from_dict(model.config.to_dict()))
    state = cut.cut_state(dense, KEPT, SIZE)
    again.load_state_dict(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(logits(again.eval()), logits(model))
    assert model.bert.encoder.layer[0].attention.self.query.out_features == 2 * SIZE
    model.train()(**questions(2))[0].backward()  # and it can be trained


def test_heads_score_the_gradient_of_their_gates(model):
    """As Michel et al. define it: a gate of 1 on each head's output, one question at a time."""
    batch, count = questions(5), 5
    gates = [torch.ones(HEADS, requires_grad=True) for _ in range(LAYERS)]
    hooks = [
        dense.register_forward_pre_hook(lambda _, given, gate=gate: given[0] * gate.repeat_interleave(SIZE))
        for dense, gate in zip(outward(model)[0], gates)
    ]
    wanted = torch.zeros(LAYERS, HEADS)
    for row in range(count):
        loss = model(**{name: tensor[row : row + 1] for name, tensor in batch.items()})[0]
        wanted += torch.stack(torch.autograd.grad(loss, gates)).abs() / count
    for hook in hooks:
        hook.remove()
    found = cut.score_structure(model, [batch]).heads
    torch.testing.assert_close(found.float(), wanted, rtol=1e-3, atol=1e-6)


def test_neurons_score_the_square_of_their_weights_times_gradients(model):
    batch, count = questions(5), 5
    wanted = torch.zeros(LAYERS, ROWS)
    for row in range(count):
        model.zero_grad()
        model(**{name: tensor[row : row + 1] for name, tensor in batch.items()})[0].backward()
        sums = [(dense.weight * dense.weight.grad).sum(0) for dense in outward(model)[1]]
        wanted += torch.stack(sums).detach() ** 2 / count
    found = cut.score_structure(model, [batch]).rows
    torch.testing.assert_close(found.float(), wanted, rtol=1e-3, atol=1e-7)


def test_scores_do_not_depend_on_batches_and_leave_the_model_as_it_was(model):
    model.train()
    batch = questions(6)
    parts = [{name: tensor[rows] for name, tensor in batch.items()} for rows in ([0, 1, 2, 3], [4, 5])]
    whole, split = cut.score_structure(model, [batch]), cut.score_structure(model, parts)
    for one, other in zip(whole, split):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-9)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_padding_does_not_count(model):
    """A ragged batch scores what its windows score alone, each without padding."""
    model.double()
    batch, lengths = questions(5), [16, 9, 5, 12, 7]
    alone = []
    for row, length in enumerate(lengths):
        batch["attention_mask"][row, length:] = 0
        for name in ("start_positions", "end_positions"):
            batch[name][row] %= length
        alone.append({name: one[row : row + 1] for name, one in batch.items()})
        alone[-1].update({name: one[:, :length] for name, one in alone[-1].items() if one.dim() == 2})
    for one, other in zip(cut.score_structure(model, [batch]), cut.score_structure(model, alone)):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)


def test_the_most_important_are_kept_and_the_first_of_equals():
    scores = cut.Scores(torch.tensor([[1.0, 5, 3, 4], [2, 2, 2, 2]]), torch.tensor([[0.0, 2, 1], [3, 1, 2]]))
    assert cut.choose_structure(scores, 2, 2) == (((1, 3), (0, 1)), ((1, 2), (0, 2)))
    assert cut.first_structure(2, 3, 1) == (((0, 1, 2),) * 2, ((0,),) * 2)
