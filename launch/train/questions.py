"""Questions as batches, and a model's answers to them."""

import hashlib
from typing import Any, Dict, Iterator, List, Sequence

import numpy as np
import torch

from ..core import child
from ..core.errors import KitError
from ..model import metric, squad
from ..qa.arguments import Arguments
from ..qa.evaluate import find_best_spans
from ..qa.features import MODEL_INPUTS, encode_examples, label_window

Batch = Dict[str, torch.Tensor]

_TOGETHER = 500  # questions that are tokenized at a time: lists take a hundred times the memory of arrays


class Windows:
    """The windows of some questions, as arrays: inputs, and either answers (to train) or places (to answer).

    :param labelled: whether each window gets its answer's first and last token.
    :raises KitError: a question leaves too little of a window to its context, or the tokenizer leaves out an
        end of a long one.
    """

    def __init__(
        self, examples: Sequence[squad.Example], tokenizer: Any, args: Arguments, *, labelled: bool
    ) -> None:
        self.examples = examples
        self.owners: List[str] = []
        answers = {example.id: example.answers[0] for example in examples if example.answers}
        parts: Dict[str, List[Any]] = {}
        for first in range(0, len(examples), _TOGETHER):
            if first:
                child.report_step(f"tokenizing: {first:,} of {len(examples):,} questions")
            columns = encode_examples(examples[first : first + _TOGETHER], tokenizer, args)
            offsets, owners = columns["offset_mapping"], columns["example_id"]
            self.owners += owners
            made = {name: columns[name] for name in MODEL_INPUTS}
            if labelled:
                labels = [
                    label_window(ids, places, answers[owner], tokenizer.cls_token_id)
                    for ids, places, owner in zip(columns["input_ids"], offsets, owners)
                ]
                made["start_positions"], made["end_positions"] = map(list, zip(*labels))
            else:
                made["places"] = [[pair or (-1, -1) for pair in places] for places in offsets]
            for name, values in made.items():
                parts.setdefault(name, []).append(np.array(values, dtype=np.int32))
        self.columns = {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def __len__(self) -> int:
        return len(self.owners)

    def batch(self, rows: Any, device: Any) -> Batch:
        """Return the model's inputs of some rows, without most of what is padding in all of them.

        Widths are multiples of 8, or the window's: products in 16 bits are fastest so (tensor cores), and a
        GPU's memory is in pieces of fewer sizes.
        """
        last = int(self.columns["attention_mask"][rows].any(0).nonzero()[0][-1])
        used = (last // 8 + 1) * 8
        chosen = {
            name: values[rows][:, :used] if name in MODEL_INPUTS else values[rows]
            for name, values in self.columns.items()
            if name != "places"
        }
        return {name: torch.from_numpy(values).long().to(device) for name, values in chosen.items()}

    def lengths(self) -> Any:
        """Return each window's number of tokens."""
        return self.columns["attention_mask"].sum(1)

    def digest(self) -> str:
        """Return the sha256 of all columns."""
        made = hashlib.sha256()
        for name, values in sorted(self.columns.items()):
            made.update(f"{name} {values.dtype} {values.shape}".encode())
            made.update(np.ascontiguousarray(values))
        return made.hexdigest()

    def places(self) -> Iterator[Dict[str, Any]]:
        """Yield each window's question and character positions, as :func:`.find_best_spans` takes them."""
        for owner, row in zip(self.owners, self.columns["places"]):
            offsets = [pair if pair[0] >= 0 else [] for pair in row.tolist()]
            yield {"example_id": owner, "offset_mapping": offsets}


def permute(count: int, seed: int) -> Any:
    """Return the numbers below ``count`` in an order that the seed gives."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed % 2**63)).numpy()


class Order:
    """The endless order of batches, by the seed: each epoch has all windows but for an incomplete batch.

    Windows of like lengths come together, so that little is padding: those of 50 batches are sorted, and the
    batches mixed again (as transformers' ``group_by_length`` does).  The very first batch has the longest
    window: memory that is too small shows at once.

    :param lengths: of the windows, in tokens.
    """

    def __init__(self, lengths: Any, size: int, seed: int) -> None:
        self.lengths, self.size, self.seed = lengths, size, seed
        self.steps = len(lengths) // size
        self._epoch, self._batches = -1, np.empty((0, size), dtype=np.int64)

    def rows(self, step: int) -> Any:
        """Return the windows of a step, counted from 0."""
        epoch, place = divmod(step, self.steps)
        if epoch != self._epoch:
            seed = self.seed + epoch * 1_000_003
            drawn = permute(len(self.lengths), seed)
            if epoch == 0:  # an incomplete batch must not leave the longest out
                longest = int((drawn == self.lengths.argmax()).argmax())
                drawn[[0, longest]] = drawn[[longest, 0]]
            drawn = drawn[: self.steps * self.size]
            groups = np.split(drawn, range(50 * self.size, len(drawn), 50 * self.size))
            batches = np.concatenate([one[np.argsort(-self.lengths[one], kind="stable")] for one in groups])
            self._batches = batches.reshape(-1, self.size)[permute(self.steps, seed + 1)]
            if epoch == 0:
                first = int((self._batches == drawn[0]).any(1).argmax())
                self._batches[[0, first]] = self._batches[[first, 0]]
            self._epoch = epoch
        return self._batches[place]


def compute_logits(accelerator: Any, model: Any, windows: Windows, size: int, say: Any) -> Any:
    """Return a model's logits, float32 (2, windows, tokens), in each process; they share the work.

    :param model: as it is before accelerate wraps it, on the accelerator's device; its dropout is off.
    :param size: windows of a process that are computed together.
    :raises KitError: not all are finite.
    """
    total, tokens = windows.columns["input_ids"].shape
    logits = np.full((2, total, tokens), -np.inf, dtype=np.float32)
    ranks, rank = accelerator.num_processes, accelerator.process_index
    # The longest first: each batch is as long as its longest, and memory that is too small shows at once.
    order = np.argsort(-windows.lengths(), kind="stable")
    training = model.training
    model.eval()
    with torch.no_grad():
        for first in range(0, total, size * ranks):
            rows = order[np.arange(first, first + size * ranks) % total]
            say(lambda done=first: f"{done:,} of {total:,} windows")
            mine = windows.batch(rows[rank::ranks], accelerator.device)
            with accelerator.autocast():
                output = model(**{name: mine[name] for name in MODEL_INPUTS})
            made = torch.full((len(rows[rank::ranks]), 2, tokens), float("-inf"), device=accelerator.device)
            width = output.start_logits.shape[1]
            made[:, 0, :width], made[:, 1, :width] = output.start_logits.float(), output.end_logits.float()
            gathered = accelerator.gather(made).cpu().numpy()
            for other in range(ranks):
                logits[:, rows[other::ranks]] = gathered[
                    other * len(made) : (other + 1) * len(made)
                ].swapaxes(0, 1)
    model.train(training)
    if not np.isfinite(logits[:, windows.columns["attention_mask"] == 1]).all():
        raise KitError(
            "The model's scores are not all finite numbers: its training has diverged.",
            where="learning_rate",
            hint="Take a smaller learning rate or more warm-up, or bf16 in place of fp16.",
        )
    return logits


def score_logits(windows: Windows, logits: Any, args: Arguments) -> Dict[str, float]:
    """Return ``exact_match`` and ``f1``, in percent, of :func:`compute_logits`'s answers."""
    answers = find_best_spans(
        windows.examples, windows.places(), logits[0], logits[1], args.n_best_size, args.max_answer_length
    )
    return metric.score_answers({example.id: example.gold for example in windows.examples}, answers)
