"""The process of :mod:`launch.warm`: it imports, and forks a child for each job.

Nothing of the kit's that a program could import is left in a child, so that it imports its own.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
from array import array
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import List, Tuple

from . import child, status
from .qa import extension

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2

_MESSAGE = 1 << 20
"""Bytes that a job's arguments may have."""


def serve(descriptor: int, imports: List[str]) -> CodeType:
    """Take jobs from the socket and fork a child for each; return in the child, what it has to execute.

    The caller executes it at the top of its ``__main__``, so that the program ends as programs do.

    :param imports: modules, imported in this order before the first child is forked.
    """
    # Ctrl-C reaches every process of the terminal; what follows from it is the kit's business.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    jobs = socket.socket(fileno=descriptor)
    imported = False
    while True:
        argv, send = _take(jobs)
        if not imported:
            os.environ[status.STATUS_FD] = str(send)
            status.step("loading libraries")
            sys.path[0] = _folder(argv[0])
            _import(imports)
            for stream in (sys.stdout, sys.stderr):
                stream.flush()  # else each child writes what the imports have said into its own log
            imported = True
        server = os.getpid()
        forked = os.fork()
        if not forked:
            child.die_with_parent()
            if os.getppid() != server:
                os._exit(1)
            jobs.close()
            signal.signal(signal.SIGINT, interrupt)
            os.environ[status.STATUS_FD] = str(send)
            return _become(argv)
        os.close(send)
        _, wait_status, usage = os.wait4(forked, 0)
        took = usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime
        jobs.send(json.dumps([child.exit_code(wait_status), *took]).encode())


def _take(jobs: socket.socket) -> Tuple[List[str], int]:
    """Wait for a job; return its program with arguments and the status pipe, with its log as our output."""
    room = socket.CMSG_SPACE(2 * array("i").itemsize)
    message, extra, _, _ = jobs.recvmsg(_MESSAGE, room)
    if not message:
        sys.exit()  # the kit has closed its end
    descriptors = array("i")
    for _, _, data in extra:
        descriptors.frombytes(data)
    output, send = descriptors
    for standard in (_STANDARD_OUTPUT, _STANDARD_ERROR):
        os.dup2(output, standard)
    os.close(output)
    os.set_inheritable(send, True)
    return json.loads(message), send


def _folder(program: str) -> str:
    """Return the folder of a program as Python finds it, behind links."""
    return str(Path(program).resolve().parent)


def _import(imports: List[str]) -> None:
    """Import modules; leave where a child could not use what they hold."""
    folder = Path(os.environ[extension.FOLDER])
    nncf = any(name.partition(".")[0] == "nncf" for name in imports)
    if nncf and extension.compiles(folder):
        status.step(extension.COMPILING)
    with extension.lock(folder):
        for name in imports:
            importlib.import_module(name)
        if nncf:
            extension.write_stamp(folder, "")
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        sys.exit("a GPU that was looked at cannot be used after a fork")
    # Children neither walk through nor copy what is never freed.
    gc.freeze()


def _become(argv: List[str]) -> CodeType:
    """Make this process that of a program that was just started; return its code."""
    program = argv[0]
    sys.argv = argv
    sys.path[0] = _folder(program)
    for name in [name for name in sys.modules if name.partition(".")[0] == __package__]:
        del sys.modules[name]
    own = sys.modules["__main__"].__dict__
    builtins = own["__builtins__"]
    own.clear()
    own.update(
        __name__="__main__",
        __doc__=None,
        __package__=None,
        __loader__=SourceFileLoader("__main__", program),
        __spec__=None,
        __annotations__={},
        __builtins__=builtins,
        __file__=program,
        __cached__=None,
    )
    return compile(Path(program).read_bytes(), program, "exec", dont_inherit=True)
