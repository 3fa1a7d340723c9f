"""A client of the Debug Adapter Protocol: what VS Code does between F5 and the end of the program.

It starts the real adapter, `python debugpy/adapter`, and speaks with it over standard input and output, as
VS Code does.  Where the adapter asks for a terminal (`runInTerminal`), the client starts what it is asked to,
as VS Code's terminal does.  Every wait has an end, and :meth:`Session.close` leaves no process behind.

The messages are those of https://microsoft.github.io/debug-adapter-protocol/specification.
"""

import ast
import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, List, Mapping, Optional, Sequence

import debugpy

Message = Dict[str, Any]

_CLIENT = {
    "clientID": "vscode",
    "adapterID": "debugpy",
    "pathFormat": "path",
    "linesStartAt1": True,
    "columnsStartAt1": True,
    "supportsVariableType": True,
    "supportsRunInTerminalRequest": True,
    "supportsArgsCanBeInterpretedByShell": True,
}
"""What VS Code says of itself."""


@dataclass(frozen=True)
class Stop:
    """Where the program has stopped.

    :param reason: of the protocol: ``breakpoint``, ``exception`` …
    :param frame: the top frame's number, for :meth:`Session.evaluate`.
    """

    reason: str
    thread: int
    frame: int
    function: str
    file: Path
    line: int


class Session:
    """One debugging session; a context manager that ends everything it has started.

    :param python: the interpreter that runs the adapter: the one selected in VS Code.
    :param environment: VS Code's own, which adapter and terminal inherit.
    :param folder: receives the adapter's and the terminal's output.
    :param seconds: until a session that is not at its end is given up.
    """

    def __init__(
        self, python: str, environment: Mapping[str, str], folder: Path, seconds: float = 240.0
    ) -> None:
        self._environment = dict(environment)
        self._deadline = time.monotonic() + seconds
        self._sequence = 0
        self._responses: Dict[int, Message] = {}
        self._events: List[Message] = []
        self._messages: queue.Queue[Optional[Message]] = queue.Queue()
        self._terminals: List[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "adapter.log"
        self.output = folder / "terminal.log"
        """What the program wrote into its terminal."""
        with self._log.open("wb") as log:
            self._adapter = subprocess.Popen(
                [python, str(Path(debugpy.__file__).parent / "adapter")],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self._adapter.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._adapter.stdout,), daemon=True)
        self._reader.start()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def launch(self, configuration: Message, breakpoints: Mapping[Path, Sequence[int]]) -> None:
        """Start a program, with a breakpoint at each line given; it runs when this returns."""
        self._ask("initialize", _CLIENT)
        launched = self._send(configuration["request"], configuration)
        self._event("initialized")
        for file, lines in breakpoints.items():
            wanted = {"source": {"path": str(file)}, "breakpoints": [{"line": line} for line in lines]}
            answer = self._ask("setBreakpoints", wanted)
            assert [found["line"] for found in answer["breakpoints"]] == list(lines), answer
        self._ask("configurationDone", {})
        self._response(launched)

    def stop(self) -> Stop:
        """Wait until the program stops, and return where."""
        body = self._event("stopped")
        thread = body["threadId"]
        frame = self._ask("stackTrace", {"threadId": thread, "levels": 1})["stackFrames"][0]
        return Stop(
            body["reason"], thread, frame["id"], frame["name"], Path(frame["source"]["path"]), frame["line"]
        )

    def evaluate(self, expression: str, stop: Stop) -> Any:
        """Return the value, a literal, that an expression has in the stopped frame."""
        # The context in which the debugger leaves nothing out of a long value.
        arguments = {"expression": expression, "frameId": stop.frame, "context": "clipboard"}
        return ast.literal_eval(self._ask("evaluate", arguments)["result"])

    def resume(self, stop: Stop) -> None:
        """Let the program run on."""
        self._ask("continue", {"threadId": stop.thread})

    def step(self, stop: Stop) -> Stop:
        """Run one line, and return where the program stops then."""
        self._ask("next", {"threadId": stop.thread})
        return self.stop()

    def exit_code(self) -> int:
        """Wait for the program's end and return its exit status.

        :raises AssertionError: it stops once more instead.
        """
        code = self._event("exited", unless="stopped")["exitCode"]
        self._event("terminated")
        assert isinstance(code, int)
        return code

    def close(self) -> None:
        """End the adapter, the terminals, and whatever they have started."""
        ended = time.monotonic() + 10
        while self.processes() and time.monotonic() < ended:  # one that dies may just have started another
            for number in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.01)
        for process in (self._adapter, *self._terminals):
            process.wait(timeout=10)
        self._reader.join(timeout=10)
        for pipe in (self._adapter.stdin, self._adapter.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def processes(self) -> List[int]:
        """Return the processes of this session that are alive."""
        return [
            number
            for process in (self._adapter, *self._terminals)
            for number in _session_members(process.pid)
        ]

    def _ask(self, command: str, arguments: Message) -> Message:
        return self._response(self._send(command, arguments))

    def _send(self, command: str, arguments: Message) -> int:
        message = {"type": "request", "command": command, "arguments": arguments}
        return self._write(message)

    def _write(self, message: Message) -> int:
        self._sequence += 1
        data = json.dumps({"seq": self._sequence, **message}).encode()
        assert self._adapter.stdin is not None
        self._adapter.stdin.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
        self._adapter.stdin.flush()
        return self._sequence

    def _response(self, sequence: int) -> Message:
        while sequence not in self._responses:
            self._take()
        answer = self._responses.pop(sequence)
        assert answer["success"], f"{answer['command']}: {answer.get('message')}\n{self._story()}"
        body = answer.get("body")
        return body if isinstance(body, dict) else {}

    def _event(self, name: str, unless: str = "") -> Message:
        while True:
            for index, event in enumerate(self._events):
                assert event["event"] != unless, f"{event}\n{self._story()}"
                if event["event"] == name:
                    del self._events[index]
                    body = event.get("body")
                    return body if isinstance(body, dict) else {}
            self._take()

    def _take(self) -> None:
        """Take one message in: keep a response or an event, answer a request."""
        left = self._deadline - time.monotonic()
        try:
            message = self._messages.get(timeout=max(left, 0.01))
        except queue.Empty:
            raise AssertionError(f"The session took too long.\n{self._story()}") from None
        assert message is not None, f"The adapter has ended.\n{self._story()}"
        if message["type"] == "response":
            self._responses[message["request_seq"]] = message
        elif message["type"] == "event":
            self._events.append(message)
        else:
            assert message["command"] == "runInTerminal", message
            process = self._terminal(message["arguments"])
            self._write(
                {
                    "type": "response",
                    "request_seq": message["seq"],
                    "command": message["command"],
                    "success": True,
                    "body": {"shellProcessId": process.pid},
                }
            )

    def _terminal(self, wanted: Message) -> "subprocess.Popen[bytes]":
        """Start what the adapter wants to have in a terminal."""
        environment: Dict[str, Optional[str]] = {**self._environment, **wanted.get("env", {})}
        words = wanted["args"]
        if wanted.get("argsCanBeInterpretedByShell"):  # the adapter has quoted what is not to be
            words = ["/bin/sh", "-c", " ".join(words)]
        with self.output.open("ab") as output:
            process = subprocess.Popen(
                words,
                cwd=wanted["cwd"],
                env={name: value for name, value in environment.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._terminals.append(process)
        return process

    def _read(self, stream: BinaryIO) -> None:
        """Put the adapter's messages into the queue, and None at their end."""
        with contextlib.suppress(OSError, ValueError):
            while True:
                length = 0
                for line in iter(stream.readline, b""):
                    if line == b"\r\n":
                        break
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                if not length:
                    break
                self._messages.put(json.loads(stream.read(length)))
        self._messages.put(None)

    def _story(self) -> str:
        """Return the end of what program and adapter have written, for a failed assertion."""
        found = [path for path in (self.output, self._log) if path.is_file()]
        return "\n".join(f"{path.name}: {path.read_text(errors='replace')[-3000:]}" for path in found)


def _session_members(leader: int) -> Iterator[int]:
    """Yield the living processes of the POSIX session that ``leader`` began, the debugged program's too."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # After the name, which may hold anything: state, parent, process group, session.
            state, _, _, session = stat.read_text(errors="replace").rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                yield int(stat.parent.name)
