"""One process that has imported the libraries and forks a child for each job of a command.

Importing NNCF, transformers and what they import takes seconds, the same for each of the five variants.  The
process (:mod:`launch.warm_server`) does nothing but import.  A job is a child of it, one at a time, so that
there are never two models in memory, and to the job it looks as if it had been started by itself.

Linux only, where the kernel ends the process with the kit and the child with the process.  Whatever goes
wrong on this side of a job is no failure: the job is then run as a program of its own
(:class:`launch.child.Lost`).
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Mapping, NamedTuple, Optional, Sequence, Tuple

from . import child, paths, status
from .qa import extension

_SERVE = "import sys; sys.path[0] = {!r}; from launch.warm_server import serve; exec(serve({!r}, {!r}))"

_ENDING = 10.0
"""Seconds within which a child is gone whose parent was killed."""


class Warm:
    """The process for one interpreter and environment; another one takes its place where a job has others.

    The environment has to be the same in every variable: some are read when Python starts, some when a
    library is imported.
    """

    def __init__(self) -> None:
        self._server: Optional[_Server] = None
        self._given_up = False

    def start(self, imports: Sequence[str], command: child.Command) -> child.Running:
        """Start ``<python> <program> <arguments>`` as a child that has the libraries.

        :param imports: modules in the order in which the program imports them.
        :raises child.Lost: it has to be started otherwise.
        """
        if self._given_up or sys.platform != "linux" or not _is_compiled(command.env):
            raise child.Lost
        try:
            key = _Key(
                command.argv[0], dict(command.env), str(command.cwd), tuple(command.inherit), tuple(imports)
            )
            if self._server is None or self._server.key != key:
                self.close()
                self._server = _Server(key)
            return self._server.start(command)
        except OSError:
            self.give_up()
            raise child.Lost from None

    def give_up(self) -> None:
        """Start no more jobs this way."""
        self._given_up = True
        self.close()

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def __enter__(self) -> "Warm":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_compiled(env: Mapping[str, str]) -> bool:
    """Return whether importing NNCF will not compile; a program of its own says that it does, and why not."""
    folder = env.get(extension.FOLDER)
    return folder is not None and extension.built(Path(folder)).is_file()


class _Key(NamedTuple):
    """What two jobs of one process have in common; see :class:`launch.child.Command`."""

    python: str
    env: Mapping[str, str]
    cwd: str
    inherit: Tuple[int, ...]
    imports: Tuple[str, ...]


class _Server:
    """The process, and the socket on which it takes jobs and says how they ended."""

    def __init__(self, key: _Key) -> None:
        self.key = key
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            code = _SERVE.format(str(paths.REPOSITORY), theirs.fileno(), list(key.imports))
            try:
                self.process = subprocess.Popen(
                    [key.python, "-c", code],
                    env={**key.env, status.STATUS_FD: ""},
                    cwd=key.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *key.inherit),
                    preexec_fn=child.die_with_parent,
                )
            except OSError:
                self.socket.close()
                raise

    def start(self, command: child.Command) -> child.Running:
        job = json.dumps(list(command.argv[1:])).encode()
        descriptors = array("i", [command.output, command.send]).tobytes()
        self.socket.sendmsg([job], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        return _Forked(self, command.receive)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.close()


class _Forked(child.Running):
    """A child of the process."""

    def __init__(self, server: _Server, receive: int) -> None:
        self.server = server
        self.receive = receive

    def wait(self) -> Tuple[int, int, float]:
        try:
            code, peak, cpu = json.loads(self.server.socket.recv(4096))
        except (OSError, ValueError):
            raise child.Lost from None
        return int(code), int(peak), float(cpu)

    def kill(self) -> None:
        self.server.kill()
        # The child goes with the process; it has gone when nobody holds the other end of the pipe.
        with contextlib.suppress(OSError):
            os.set_blocking(self.receive, True)
            while os.read(self.receive, 65536):
                pass
