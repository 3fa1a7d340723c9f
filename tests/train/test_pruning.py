"""Schedule and choice of pruned weights, windows with answers, and the order of data."""

import importlib

import numpy as np
import pytest

from launch.core import paths
from launch.model import squad
from launch.model.variants import find_variant, make_bert_large
from launch.qa.arguments import Arguments
from launch.train import hyperparameters, pruning

torch = pytest.importorskip("torch")


def test_the_schedule_is_cubic_and_ends_at_the_very_number():
    schedule = pruning.Schedule(initial=100, final=1000, begin=10, end=50, every=7)
    assert [step for step in range(60) if schedule.is_due(step)] == [10, 17, 24, 31, 38, 45, 50]
    assert [schedule.count(step) for step in (9, 10, 30, 50, 59)] == [0, 100, 888, 1000, 1000]
    assert schedule.count(20) == 1000 - int(900 * 0.75**3)
    at_once = pruning.Schedule(initial=2000, final=1000, begin=4, end=4, every=7)
    assert [at_once.count(step) for step in (3, 4)] == [0, 1000]
    assert at_once.is_due(4)


def test_the_compressions_threshold_would_prune_as_many():
    """NNCF sorts the weights and takes the one at int((n - 1) · s); up to it, all are pruned."""
    shape = make_bert_large(find_variant("90pc_sparse-06_head-1536_ffnn"))
    zeros = pruning.count_zeros(shape)
    assert zeros == int((shape.kept_weights - 1) * shape.unstructured_sparsity) + 1
    values = torch.cat([torch.zeros(zeros), torch.ones(10)])
    assert values.sort().values[zeros - 1] == 0


def test_the_smallest_normed_weights_go():
    weights = {"a": torch.tensor([[3.0, -1.0], [0.5, 2.0]]), "b": torch.tensor([[30.0, -10.0, 5.0, 21.0]])}
    normed = torch.cat([(one.abs() / one.norm()).flatten() for one in weights.values()])
    for count in range(9):
        chosen = pruning.choose_pruned(weights, count, "global")
        flat = torch.cat([one.flatten() for one in chosen.values()])
        assert int(flat.sum()) == count
        assert set(normed[flat].tolist()) <= set(normed.sort().values[:count].tolist())
    chosen = pruning.choose_pruned(weights, 4, "layer")
    assert [int(one.sum()) for one in chosen.values()] == [2, 2]
    assert chosen["a"].tolist() == [[False, True], [True, False]]


def test_of_equal_weights_the_first_go_and_what_is_pruned_stays_pruned():
    weights = {"a": torch.ones(2, 3), "b": torch.zeros(2, 2)}
    chosen = pruning.choose_pruned(weights, 6, "global")
    assert [one.int().tolist() for one in chosen.values()] == [[[1, 1, 0], [0, 0, 0]], [[1, 1], [1, 1]]]
    pruning.apply_pruned(weights, chosen)
    again = pruning.choose_pruned(weights, 7, "global")
    assert all(bool((again[name] | ~gone).all()) for name, gone in chosen.items())


@pytest.fixture(scope="module")
def tokenized(derived_source):
    """The sample's training questions, cut into short windows."""
    transformers = importlib.import_module("transformers")
    from launch.train.questions import Windows

    model = str(paths.SAMPLE / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, use_fast=True)
    examples = squad.read_questions(paths.SAMPLE / "train.json", "TRAIN_FILE")
    args = Arguments(model, "unused", max_seq_length=64, doc_stride=16)
    return tokenizer, examples, [Windows(examples, tokenizer, args, labelled=yes) for yes in (True, False)]


def test_labels_are_the_answers(tokenized):
    _, examples, (labelled, placed) = tokenized
    answers = {example.id: example.answers[0][0] for example in examples}
    contexts = {example.id: example.context for example in examples}
    found = set()
    columns = labelled.columns
    for row, owner in enumerate(labelled.owners):
        first, last = columns["start_positions"][row], columns["end_positions"][row]
        if (first, last) == (0, 0):
            continue
        places = placed.columns["places"][row]
        text = contexts[owner][places[first][0] : places[last][1]]
        assert answers[owner] in text
        assert len(text) <= len(answers[owner]) + 12  # whole tokens
        found.add(owner)
    assert found == set(answers)  # each is whole in one window at least
    assert len(labelled) > len(answers)


def test_batches_are_as_long_as_their_longest_window(tokenized):
    labelled = tokenized[2][0]
    lengths = labelled.lengths()
    short, long = int(lengths.argmin()), int(lengths.argmax())
    assert lengths[short] + 8 < lengths[long] == 64
    assert labelled.batch(np.array([short]), "cpu")["input_ids"].shape == (1, -(-lengths[short] // 8) * 8)
    batch = labelled.batch(np.array([short, long]), "cpu")
    assert batch["input_ids"].shape == (2, 64)
    assert batch["input_ids"].dtype == torch.long


def test_other_windows_have_another_digest(tokenized):
    labelled, placed = tokenized[2]
    assert labelled.digest() == labelled.digest() != placed.digest()


def test_checkpointing_takes_what_the_models_function_takes():
    from launch.train import loop

    class Old:
        def gradient_checkpointing_enable(self):
            self.given = {}

    class New:
        def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None):
            self.given = gradient_checkpointing_kwargs

    for model, given in ((Old(), {}), (New(), {"use_reentrant": False})):
        loop._set_checkpointing(model, True)
        assert model.given == given


def test_each_epoch_has_all_windows_once_wherever_it_is_entered():
    from launch.train.questions import Order

    lengths = np.arange(30) % 7
    order = Order(lengths, 5, 3)
    batches = [list(order.rows(step)) for step in range(18)]
    epochs = [[row for batch in batches[first : first + 6] for row in batch] for first in (0, 6, 12)]
    assert [sorted(rows) for rows in epochs] == [list(range(30))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(Order(lengths, 5, 3).rows(13)) == batches[13]
    assert list(Order(lengths, 5, 4).rows(13)) != batches[13]


def test_windows_of_like_lengths_come_together_and_the_longest_first():
    from launch.train.questions import Order

    lengths = np.random.default_rng(0).integers(20, 257, size=4003)
    lengths[17] = 300
    order = Order(lengths, 16, 42)
    assert order.steps == 250
    batches = [lengths[order.rows(step)] for step in range(order.steps)]
    assert batches[0].max() == 300
    assert sum(batch.max() * 16 for batch in batches) < 1.1 * sum(batch.sum() for batch in batches)
    longest = [batch.max() for batch in batches]
    assert abs(np.corrcoef(longest, range(order.steps))[0, 1]) < 0.2  # no longer and longer batches


def test_each_hyperparameter_has_a_source_and_a_default_that_fits():
    for name, one in hyperparameters.HYPERPARAMETERS.items():
        assert one.source
        assert one.meaning
        hyperparameters.check_value(name, one.default, name)
