"""Words on their way through a terminal's shell, which not all of them survive.

What VS Code and debugpy do with them, with the sources: the README of this folder.
"""

import re
import shlex
from typing import List, Optional

INTEGRATED, EXTERNAL, NONE = "integratedTerminal", "externalTerminal", "internalConsole"
"""The values of ``console``; the first is the default."""

_CONTROL = re.compile("[\x01-\x1f\x7f]")
_NAMES = {"\n": "A line end", "\r": "A carriage return", "\t": "A tab", "\x1b": "Escape", "\x7f": "Delete"}

_TILDE = re.compile(r"~|[A-Za-z_]\w*\+?=(.*:)?~", re.ASCII | re.DOTALL)

# What a shell leaves alone: it splits this, as shlex does, and expands nothing ("!" is the history's).
_SPLIT_ONLY = re.compile(
    r"""(?: '[^']*'
          | "(?:[^"\\$`!]|\\[^$`!\r\n])*"
          | \\[^\r\n]
          | [^\s'"\\$`*?\[\]{}~;&|<>()\#!=]
          | (?<![\s])(?<!^)=
          | [ \t]
        )*""",
    re.VERBOSE,
)

INSTEAD = f'Or set "console": "{NONE}", which has no shell.'
"""What helps against each of these errors."""


def find_control(text: str) -> Optional[str]:
    """Return why a terminal does not take ``text``: a control character is a key there; None: it takes it."""
    found = _CONTROL.search(text)
    if found is None:
        return None
    sign = found.group()
    name = _NAMES.get(sign) or f"Control-{chr(ord(sign) + 64)}"
    return f"{name} is a key where VS Code types this into a terminal: it changes, ends or deletes the line."


def find_change(word: str) -> Optional[str]:
    """Return why a word of a list does not reach a program in the integrated terminal; None: it does."""
    if _TILDE.match(word):
        return "VS Code leaves ~ here to the terminal's shell, which puts a home folder in its place."
    if word in ("<", ">"):
        return "VS Code leaves this to the terminal's shell, which redirects input or output."
    if re.match("=.", word, re.DOTALL):
        return "VS Code leaves = here to the terminal's shell, and zsh puts a command's path in its place."
    return find_control(word)


def find_raw_change(word: str) -> Optional[str]:
    """Return why a word that a shell gets as it is, quoted for spaces alone, does not reach a program."""
    typed = f'"{word}"' if " " in word else word
    if split_words(typed) != [word]:
        return "VS Code leaves this word to a shell, which splits, expands or unquotes it."
    return None


def split_words(text: str) -> Optional[List[str]]:
    """Return the words that a shell makes of ``text``; None where it would expand it, or cannot split it."""
    try:
        return shlex.split(text) if _SPLIT_ONLY.fullmatch(text) else None
    except ValueError:
        return None
