"""A program to run, and how rules change it: what every launch configuration ends in.

What runs differs from what the launch file says only by rules with names, and each part of the command line
can be shown as in the file, as it runs, and by which rule.
"""

import shlex
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..core import hidden

_ACTIVATED = 'VS Code activates the environment of "python", too, for this type: it sets VIRTUAL_ENV and PATH'


@dataclass(frozen=True)
class Invocation:
    """A program to run: every variable is substituted, every default filled in.

    :param target: ``("prog.py",)``, ``("-m", "module")`` or ``("-c", "code")``.
    :param env: the variables that the configuration sets; None removes one that is inherited.
    :param cwd: absolute; a relative program is opened from there.
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

        Values that are not to be shown are references: where the shell has no such variable, and the launch
        file has its value, the command says so and runs nothing.
        """
        lines = []
        if self.env:
            words = [_assign(name, value) for name, value in self.env.items()]
            lines.append(["env", *(word for unset in words if len(unset) > 1 for word in unset)])
            lines += [[*assignment] for assignment in words if len(assignment) == 1]
        # env(1) and the shell take an interpreter with = in its path for one more variable.  No shell in its
        # place: it may drop variables that are no names for it.
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
    """Return a shell's reference to a variable; one whose name is none to a shell, printenv knows."""
    if name.isascii() and name.isidentifier():
        return f'"${{{name}{otherwise}}}"'
    return f'"$(printenv {shlex.quote(name)})"'


@dataclass
class Part:
    """One part of an invocation: the interpreter, the program, a variable, an option with its values …

    :param what: ``python``, ``cwd``, ``program``, ``env``, ``args`` or ``type``.
    :param before: its words in the launch file; empty where the file does not have it.
    :param after: its words as it runs; empty where it is left out.
    :param rules: the rules that changed it, in order.
    """

    what: str
    before: Tuple[str, ...]
    after: Tuple[str, ...]
    rules: List[str]

    def change(self, after: Tuple[str, ...], rule: str) -> None:
        """Let the part run as ``after``, by ``rule``."""
        if self.after != after:
            self.after = after
            self.rules.append(rule)

    @property
    def changed(self) -> bool:
        """Whether the part runs otherwise than the file says."""
        return list(map(hidden.show_word, self.before)) != list(map(hidden.show_word, self.after))


class Rewriter:
    """An invocation, changed rule by rule."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation
        python = (invocation.python, *invocation.options)
        self.python = Part("python", python, python, [])
        self.cwd = Part("cwd", (invocation.cwd,), (invocation.cwd,), [])
        self.target = Part("program", invocation.target, invocation.target, [])
        self.env = {
            name: Part("env", _assign(name, value), _assign(name, value), [])
            for name, value in invocation.env.items()
        }
        self.kind: List[Part] = []
        self._values = dict(invocation.env)
        self.args = _grouped(invocation.args)

    def as_written(self, body: Mapping[str, Any], substitute: Callable[[str], str]) -> None:
        """Show each part as the file has it: before ``substitute`` replaces VS Code's variables.

        :param body: the configuration, which was resolved.
        """
        if body.get("type") == "python" and body.get("python"):
            self.kind = [Part("type", ("python",), ("debugpy",), [_ACTIVATED])]
        self.cwd.before = _words(body.get("cwd"))
        for key, words in (("program", ()), ("module", ("-m",)), ("code", ("-c",))):
            if key in body:
                value = body[key]
                self.target.before = (*words, "\n".join(value) if isinstance(value, list) else value)
        options = map(str, body.get("pythonArgs", ()))
        self.python.before = (*_words(body.get("python", body.get("pythonPath"))), *options)
        for name, value in body.get("env", {}).items():
            if substitute(name) in self.env:
                shown = None if value is None else hidden.hide_entry(substitute(name), value)
                self.env[substitute(name)].before = _assign(name, shown)
        written = body.get("args", ())
        if not isinstance(written, str):
            rest = iter(written)
            for part in self.args:
                part.before = tuple(next(rest) for _ in part.before)
        elif "${" in written:
            # Which words a reference became cannot be told from the words: the whole string is every part's.
            for part in self.args:
                part.before = (written,)

    def result(self) -> Invocation:
        """Return the invocation as it is now."""
        return replace(
            self._invocation,
            python=self.python.after[0],
            cwd=self.cwd.after[0],
            target=self.target.after,
            env={name: value for name, value in self._values.items() if self.env[name].after},
            args=tuple(word for part in self.args for word in part.after),
        )

    def parts(self) -> List[Part]:
        """Return every part, in the order of a command line."""
        return [*self.kind, self.cwd, *self.env.values(), self.python, self.target, *self.args]

    def value(self, option: str) -> Optional[str]:
        """Return the value that ``option`` has now; None where it has none."""
        part = self._find(option)
        if part is None:
            return None
        _, joined, value = part.after[0].partition("=")
        if joined:
            return value
        return part.after[1] if len(part.after) > 1 else None

    def has(self, option: str) -> bool:
        """Return whether ``option`` is given."""
        return self._find(option) is not None

    def set(self, option: str, value: str, rule: str) -> None:
        """Give ``option`` another value, at its place or at the end."""
        part = self._find(option)
        if part is None:
            self.args.append(Part("args", (), (option, value), [rule]))
        else:
            part.change((option, value), rule)

    def flag(self, option: str, rule: str) -> None:
        """Add an option that takes no value."""
        if not self.has(option):
            self.args.append(Part("args", (), (option,), [rule]))

    def drop(self, option: str, rule: str) -> None:
        """Leave ``option`` and its values out, wherever it is given."""
        for part in self.args:
            if read_option(part) == option:
                part.change((), rule)

    def map_words(self, change: Callable[[str], str], rule: str) -> None:
        """Put every word of the arguments and every variable's value through ``change``."""
        for part in self.args:
            part.change(tuple(hidden.map_word(change, word) for word in part.after), rule)
        for name in self.env:
            value = self.variable(name)
            if value is not None:
                self.set_variable(name, hidden.map_word(change, value), rule)

    def variable(self, name: str) -> Optional[str]:
        """Return what the environment variable ``name`` is set to; None where it is not."""
        return self._values.get(name) if name in self.env and self.env[name].after else None

    def set_variable(self, name: str, value: Optional[str], rule: str) -> None:
        """Set an environment variable; None removes one that would be inherited."""
        part = self.env.setdefault(name, Part("env", (), (), []))
        self._values[name] = value
        part.change(_assign(name, value), rule)

    def drop_variable(self, name: str, rule: str) -> None:
        """Leave out an environment variable that the file sets."""
        if name in self.env:
            self.env[name].change((), rule)

    def set_python(self, python: str, rule: str) -> None:
        """Run another interpreter, with the same options."""
        self.python.change((python, *self.python.after[1:]), rule)

    def _find(self, option: str) -> Optional[Part]:
        """Return where ``option`` is given; the last counts, as for the programs' own parsers."""
        return next((part for part in reversed(self.args) if read_option(part) == option), None)


def read_option(part: Part) -> str:
    """Return the option that a part gives, as ``--name value`` or ``--name=value``; empty for none."""
    return part.after[0].split("=", 1)[0] if part.after else ""


def _words(value: object) -> Tuple[str, ...]:
    return (value,) if isinstance(value, str) else ()


def _assign(name: str, value: Optional[str]) -> Tuple[str, ...]:
    return ("-u", name) if value is None else (hidden.join_words("=", [name, value]),)


def _grouped(args: Tuple[str, ...]) -> List[Part]:
    """Return an option with the words up to the next option as one part."""
    groups: List[List[str]] = []
    for word in args:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return [Part("args", tuple(group), tuple(group), []) for group in groups]


def format_parts(parts: List[Part]) -> str:
    """Return the parts as text: each as in the file and, where that differs, as it runs and by which rule."""
    lines = []
    for part in parts:
        if not (part.before or part.after):
            continue  # one rule put it in, a later one took it out
        before, after = (shlex.join(map(hidden.show_word, words)) for words in (part.before, part.after))
        lines.append(f"{part.what:<8}{before or '(not in the file)'}")
        if part.changed:
            lines.append(f"{'  runs':<8}{after or '(left out)'}")
            lines.append(f"{'  rule':<8}{'; then '.join(part.rules) or 'as VS Code resolves it'}")
    return "\n".join(lines)
