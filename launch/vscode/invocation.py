"""A program to run, and the changes that named rules make to it."""

import shlex
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..core import hidden

_ACTIVATED = 'VS Code activates the environment of "python", too, for this type: it sets VIRTUAL_ENV and PATH'


@dataclass(frozen=True)
class Invocation:
    """A program to run: every variable is substituted, every default filled in."""

    python: str
    target: Tuple[str, ...]  # ("prog.py",), ("-m", "module") or ("-c", "code")
    args: Tuple[str, ...]
    env: Mapping[str, Optional[str]]  # None removes an inherited variable
    cwd: str  # absolute; a relative program is opened from there
    options: Tuple[str, ...] = ()  # the interpreter's own, before the target

    def argv(self) -> List[str]:
        """Return the command line as a list of arguments."""
        return [self.python, *self.options, *self.target, *self.args]

    def environment(self, base: Mapping[str, str]) -> Dict[str, str]:
        """Return ``base`` with the configuration's variables set and removed."""
        merged: Dict[str, Optional[str]] = {**base, **self.env}
        return {name: value for name, value in merged.items() if value is not None}

    def shell(self) -> str:
        """Return a POSIX shell command that does the same; hidden values are references to variables."""
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
    """Return a word quoted for a shell, hidden values as references."""
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
    """Return a shell's reference to a variable, through printenv if its name is no identifier."""
    if name.isascii() and name.isidentifier():
        return f'"${{{name}{otherwise}}}"'
    return f'"$(printenv {shlex.quote(name)})"'


@dataclass
class Part:
    """One part of an invocation: the interpreter, the program, a variable, an option with its values …"""

    what: str  # python, cwd, program, env, args or type
    before: Tuple[str, ...]  # its words in the launch file; may be empty
    after: Tuple[str, ...]  # its words as it runs; empty if it is left out
    rules: List[str]  # those that changed it, in order

    def change(self, after: Tuple[str, ...], rule: str) -> None:
        """Make the part run as ``after``, by ``rule``."""
        if self.after != after:
            self.after = after
            self.rules.append(rule)

    @property
    def changed(self) -> bool:
        """Whether the part runs differently from the file."""
        return list(map(hidden.show_word, self.before)) != list(map(hidden.show_word, self.after))


class Rewriter:
    """An invocation that rules change one by one."""

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
        """Set each part's ``before`` to its words in ``body``, the configuration before substitution."""
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
        """Return the value that ``option`` has now, or None."""
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
        """Give ``option`` a value, where it is given or at the end."""
        part = self._find(option)
        if part is None:
            self.args.append(Part("args", (), (option, value), [rule]))
        else:
            part.change((option, value), rule)

    def flag(self, option: str, rule: str) -> None:
        """Add an option without a value, unless it is given."""
        if not self.has(option):
            self.args.append(Part("args", (), (option,), [rule]))

    def drop(self, option: str, rule: str) -> None:
        """Remove ``option`` and its values wherever it is given."""
        for part in self.args:
            if read_option(part) == option:
                part.change((), rule)

    def map_words(self, change: Callable[[str], str], rule: str) -> None:
        """Apply ``change`` to every word of the arguments and every variable's value."""
        for part in self.args:
            part.change(tuple(hidden.map_word(change, word) for word in part.after), rule)
        for name in self.env:
            value = self.variable(name)
            if value is not None:
                self.set_variable(name, hidden.map_word(change, value), rule)

    def variable(self, name: str) -> Optional[str]:
        """Return the value of the environment variable ``name``; None where it is not set."""
        return self._values.get(name) if name in self.env and self.env[name].after else None

    def set_variable(self, name: str, value: Optional[str], rule: str) -> None:
        """Set an environment variable; None removes an inherited one."""
        part = self.env.setdefault(name, Part("env", (), (), []))
        self._values[name] = value
        part.change(_assign(name, value), rule)

    def drop_variable(self, name: str, rule: str) -> None:
        """Leave out an environment variable, so that the inherited one counts."""
        if name in self.env:
            self.env[name].change((), rule)

    def set_python(self, python: str, rule: str) -> None:
        """Run another interpreter, with the same options."""
        self.python.change((python, *self.python.after[1:]), rule)

    def _find(self, option: str) -> Optional[Part]:
        """Return the last part that gives ``option``: it is the one that the programs' parsers take."""
        return next((part for part in reversed(self.args) if read_option(part) == option), None)


def read_option(part: Part) -> str:
    """Return the option that a part gives, as ``--name value`` or ``--name=value``; empty for none."""
    return part.after[0].split("=", 1)[0] if part.after else ""


def _words(value: object) -> Tuple[str, ...]:
    return (value,) if isinstance(value, str) else ()


def _assign(name: str, value: Optional[str]) -> Tuple[str, ...]:
    return ("-u", name) if value is None else (hidden.join_words("=", [name, value]),)


def _grouped(args: Tuple[str, ...]) -> List[Part]:
    """Return one part for each option, with the words up to the next one."""
    groups: List[List[str]] = []
    for word in args:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return [Part("args", tuple(group), tuple(group), []) for group in groups]


def format_parts(parts: List[Part]) -> str:
    """Return the parts as text: as in the file and, where that differs, as it runs and by which rule."""
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
