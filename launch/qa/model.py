"""Building the model that a config describes."""

from typing import Any

from ..errors import KitError


def build(config: Any, source: str) -> Any:
    """Return a ``BertForQuestionAnswering`` of ``config``, its weights drawn from torch's random stream.

    :param config: transformers' config.
    :param source: what names the config, for the error.
    :raises KitError: transformers builds no model from this config.
    """
    from transformers import BertForQuestionAnswering

    try:
        return BertForQuestionAnswering(config)
    except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # What is checked beforehand are the dimensions; transformers looks at the other values only now.
        raise KitError(
            f"No model can be built from the model config: {type(error).__name__}: {error}",
            where=source,
            hint="Correct the value in the config.",
        ) from None
