"""A variant's weights from a trained checkpoint: read, cut to the variant's structure, its zeros kept."""

import copy
import json
from dataclasses import replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

from ..core import child, files
from ..core.errors import KitError
from ..model import model_folder, sparsity
from ..model.variants import BertShape, is_block_matrix
from .arguments import FIRST, IMPORTANCE, Arguments
from .checkpoint import fit_checkpoint, list_parameters, read_checkpoint
from .features import MODEL_INPUTS, label_window, load_examples, tokenize_examples
from .model import build_model

SCORED = 64
"""Questions that tell what counts: spread over the file, those with an answer within one window."""

SPARSITY = "sparsity_init"
"""Beside the tensors that upstream's script reads: the share that NNCF is to prune."""


class Trained(NamedTuple):
    """A checkpoint as a variant has it; ``sparsity`` is the share of block weights that NNCF is to prune."""

    state: Dict[str, Any]
    sparsity: float


def prepare_weights(
    args: Arguments, config: Any, shape: BertShape, tokenizer: Any, sparsity_init: float, precision: str
) -> Optional[Trained]:
    """Return the weights of ``args.checkpoint``, None where there is none; write what they are for `make`.

    :param sparsity_init: the NNCF config's, which says what is zero of a variant that is no hybrid.
    :raises KitError: the checkpoint cannot be read, does not fit, or has too many zeros.
    """
    if args.checkpoint is None:
        return None
    where = str(args.checkpoint)
    child.report_step("reading the checkpoint")
    state = read_checkpoint(args.checkpoint)
    dense = replace(
        shape,
        heads=(shape.hidden // shape.head_size,) * shape.layers,
        intermediate_size=shape.dense_intermediate_size,
    )
    sizes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    there = min(
        (shape, dense), key=lambda one: sum(sizes.get(n) != s for n, s in list_parameters(one).items())
    )
    fit_checkpoint(state, there, where)
    structure = ""
    if there != shape:
        structure = args.heads or IMPORTANCE
        state = _cut(args, config, (dense, shape), state, tokenizer)
    target = shape.unstructured_sparsity if args.gen_hybrid_sparse_model else sparsity_init
    zeros = {name: tensor.numpy() == 0 for name, tensor in state.items() if is_block_matrix(name)}
    to_prune = choose_sparsity([(int(one.sum()), one.size) for one in zeros.values()], shape, target, where)
    found = {
        "structure": structure or "the checkpoint's",
        "zeros": "kept" if to_prune is None else "pruned",
        "matrices": {
            name: {"zeros": int(one.sum()), "places": sparsity.digest_places(one)}
            for name, one in zeros.items()
        },
    }
    onnx = args.name_onnx(precision)
    assert onnx is not None
    files.write_text(onnx.with_name(model_folder.TRAINED), json.dumps(found, indent=2) + "\n")
    return Trained(state, to_prune or 0.0)


def choose_sparsity(
    zeros: List[Tuple[int, int]], shape: BertShape, target: float, where: str
) -> Optional[float]:
    """Return what NNCF is to prune; None where the checkpoint's zeros make the target and stay alone.

    NNCF's threshold is the weight at ``int((n - 1) * sparsity)`` of all n in ascending order of
    |w| / ‖W‖₂, and what is not above it becomes zero: at 0 the zeros alone.  In a matrix of zeros that is no
    number, which comes last in that order.

    :param zeros: number of zeros and of weights, for each block matrix.
    :param target: share of block weights that is to be zero.
    :raises KitError: more weights are zero than the target says.
    """
    count, there = sum(size for _, size in zeros), sum(number for number, _ in zeros)
    empty = sum(size for number, size in zeros if number == size)
    wanted = int((count - 1) * target) + 1
    allowed = shape.sparsity_tolerance * shape.dense_block_weights
    if there > wanted + allowed:
        have, want = (
            (shape.dense_block_weights - count + n) / shape.dense_block_weights for n in (there, wanted)
        )
        raise KitError(
            f"The checkpoint is sparser than the variant: of the dense model's block weights {have:.2%} are"
            f" zero or removed, not {want:.2%}.",
            where=where,
            hint="Make the variant of that sparsity (V=<S>pc_…), or give the checkpoint as it was before.",
        )
    if there > empty and abs(there - wanted) <= allowed:
        return None
    if not empty:
        return target
    return max(0.0, (wanted - empty - 0.5) / (count - 1))


def _cut(
    args: Arguments, config: Any, shapes: Tuple[BertShape, BertShape], state: Dict[str, Any], tokenizer: Any
) -> Dict[str, Any]:
    """Return what the second shape, a variant's, keeps of the state of the first, dense one."""
    from . import cut

    dense, kept = shapes
    heads, rows = kept.heads[0], kept.intermediate_size
    if len(set(kept.heads)) > 1:
        raise KitError(
            "A checkpoint is cut to one number of heads, and this config's layers keep different ones.",
            where=f"pruned_heads of {args.config_source}",
            hint="Keep as many heads in each layer, or give a checkpoint that is cut already.",
        )
    if args.heads == FIRST:
        structure = cut.first_structure(kept.layers, heads, rows)
    else:
        structure = cut.choose_structure(_score(args, config, dense, state, tokenizer), heads, rows)
    return cut.cut_state(state, structure, kept.head_size)


def _score(args: Arguments, config: Any, dense: BertShape, state: Dict[str, Any], tokenizer: Any) -> Any:
    """Return the importance of heads and feed-forward rows for the answers to training questions."""
    import torch

    from .cut import score_structure

    batches = list(find_batches(args, tokenizer))
    whole = copy.deepcopy(config)
    whole.pruned_heads, whole.intermediate_size = {}, dense.intermediate_size
    with torch.random.fork_rng():  # what is drawn afterwards depends on nothing that was done here
        model = build_model(whole, args.config_source)
    model.load_state_dict(state, strict=False)  # but for a buffer all is there: fit_checkpoint has seen it

    def told() -> Iterator[Dict[str, Any]]:
        for number, batch in enumerate(batches, start=1):
            child.report_step(f"importance of heads and neurons: question {number} of {len(batches)}")
            yield batch

    return score_structure(model, told())


def find_batches(args: Arguments, tokenizer: Any) -> Iterator[Dict[str, Any]]:
    """Yield the first window with the whole answer of each scored question, with its place, as tensors.

    :raises KitError: there is no answer in any window.
    """
    import torch

    examples = [
        example for example in load_examples(args, "train")[: args.max_train_samples] if example.answers
    ]
    chosen = examples[:: max(1, len(examples) // SCORED)][:SCORED]
    answers = {example.id: example.answers[0] for example in chosen}
    done = set()
    for feature in tokenize_examples(chosen, tokenizer, args, None) if chosen else ():
        identity, offsets = feature["example_id"], feature["offset_mapping"]
        place = label_window(feature["input_ids"], offsets, answers[identity], tokenizer.cls_token_id)
        if identity not in done and offsets[place[0]]:  # else the window has not the whole answer
            done.add(identity)
            inputs = {name: torch.tensor([feature[name]]) for name in MODEL_INPUTS}
            ends = zip(("start_positions", "end_positions"), place)
            yield {**inputs, **{name: torch.tensor([token]) for name, token in ends}}
    if not done:
        raise KitError(
            "No question has an answer in its text, so that nothing tells which heads count.",
            where=f"--train_file={args.train_file}",
            hint="Give questions with their answers' places, or keep the first heads and rows: HEADS=first,"
            " which is --heads first in a launch file.",
        )
