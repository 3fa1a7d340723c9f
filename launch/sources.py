"""Where NNCF and transformers come from: the user's ``SOURCE=auto|fork|registry`` and ``FAST=0|1``."""

from . import third_party
from .errors import KitError
from .source import Source
from .source_fork import Fork
from .source_registry import Registry

AUTO = "auto"
KINDS = (AUTO, Fork.name, Registry.name)
_SOURCES = {source.name: source for source in (Fork, Registry)}


def choose(text: str, fast: bool = True) -> Source:
    """Return the source that ``SOURCE=text`` means.

    ``auto`` decides from what is on disk, never by asking the network: the submodules if they are checked out
    at their pins, else the package index's releases.

    :param fast: with the patches of the optional set ``fast``.
    :raises KitError: there is no such source; ``fork`` without submodules; or, for ``auto`` too, submodules
        that are there and not as pinned.
    """
    if text not in KINDS:
        raise KitError(
            f"There is no source {text!r}.", where=f"SOURCE={text}", hint=f"Set SOURCE to {', '.join(KINDS)}."
        )
    if text == AUTO:
        return Fork(fast) if third_party.available() else Registry(fast)
    if text == Fork.name:
        third_party.require()
    return _SOURCES[text](fast)
