"""Measuring in a process of its own, with a limit on memory."""

import contextlib
import inspect
import json
import multiprocessing
import resource
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

from ..core import child, machine, paths
from ..core.errors import KitError
from ..model.variants import Spec
from .checks import Check

MAX_BYTES = 8 * 10**9
"""Bytes of data that such a process may hold; the largest tree takes a quarter."""

Facts = Dict[str, Any]


def measure_apart(
    python: Path,
    folder: Path,
    spec: Spec,
    env: Dict[str, str],
    tick: Callable[[Any], None],
    inherit: Sequence[int] = (),
) -> Tuple[List[Check], Facts, child.Usage]:
    """Run :mod:`launch.verify.ir` on the tree in ``folder``; return its checks, its facts and the usage.

    :raises KitError: the process failed.
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        scratch = Path(name)
        result = scratch / "result.json"
        words = [str(folder), spec.variant, json.dumps(spec.model()), str(result)]
        if spec.trained is not None:
            words.append(str(scratch / "weights.json"))
            Path(words[-1]).write_text(json.dumps(spec.trained), encoding="utf-8")
        usage = child.run_child(
            [str(python), "-m", f"{__package__}.ir", *words],
            env={**machine.inherit_variables(env), "PYTHONPATH": str(paths.REPOSITORY)},
            cwd=scratch,
            log=scratch / "log",
            what="verification",
            tick=tick,
            inherit=inherit,
        )
        content = json.loads(result.read_text(encoding="utf-8"))
    return [Check(**check) for check in content["checks"]], content["facts"], usage


@contextlib.contextmanager
def run_beside(body: Callable[..., Any], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """Run ``body`` in a fork; yield a function that waits for its result, or for a generator's next value.

    That function raises the body's :class:`KitError`, or one if the fork ends without a result.  The fork
    ends with the context and may hold :data:`MAX_BYTES`.  Nothing that runs threads may be loaded before.
    """
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_reply, args=(send, body, *arguments))
    process.start()
    send.close()

    def result() -> Any:
        try:
            value, problem = receive.recv()
        except EOFError:
            process.join()
            raise KitError(
                f"Reading it ended with status {process.exitcode}: it is damaged, or takes more than"
                f" {MAX_BYTES / 1e9:.0f} GB of memory.",
                hint="Name a whole file; if this one was copied or was being written, make it again.",
            ) from None
        if problem is not None:
            raise KitError(**problem)
        return value

    try:
        yield result
    finally:
        process.kill()
        process.join()


def _reply(send: Connection, body: Callable[..., Any], *arguments: Any) -> None:
    child.die_with_parent()
    limit_memory()
    with contextlib.suppress(MemoryError):  # nothing is sent, which says it
        try:
            found = body(*arguments)
            for value in found if inspect.isgenerator(found) else [found]:
                send.send((value, None))
        except KitError as problem:
            send.send((None, problem.as_dict()))


def limit_memory() -> None:
    """Limit this process to :data:`MAX_BYTES` of data and no core file."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = MAX_BYTES if hard == resource.RLIM_INFINITY else min(MAX_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
