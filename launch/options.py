"""The command line: the commands' options as they are given, and the help of each.

An option ``--train-file`` is the variable ``TRAIN_FILE=`` on make's command line and the environment variable
``LAUNCH_TRAIN_FILE``, as which the Makefile hands the former over, so that no value passes through a shell's
quoting.
"""

import argparse
import difflib
import os
import shlex
import sys
import textwrap
from typing import Any, Callable, Dict, Iterable, List, NoReturn, Optional, Sequence, Tuple

from . import choices, status
from .commands import COMMANDS, OPTIONS, Command
from .errors import KitError
from .variants import VARIANTS

PROGRAM = "python -m launch"

_WIDTH = 100
"""Columns of the help."""

_PREFIX = "LAUNCH_"

_MADE = "LAUNCH_MAKE"
"""What the Makefile says here of its command line: targets, and the names of variables with = after them."""

_YES, _NO = ("1", "yes", "true"), ("0", "no", "false")


def variable(name: str) -> str:
    """Return the make variable that the option ``name`` is."""
    return name.upper()


def is_yes(text: str, name: str) -> bool:
    """Return whether the option ``name``, which is on or off, is on.

    :raises KitError: its text is neither.
    """
    if text.strip().lower() in _YES:
        return True
    if text.strip().lower() in _NO:
        return False
    raise KitError(
        f"{variable(name)} is neither on nor off.",
        where=f"{variable(name)}={text}",
        hint=f"Set it to one of {', '.join(_YES)}, or to one of {', '.join(_NO)}.",
    )


def listing(row: Callable[[str, Command], str]) -> List[str]:
    """Return what the kit is and its commands by group, each as ``row`` of its name shows it."""
    lines = ["Five 90 % sparse, 8-bit BERT-large question-answering models: ONNX and OpenVINO IR."]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", group]
        lines += ["  " + row(name, command) for name, command in COMMANDS.items() if command.group == group]
    return lines


def overview() -> str:
    """Return the commands by group, for ``python -m launch --help``."""
    return "\n".join(
        [
            f"usage: {PROGRAM} <command> [options]",
            "",
            *listing(lambda name, command: f"{name:<15}{command.summary}"),
            "",
            f"`{PROGRAM} <command> --help` says what a command does, with its options and examples.",
            f"`{PROGRAM} help` lists the variants and what each takes.",
            "Every command is a make target too; there options are variables: --train-file is TRAIN_FILE=.",
            "Exported, they begin with LAUNCH_, for make too: LAUNCH_TRAIN_FILE.",
        ]
    )


def as_make(example: str) -> str:
    """Return an example of a command line, whose options have values, as make takes it."""
    name, *words = shlex.split(example)
    values = {word[2:].replace("-", "_"): value for word, value in zip(words[::2], words[1::2])}
    return " ".join(["make", name, *(f"{variable(option)}={value}" for option, value in values.items())])


class _Parser(argparse.ArgumentParser):
    """Argparse whose errors are the kit's."""

    def error(self, message: str) -> NoReturn:
        raise KitError(
            f"The command line is wrong: {message}.",
            where=self.prog,
            hint=f"{self.prog} --help lists what it takes.",
        )


def parse(words: Sequence[str]) -> Tuple[str, Optional[argparse.Namespace]]:
    """Return the command and its options; None for the options where only help is wanted, and printed.

    An option that is not given, or given as empty, has the value of its environment variable; where that is
    empty too, its default.

    :raises KitError: there is no such command or option.
    """
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return "", None
    on_make = os.environ.pop(_MADE, "").split()
    _check_command(words[0], "make" if on_make else PROGRAM)
    parser, command = _parser(words[0]), COMMANDS[words[0]]
    options, unknown = parser.parse_known_args(words[1:])
    if unknown:
        raise _unknown(parser.prog, command, unknown)
    if words[0] == "help" and options.words:
        return parse([*options.words, "--help"])
    _check_variables([word for word in on_make if word[-1] != "="] or [words[0]], on_make)
    for option in command.options:
        given = getattr(options, option) or os.environ.get(_PREFIX + variable(option))
        setattr(options, option, given or command.option(option).default)
    return words[0], options


def _check_command(name: str, program: str) -> None:
    if name not in COMMANDS:
        hint = _nearest(name, COMMANDS)
        if name in VARIANTS:
            hint = f"It is a variant: make variant V={name}\n"
        what, where = f"There is no command {name!r}.", f"{program} {name}"
        raise KitError(what, where=where, hint=f"{hint}The commands: {', '.join(COMMANDS)}")


def _check_variables(targets: Sequence[str], on_make: Sequence[str]) -> None:
    """Check that each variable on make's command line is one of its targets', before the first of them runs.

    A variable that nothing knows in the environment may be another program's, so it is only told.  No value
    is shown, for it may be anything.

    :param targets: the targets, or the command that is run where no target is named.
    :param on_make: make's command line, as :data:`_MADE` has it.
    :raises KitError: a target is none, or a variable is none of theirs.
    """
    for target in targets:
        _check_command(target, "make")
    taken = {variable(option): option for target in targets for option in COMMANDS[target].options}
    known = {variable(option) for option in OPTIONS}
    others = {choices.IGNORE_MEMORY, status.STATUS_FD}
    for word in on_make:
        name = word[len(_PREFIX) :] if word.startswith(_PREFIX) else word
        if name.endswith("=") and name[:-1] not in taken and _PREFIX + name[:-1] not in others:
            raise _no_variable(name[:-1], targets, taken, known)
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in others and name[len(_PREFIX) :] not in known:
            near = _nearest(name[len(_PREFIX) :], known, _PREFIX).strip()
            print(
                f"note: {name} in the environment is no variable of the kit. {near}".strip(), file=sys.stderr
            )


def _no_variable(name: str, targets: Sequence[str], taken: Iterable[str], known: Iterable[str]) -> KitError:
    """Return the error about a variable on make's command line that none of its targets takes."""
    command = " ".join(["make", *targets])
    listed = ", ".join(taken)
    hint = f"{command} takes {listed}." if listed else f"{command} takes no variables."
    if name in known:
        users = [target for target, command in COMMANDS.items() if name.lower() in command.options]
        what = f"The variable {name} means nothing to {command}."
        hint = f"Leave it out.  {hint}\n{name} is for make {', '.join(users)}."
    else:
        what = f"There is no variable {name}."
        hint = (_nearest(name, taken) or _nearest(name, known)) + hint
    return KitError(what, where=f"{command} {name}=", hint=hint)


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Return the question whether the nearest of ``known`` was meant; empty where none is near."""
    folded = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), folded, n=1)
    return f"Did you mean {prefix + folded[near[0]]!r}?\n" if near else ""


def _unknown(program: str, command: Command, words: Sequence[str]) -> KitError:
    """Return the error about words that a command does not take; the name of a variant was meant for --v."""
    hint = f"{program} --help lists what it takes."
    if "v" in command.options and not words[0].startswith("-"):
        hint = f"A name comes after --v: {program} --v {shlex.quote(words[0])}\n{hint}"
    what = f"The command line is wrong: unrecognized arguments: {' '.join(words)}."
    return KitError(what, where=program, hint=hint)


def _parser(name: str) -> argparse.ArgumentParser:
    command = COMMANDS[name]
    parts = [f"{command.summary[0].upper()}{command.summary[1:]}.", *textwrap.wrap(command.details, _WIDTH)]
    after = ["examples:", *(f"  {PROGRAM} {example}" for example in command.examples)]
    after.append("  " + as_make(command.examples[0]))
    if command.options:
        last = command.options[-1]
        after += [
            "",
            "The variable of each option on make's command line stands in brackets.  With LAUNCH_ before it,",
        ]
        after += [f"it may be exported: --{last} is {variable(last)}= and {_PREFIX}{variable(last)}."]
    parser = _Parser(
        prog=f"{PROGRAM} {name}",
        usage=f"{PROGRAM} {name}"
        + " [options]" * bool(command.options)
        + " [<word> ...]" * bool(command.words),
        description="\n".join(parts),
        epilog="\n".join(after),
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=32, width=_WIDTH
        ),
        allow_abbrev=False,
        add_help=False,
    )
    if command.words:
        arguments = parser.add_argument_group("arguments")
        arguments.add_argument("words", nargs="*", metavar="<word>", help=command.words)
    options = parser.add_argument_group("options")
    for option in command.options:
        _add(options, option, command)
    options.add_argument("-h", "--help", action="help", help="this text")
    return parser


def _add(options: "argparse._ArgumentGroup", name: str, command: Command) -> None:
    option = command.option(name)
    default = option.otherwise or option.shown
    notes = [f"{variable(name)}="]
    notes += ["required"] if name in command.required else [f"default: {default}"] if default else []
    more: Dict[str, Any] = {"nargs": "?", "const": "1"} if option.flag else {}
    options.add_argument(
        "--" + name.replace("_", "-"),
        dest=name,
        metavar=option.value,
        help=f"{option.what} ({'; '.join(notes)})".replace("%", "%%"),
        **more,
    )
