"""A program to run, resolved: what every launch configuration ends in."""

import shlex
from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Tuple


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
        """Return a command for a POSIX shell that does the same, with an option and its value on a line."""
        lines = []
        if self.env:
            removed = [word for name, value in self.env.items() if value is None for word in ("-u", name)]
            lines.append(["env", *removed])
            lines += [[f"{name}={value}"] for name, value in self.env.items() if value is not None]
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
        quoted = [" ".join(shlex.quote(word) for word in line) for line in lines]
        return f"cd {shlex.quote(self.cwd)} && \\\n" + " \\\n  ".join(quoted)
