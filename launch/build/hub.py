"""What ``INPUT=hub`` reads, as local files: links below ``build/hub/`` to checked downloads."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ..core import files, paths
from ..core.child import die_with_parent
from ..core.errors import EXIT_INTERRUPTED, KitError
from ..core.files import Stamp
from ..core.progress import measure_terminal, wait_for_output
from ..model.hub_list import File, Listing
from ..setup.environment import KIT, Venv

ENVIRONMENT = Venv(
    paths.ENVIRONMENTS / "hub",
    "the model hub's client",
    ("hub.lock",),
    6e6,
    2e6,
    "import huggingface_hub, requests",
    base=KIT,
)

_VARIABLES = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Both need packages that the environment does not have.
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_ENABLE_HF_TRANSFER": "0",
}
"""Variables of the client that the kit sets; all others stay the person's."""


@dataclass(frozen=True)
class Local:
    """What a run reads, as local files; the folder ``model`` has weights if they were wanted.

    :param downloaded: ``repository``, ``revision``, and ``files`` with the sha256 of each by its name.
    """

    model: Path
    questions: Optional[Path]
    downloaded: Mapping[str, Any]


def fetch_local(listing: Listing, questions: str, weights: bool, ready: Callable[[], None]) -> Local:
    """Return what a run reads, downloaded where missing; ``ready`` makes the kit's environment for that.

    :param questions: ``train`` or ``validation``; empty: none.
    :raises KitError: a file cannot be had, or is not the listed one; nothing of it is kept then.
    """
    model = (*listing.model, *(listing.weights if weights else ()))
    chosen = [getattr(listing, questions)] if questions else []
    wanted = [*model, *chosen]
    base = paths.BUILD / "hub" / files.digest_value(asdict(listing))[:12]
    stamp = base / "stamp.json"
    found = _checked(stamp)
    if any(file.name not in found for file in wanted):
        with files.hold_lock():
            found = _checked(stamp)
            missing = [file for file in wanted if file.name not in found]
            if missing:
                ready()
                ENVIRONMENT.ensure()
                found.update(_download(listing, missing))
                os.sync()  # what the client wrote, before a stamp says that it is right
                Stamp(None, found).write(stamp)
    # Weights in a folder of their own: whoever makes a tree is not to come upon them.
    folder = base / ("checkpoint" if weights else "model")
    places = [*((folder, file) for file in model), *((base / "questions", file) for file in chosen)]
    for place, file in places:
        link, target = place / file.name, found[file.name]["path"]
        if not (link.is_symlink() and os.readlink(str(link)) == target):
            place.mkdir(parents=True, exist_ok=True)
            with files.replace_file(link) as new:
                new.symlink_to(target)
    downloaded = {
        "repository": listing.repository,
        "revision": listing.revision,
        "files": {file.name: found[file.name]["sha256"] for file in wanted},
    }
    return Local(folder, base / "questions" / chosen[0].name if chosen else None, downloaded)


def _checked(stamp: Path) -> Dict[str, Any]:
    """Return the files of a stamp that have not changed since their bytes were checked, by name."""
    content = Stamp.read(stamp)
    made = content.made if content else {}
    return {name: entry for name, entry in made.items() if entry["state"] == _state(entry["path"])}


def _state(path: str) -> Optional[List[int]]:
    """Return size and time of a file; None where there is none."""
    if not Path(path).is_file():
        return None
    status = Path(path).stat()
    return [status.st_size, status.st_mtime_ns]


def _download(listing: Listing, missing: Sequence[File]) -> Dict[str, Any]:
    """Run the client on the files; return each one's path, sha256 and state by its name."""
    wanted = [asdict(file) for file in missing]
    request = {"repository": listing.repository, "revision": listing.revision, "files": wanted}
    # -E and -s: nothing of the person's Python takes the place of what is locked.
    process = subprocess.Popen(
        [str(ENVIRONMENT.python), "-E", "-s", "-m", f"{__package__}.hub_client", json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        # Of a terminal that does not know its size the library thinks that nothing fits.
        env={**os.environ, **_VARIABLES, "TQDM_NCOLS": str(measure_terminal()), "TQDM_NROWS": "20"},
        cwd=str(paths.REPOSITORY),
        preexec_fn=die_with_parent,
    )
    # On a terminal the client draws bars of its own.
    output = wait_for_output(process, quiet=sys.stderr.isatty())
    if process.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    try:
        answer = json.loads(output)
    except ValueError:
        raise KitError(
            f"The model hub's client failed with exit status {process.returncode}.",
            where="launch/build/hub_client.py",
            hint="What it said stands above.  Run the same command again: it resumes.",
        ) from None
    if "error" in answer:
        raise KitError(**answer["error"])
    return {name: {**entry, "state": _state(entry["path"])} for name, entry in answer["files"].items()}
