"""Where NNCF and transformers come from: the user's choice, ``SOURCE=auto|fork|registry``."""

from . import third_party
from .errors import KitError
from .source import Source
from .source_fork import Fork
from .source_registry import Registry

AUTO = "auto"
_SOURCES = {source.name: source for source in (Fork, Registry)}
KINDS = (AUTO, *_SOURCES)


def choose(text: str) -> Source:
    """Return the source that ``SOURCE=text`` means.

    ``auto`` decides from what is on disk, never by asking the network: the submodules if they are checked out
    at their pins, else the package index's releases.

    :raises KitError: there is no such source; ``fork`` without submodules; or, for ``auto`` too, submodules
        that are there and not as pinned.
    """
    if text not in KINDS:
        raise KitError(
            f"There is no source {text!r}.", where=f"SOURCE={text}", hint=f"Set SOURCE to {', '.join(KINDS)}."
        )
    if text == AUTO:
        return Fork() if third_party.available() else Registry()
    if text == Fork.name:
        third_party.require()
    return _SOURCES[text]()
