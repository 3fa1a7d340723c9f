"""The command line: the commands' options as they are given, and the help of each.

An option ``--train-file`` is the make variable ``TRAIN_FILE=`` and the environment variable
``LAUNCH_TRAIN_FILE``, which the Makefile exports, so that no value passes through a shell's quoting.
"""

import argparse
import difflib
import os
import shlex
import textwrap
from typing import Any, Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

from .commands import COMMANDS, Command
from .errors import KitError

PROGRAM = "python -m launch"

_WIDTH = 100
"""Columns of the help."""

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
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        raise KitError(
            f"There is no command {words[0]!r}.",
            where=f"{PROGRAM} {words[0]}",
            hint=(f"Did you mean {near[0]!r}?\n" if near else "") + f"The commands: {', '.join(COMMANDS)}",
        )
    parser, command = _parser(words[0]), COMMANDS[words[0]]
    options, unknown = parser.parse_known_args(words[1:])
    if unknown:
        raise _unknown(parser.prog, command, unknown)
    if words[0] == "help" and options.words:
        return parse([*options.words, "--help"])
    for option in command.options:
        given = getattr(options, option) or os.environ.get(f"LAUNCH_{variable(option)}")
        setattr(options, option, given or command.option(option).default)
    return words[0], options


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
            "The make variable of each option stands in brackets.  With LAUNCH_ before it, it is an",
        ]
        after += [f"environment variable: --{last} is {variable(last)}= and LAUNCH_{variable(last)}."]
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
