"""What reaches a program whose command line VS Code types into a terminal's shell, typed into real ones."""

import json
import shutil
from pathlib import Path
from typing import Any, Iterator, List, Optional

import pytest

from launch.core.errors import KitError
from launch.vscode.invocation import Invocation
from launch.vscode.launch_file import parse_launch_file
from launch.vscode.resolve import Variables, resolve_configuration

from ..terminal import Terminal

SHELLS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "dash": ["-i"]}

SAME = [
    *(
        "plain",
        "",
        "two words",
        "it's",
        'a "quoted" word',
        "$HOME $(id) `id` !!",
        "!x",
        "^a^b",
        "back\\slash \\",
    ),
    *(
        "*?[a-z]{a,b}~",
        "a;b&c|d>e<f#g!h",
        "naïve 模型 🤗 \u00a0\u2028\u200b\u0085",
        "--option=a b",
        "-",
        "--",
    ),
    *(
        "<<",
        "> ",
        "a~",
        "/x/~",
        "1a=~",
        "a-b=~",
        "--o=~/x",
        "--o=a:~",
        "x:~",
        "A=b=~",
        "A==~",
        "A= ~",
        "A=b~",
    ),
    *("=", "a=ls", "%1", "@x", "+"),
]
"""Words that arrive as they are."""

TILDES = ["~", "~/x", "~root", "~+", "A=~", "A=~/x", "A=~root/y", "_a1=x:~", "A=x:~/y:~", "A+=~", "A=x y:~"]
SIGNS = ["<", ">"]
CONTROLS = [f"a{chr(code)}b" for code in (*range(1, 32), 127)]

ZSH = ["=ls", "=~", "=="]
"""What zsh alone replaces, or does not take."""


def resolved(*args: str, **keys: Any) -> Invocation:
    body = {"name": "n", "type": "debugpy", "request": "launch", "program": "p", "args": list(args), **keys}
    text = json.dumps({"configurations": [{key: value for key, value in body.items() if value is not ...}]})
    (configuration,) = parse_launch_file(text, "f").configurations
    return resolve_configuration(Variables(configuration, Path("/w"), {"T": "~/x"}), "python3")


def refused(*args: str, **keys: Any) -> Optional[KitError]:
    try:
        resolved(*args, **keys)
    except KitError as error:
        return error
    return None


@pytest.fixture(params=list(SHELLS))
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Terminal]:
    shell: str = request.param
    if not shutil.which(shell):
        pytest.skip(f"there is no {shell} here")
    opened = Terminal([shell, *SHELLS[shell]], tmp_path)
    yield opened
    opened.close()


def test_what_is_taken_arrives_in_every_shell(terminal: Terminal) -> None:
    assert resolved(*SAME).args == tuple(SAME)
    assert terminal.received(*SAME) == SAME


@pytest.mark.parametrize("words", [TILDES, SIGNS, CONTROLS], ids=["tildes", "signs", "controls"])
def test_what_is_refused_does_not_arrive(words: List[str], tmp_path: Path) -> None:
    terminal = Terminal(["bash", *SHELLS["bash"]], tmp_path)
    arrived = [word for word in words if terminal.received(word, seconds=1) == [word]]
    terminal.close()
    assert arrived == []
    assert [word for word in words if refused("a", word) is None] == []


@pytest.mark.parametrize("word", [*TILDES, *SIGNS, *CONTROLS, *ZSH])
def test_the_error_names_the_word_and_what_to_write(word: str) -> None:
    error = refused("--option", word)
    assert error is not None
    assert error.where == f"f, line 1, configurations[0].args[1] = {json.dumps(word, ensure_ascii=False)}"
    assert '"console": "internalConsole"' in error.hint
    assert ("${userHome}" in error.hint) == ("~" in word)
    assert resolved("--option", word, console="internalConsole").args == ("--option", word)


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"program": "~/p.py"}, "program"),
        ({"program": "p\n.py"}, "program"),
        ({"program": ..., "module": "~x"}, "module"),
        ({"program": ..., "code": "import a\nimport b"}, "code"),
        ({"program": ..., "code": ["import a", "import b"]}, "code"),
        ({"cwd": "/a\tb"}, "cwd"),
        ({"args": ["${env:T}"]}, "args[0]"),
        # With a string of arguments the program is not quoted but for its spaces.
        ({"args": "a", "program": "$x"}, "program"),
        ({"args": "a", "program": "a $x"}, "program"),
        ({"args": "a", "program": "p\t.py"}, "program"),
        ({"args": "'a\nb'"}, "args"),
        ({"args": "=ls"}, "args"),
    ],
)
def test_everything_that_is_typed_is_looked_at(keys: Any, place: str) -> None:
    error = refused(**keys)
    assert error is not None
    assert f"configurations[0].{place} = " in error.where
    if not isinstance(keys.get("args"), str):
        assert refused(**keys, console="internalConsole") is None


def test_what_is_not_typed_is_not_looked_at() -> None:
    env = {"A": "~ \n", "HF_HOME": "~/x"}
    assert resolved(python="~/python", pythonArgs=["-W", "~"], env=env).env == env
    assert resolved(args="a 'b c' d=e", program="two words").args == ("a", "b c", "d=e")


@pytest.mark.parametrize("word", ["$x", "it's", "a;b", "*", "", "~", "a\tb", "back\\slash", 'a "b"', "a $x"])
def test_an_external_terminals_shell_quotes_for_spaces_alone(word: str) -> None:
    assert refused(word, console="externalTerminal") is not None
    assert resolved("a b", "c=d", "/e", console="externalTerminal").args == ("a b", "c=d", "/e")
