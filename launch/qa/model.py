"""The model that a config describes, and an evaluation's weights.

As a program, with the arguments of upstream's script, it writes where that script's weights are from.
"""

import sys
from pathlib import Path
from typing import Any, Callable, List, Tuple

from ..core import child, files
from ..core.errors import KitError
from ..model import bert_config, model_folder
from ..model.variants import BertShape
from .arguments import Arguments, parse_arguments
from .checkpoint import name_some

_HEAD = "qa_outputs."


def load_config(args: Arguments) -> Tuple[Any, BertShape]:
    """Return transformers' config of the model that ``args`` name, and its dimensions.

    :raises KitError: it cannot be loaded, is not a BERT's, or contradicts itself.
    """
    from transformers import BertConfig

    source = Path(args.config_source)
    checked = bert_config.read_config(source)
    shape = bert_config.read_shape(checked, str(bert_config.find_config(source)))
    return BertConfig.from_dict(checked), shape


def build_model(config: Any, source: str) -> Any:
    """Return a ``BertForQuestionAnswering`` with weights drawn by torch.

    :raises KitError: transformers builds none from ``config``; the error calls it ``source``.
    """
    from transformers import BertForQuestionAnswering

    try:
        return BertForQuestionAnswering(config)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise KitError(
            f"No model can be built from the model config: {type(error).__name__}: {error}",
            where=source,
            hint="Correct the value in the config.",
        ) from None


def load_model(
    args: Arguments, config: Any, say: Callable[[str], None] = child.report_step
) -> Tuple[Any, str]:
    """Return the model to evaluate, and in a few words where its weights are from (``random, seed 42``).

    :raises KitError: there are no weights, or none that can be loaded.
    """
    from transformers import set_seed

    set_seed(args.seed)
    if args.weights == model_folder.RANDOM:
        say(f"drawing random weights from seed {args.seed}")
        return build_model(config, args.config_source), f"random, seed {args.seed}"
    say("loading the checkpoint")
    model, lacking, unused = _read(args, config)
    weights = "checkpoint"
    if lacking:
        say(f"not in the checkpoint, and drawn from seed {args.seed}: {name_some(lacking)}")
        weights += f", {_HEAD[:-1]} random, seed {args.seed}"
    if unused:
        say(f"not used of the checkpoint: {name_some(unused)}")
        weights += f", {len(unused)} of its tensors not used"
    return model, weights


def _read(args: Arguments, config: Any) -> Tuple[Any, List[str], List[str]]:
    """Return the loaded model, the names of weights that it lacks (only the head's) and of unused ones."""
    from transformers import BertForQuestionAnswering

    folder = Path(args.model_name_or_path)
    where = str(model_folder.find_checkpoint(folder))
    try:
        model, loading = BertForQuestionAnswering.from_pretrained(
            args.model_name_or_path, config=config, output_loading_info=True
        )
    except Exception as error:
        # Unpickling raises anything; transformers covers it with an OSError that does not say what happened.
        cause = error.__context__ if isinstance(error, OSError) and error.__context__ else error
        raise KitError(
            f"The checkpoint cannot be loaded: {' '.join(str(cause).split())[:300] or type(cause).__name__}",
            where=where,
            hint=(
                "Give the whole checkpoint that belongs to the config, as save_pretrained writes it, "
                "or have weights drawn: --weights random."
            ),
        ) from None
    lacking, unused = sorted(loading["missing_keys"]), sorted(loading["unexpected_keys"])
    foreign = [name for name in lacking if not name.startswith(_HEAD)]
    if foreign:
        raise KitError(
            f"The checkpoint lacks {len(foreign)} of the model's weights, such as {foreign[0]}.",
            where=where,
            hint="Give a checkpoint of a BERT that transformers' save_pretrained wrote for this config.",
        )
    return model, lacking, unused


def _main(argv: List[str]) -> None:
    # The script would end in a traceback, or evaluate what a checkpoint lacks as if it were there.
    args = parse_arguments("run_qa.py", argv)
    weights = load_model(args, load_config(args)[0])[1]
    files.write_text(Path(args.output_dir) / model_folder.ORIGIN, weights + "\n")


if __name__ == "__main__":
    sys.exit(child.run_body(_main, sys.argv[1:]))
