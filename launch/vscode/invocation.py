"""A program to run, resolved: what every launch configuration ends in."""

import shlex
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple

from ..core import hidden


@dataclass(frozen=True)
class Invocation:
    """A program to run: every variable is substituted, every default filled in.

    :param python: the interpreter.
    :param target: ``("prog.py",)``, ``("-m", "module")`` or ``("-c", "code")``.
    :param args: what the program gets after that.
    :param env: the variables that the configuration sets; None removes one that is inherited.
    :param cwd: the directory to run in, absolute; a relative program is opened from there.
    :param options: the interpreter's own, before the target.
    """

    python: str
    target: Tuple[str, ...]
    args: Tuple[str, ...]
    env: Mapping[str, Optional[str]]
    cwd: str
    options: Tuple[str, ...] = ()

    def argv(self) -> List[str]:
        """Return the command line, one string for each argument."""
        return [self.python, *self.options, *self.target, *self.args]

    def environment(self, base: Mapping[str, str]) -> Dict[str, str]:
        """Return ``base`` with the configuration's variables set and removed."""
        merged: Dict[str, Optional[str]] = {**base, **self.env}
        return {name: value for name, value in merged.items() if value is not None}

    def shell(self) -> str:
        """Return a command for a POSIX shell that does the same, with an option and its value on a line.

        Values of the environment are referred to.  Those that the launch file itself has for variables that
        are not the kit's own are to be set in that shell: where they are not, it says so and runs nothing.
        """
        lines = []
        if self.env:
            removed = [word for name, value in self.env.items() if value is None for word in ("-u", name)]
            lines.append(["env", *removed])
            lines += [[_assignment(name, value)] for name, value in self.env.items() if value is not None]
        # Both env(1) and the shell could take an interpreter with = in its path for one more variable.  What
        # comes before it instead is no shell, for a shell may drop variables that are no names for it.
        detour = ["nice", "-n", "0"] if "=" in self.python else []
        lines.append([*detour, self.python, *self.options, *self.target])
        pair_open = False
        for arg in self.args:
            option = arg.startswith("-")
            if pair_open and not option:
                lines[-1].append(arg)
            else:
                lines.append([arg])
            pair_open = option
        quoted = [" ".join(map(_quoted, line)) for line in lines]
        return f"cd {_quoted(self.cwd)} && \\\n" + " \\\n  ".join(quoted)


def _assignment(name: str, value: str) -> str:
    return hidden.join_words("=", [name, value])


def _quoted(word: str) -> str:
    """Return a word for a shell, values that are not to be shown as references."""
    if not isinstance(word, hidden.Word):
        return shlex.quote(word)
    name, equals, rest = word.shown.partition("=")
    if equals and rest == hidden.NOT_SHOWN:
        message = "its value is in the launch file, and is to be set here, too"
        return f"{shlex.quote(name)}={_reference(name, f':?{message}')}"
    pieces = hidden.REFERENCE.split(word.shown)  # text, name, text, name, … text
    return "".join(
        _reference(piece) if index % 2 else shlex.quote(piece) if piece else ""
        for index, piece in enumerate(pieces)
    )


def _reference(name: str, otherwise: str = "") -> str:
    """Return what a shell takes for the value of a variable; what is no name for it, printenv knows."""
    if name.isascii() and name.isidentifier():
        return f'"${{{name}{otherwise}}}"'
    return f'"$(printenv {shlex.quote(name)})"'
