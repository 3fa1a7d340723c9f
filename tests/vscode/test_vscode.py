import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from launch.core.errors import KitError
from launch.vscode.invocation import Invocation
from launch.vscode.launch_file import (
    MAX_BYTES,
    MAX_DEPTH,
    find_configuration,
    parse_jsonc,
    parse_launch_file,
    read_launch_file,
)
from launch.vscode.resolve import Variables, resolve_configuration

PLATFORM = {"linux": "linux", "darwin": "osx"}.get(sys.platform, "windows")
OTHER_PLATFORM = "windows" if PLATFORM != "windows" else "linux"

# What no shell, encoding or JSON file may spoil.
NASTY = [
    "plain",
    "",
    "two words",
    "it's",
    'a "quoted" word',
    "line one\nline two\n",
    "tab\there",
    "naïve – 模型 🤗",
    "$HOME $(id) `id` !!",
    "back\\slash \\n \\",
    "*?[a-z]{a,b}~",
    "a;b&c|d>e<f#g!h",
    "--option=a b",
    "-",
    "--",
]


def write(tmp_path, body, name="launch.json"):
    path = tmp_path / name
    path.write_text(body if isinstance(body, str) else json.dumps(body), encoding="utf-8")
    return path


def config(tmp_path, environ=None, workspace=None, **keys):
    """Resolve a configuration that is right but for ``keys``; ``...`` removes a key."""
    body = {"name": "n", "type": "debugpy", "request": "launch", "program": "p.py", **keys}
    body = {key: value for key, value in body.items() if value is not ...}
    path = write(tmp_path, {"configurations": [{"name": "first"}, body]})
    return resolve_configuration(
        Variables(find_configuration(read_launch_file(path), "n"), workspace or tmp_path, environ or {}),
        "python3",
    )


def failure(function, *args, **kwargs):
    with pytest.raises(KitError) as caught:
        function(*args, **kwargs)
    assert caught.value.what
    assert caught.value.hint
    return caught.value


# --- JSON with comments ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('// c\n{"a": 1, /* x\n */ "b": [1, 2,], // d\n}', {"a": 1, "b": [1, 2]}),
        ('["// no", "/* no */", "a\\"// b", ",]", "\\\\"]', ["// no", "/* no */", 'a"// b', ",]", "\\"]),
        ("[1, /* , */ ]", [1]),
        ("[1 // ]\r, 2]", [1, 2]),
        ("[[], {}, ]", [[], {}]),
        ("/**/1/***/", 1),
        ('{"a": {"b": 1}, "b": 2, "c": ["a", "a"]}', {"a": {"b": 1}, "b": 2, "c": ["a", "a"]}),
    ],
)
def test_comments_and_trailing_commas(text, value):
    assert parse_jsonc(text, "f").value == value


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{\n  // c\n  "a": 1\n  "b": 2\n}', "line 4, column 3"),
        ("[,]", "line 1, column 2"),
        ("[1,,]", "line 1, column 4"),
        ("{,}", "line 1, column 2"),
        ('{"a":,}', "line 1, column 6"),
        ("/* é */ [1, ?]", "line 1, column 13"),
        ("[1]\n /* open", "line 2, column 2"),
        ('["open // not a comment]', "line 1, column 2"),
        ("", "line 1, column 1"),
        ("[1, NaN]", "line 1, column 5"),
        ("[1,\n-Infinity]", "line 2, column 1"),
        ("1e999", "line 1, column 1"),
        ("[" * 100000, f"line 1, column {MAX_DEPTH + 1}"),
        ('{"a":' * 100000, f"column {5 * MAX_DEPTH + 1}"),
        ('{"a": 1,\n "b": 2, "\\u0061": 3}', "line 1, column 2 and line 2, column 10"),
    ],
)
def test_broken_json_names_line_and_column(text, where):
    error = failure(parse_jsonc, text, "some.json")
    assert where in error.where
    assert "some.json" in error.where


BLANKS = [9, 11, 12, 32, 160, 5760, *range(8192, 8204), 8239, 8287, 12288, 65279]
"""The white space of VS Code's reader; line ends are 10, 13, 8232 and 8233."""


@pytest.mark.parametrize("code", [*BLANKS, 10, 13, 8232, 8233])
def test_white_space_is_vs_codes(code, tmp_path):
    sign = chr(code)
    text = sign.join(["", "", "{", '"a"', ":", "[", "1", ",", "true", ",", "]", ",", "}", "", ""])
    assert parse_jsonc(text, "f").value == {"a": [1, True]}
    assert parse_jsonc(json.dumps([f"{sign}x"], ensure_ascii=code < 32), "f").value == [f"{sign}x"]
    ends = code in (10, 13, 8232, 8233)
    assert parse_jsonc(f"[ // {sign}1,\n2]", "f").value == ([1, 2] if ends else [2])
    path = tmp_path / "launch.json"
    path.write_text(f'\ufeff{sign}{{"configurations": [{{"name": "n"}}]{sign}}}', encoding="utf-8")
    assert read_launch_file(path).configurations[0].name == "n"


@pytest.mark.parametrize("code", [1, 8, 0x85, 0x180E, 0x200C, 0x2060, 0x3001])
def test_what_vs_code_takes_for_no_white_space_is_an_error(code):
    failure(parse_jsonc, f"[1,{chr(code)}2]", "f")


def test_repeated_key_is_named():
    assert "'env'" in failure(parse_jsonc, '{"env": {}, "env": {}}', "f").what


def test_number_of_thousands_of_digits_is_no_traceback():
    with contextlib.suppress(KitError):  # how many digits are too many depends on the interpreter
        assert parse_jsonc("1" * 10000, "f").value > 0
    if hasattr(sys, "set_int_max_str_digits"):
        error = failure(parse_jsonc, '{"a":\n ' + "1" * 6000 + "}", "f")
        assert error.what == "f is not valid JSON: the number has too many digits."
        assert error.where == "f, line 2, column 2, at or after a"


def test_a_place_that_is_deep_is_cut():
    assert len(failure(parse_jsonc, "[" * 1000, "f").where) < 120


# --- the file ----------------------------------------------------------------------------------------


def test_load_keeps_order_and_find_finds(tmp_path):
    path = tmp_path / "launch.json"
    path.write_bytes('\ufeff{// c\n"configurations": [{"name": "b", "x": [1,]}, {"name": "a é"},],}'.encode())
    found = read_launch_file(path)
    assert [(entry.name, entry.index) for entry in found.configurations] == [("b", 0), ("a é", 1)]
    assert found.configurations[0].body == {"name": "b", "x": [1]}
    assert find_configuration(found, "a é") is found.configurations[1]


def test_find_names_the_nearest_and_all(tmp_path):
    path = write(tmp_path, {"configurations": [{"name": "generate"}, {"name": "Eval squad"}]})
    error = failure(find_configuration, read_launch_file(path), "eval squat")
    assert "Did you mean 'Eval squad'?" in error.hint
    assert "generate" in error.hint
    assert str(path) in error.where
    none = failure(find_configuration, parse_launch_file('{"configurations": []}', "f"), "x")
    assert "no configurations" in none.hint
    nameless = failure(find_configuration, read_launch_file(path), "")
    assert nameless.what == "No configuration was named."
    assert nameless.hint == "The names are:\n  generate\n  Eval squad"
    assert nameless.where.startswith("V=\n")
    assert "Did you mean" not in failure(find_configuration, read_launch_file(path), "nope").hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", ["object", "[]"]),
        ("{}", ["configurations = absent"]),
        ('{"configurations": {}}', ["configurations = {}"]),
        ('{"configurations": [{"name": "a"}, 7]}', ["configurations[1] = 7"]),
        ('{"configurations": [{}]}', ["configurations[0].name = absent"]),
        ('{"configurations": [{"name": 3}]}', ["configurations[0].name = 3"]),
        ('{"configurations": [{"name": ""}]}', ['configurations[0].name = ""']),
        (
            '{"configurations": [{"name": "a"}, {"name": "a"}]}',
            ["configurations[1].name", "configurations[0]"],
        ),
        ("{", ["line 1, column 2"]),
    ],
)
def test_wrong_file_is_a_user_error(tmp_path, content, words):
    error = failure(read_launch_file, write(tmp_path, content))
    assert "launch.json" in error.where
    assert not [word for word in words if word not in str(error)]


def test_errors_name_the_line_of_the_key_or_of_what_lacks_it(tmp_path):
    path = tmp_path / "launch.json"
    common = '"type": "debugpy", "request": "launch"'
    path.write_text(
        '{"inputs": [{"id": "x", "description": "Which one?"}],\n// c\n"configurations": [\n'
        f'{{"name": "args", {common}, "program": "p",\n"args": [\n"a",\n"${{input:x}}"]}},\n'
        f'{{"name": "none",\n{common}}},\n'
        f'{{"name": "env", {common}, "program": "p", "env": {{\n\n"A.B": 1}}}},\n'
        f'{{"name": "platform", {common}, "program": "p",\n"{PLATFORM}": {{"args":\n3}}}}\n]}}'
    )
    for name, where, hint in (
        ("args", 'line 7, configurations[0].args[1] = "${input:x}"', "Which one?"),
        ("none", "line 8, configurations[1].program = absent", "exactly one"),
        ("env", "line 12, configurations[2].env.A.B = (not shown)", "Write a string"),
        ("platform", f"line 14, configurations[3].{PLATFORM}.args = 3", "[ … ]"),
    ):
        configuration = find_configuration(read_launch_file(path), name)
        error = failure(resolve_configuration, Variables(configuration, tmp_path, {}), "p")
        assert error.where == f"{path}, {where}"
        assert hint in error.hint
    assert (
        failure(find_configuration, read_launch_file(path), "x").where
        == f"{path}, line 3, configurations[*].name"
    )


def test_broken_json_names_the_key():
    for text, where in (
        ('{"a": 1,\n"b": [0, {"c": tru}]}', "line 2, column 16, at or after b[1].c"),
        ('{"a": {"b": 1}\n"c": 2}', "line 2, column 1, at or after a"),
        ('{"a": {"b": 1, "b": 2}}', "line 1, column 8 and line 1, column 16, at or after a.b"),
        ("[1, 2, nul]", "line 1, column 8, at or after [2]"),
        ("nul", "line 1, column 1"),
    ):
        assert failure(parse_jsonc, text, "f").where == f"f, {where}"


def test_a_compound_is_no_configuration(tmp_path):
    body = {
        "configurations": [{"name": "a"}],
        "compounds": [{"name": "both", "configurations": ["a", {"name": "b", "folder": "f"}]}, 3, {}],
    }
    error = failure(find_configuration, read_launch_file(write(tmp_path, body)), "both")
    assert "compound" in error.what
    assert error.where == f"{tmp_path / 'launch.json'}, line 1, compounds"
    assert error.hint.split()[-2:] == ["a", "b"]
    for entries in (3, [{"name": "both", "configurations": 3}, {"name": "x"}]):
        file = read_launch_file(write(tmp_path, {**body, "compounds": entries}))
        assert ("compound" in failure(find_configuration, file, "both").what) is (entries != 3)


def test_unreadable_file_is_a_user_error(tmp_path):
    assert str(tmp_path / "none.json") in failure(read_launch_file, tmp_path / "none.json").where
    failure(read_launch_file, tmp_path)
    failure(read_launch_file, pathlib.Path("a\0b"))
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    assert "byte 7: 0xe9" in failure(read_launch_file, tmp_path / "latin.json").where


@pytest.mark.parametrize("kind", ["device", "pipe", "large", "link"])
def test_what_is_no_file_of_a_launch_files_size_is_not_read(tmp_path, kind):
    path = special(tmp_path, kind, MAX_BYTES)
    error = failure(read_launch_file, path)
    assert error.where == str(path)
    assert "cannot be read: It is " in error.what


def special(folder, kind, most, name="a.json"):
    path = folder / name
    if kind == "device":
        return pathlib.Path("/dev/zero")
    if kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with path.open("wb") as handle:
            handle.truncate(most + 1)
    return path


# --- what a configuration means ----------------------------------------------------------------------


def test_defaults(tmp_path):
    invocation = config(tmp_path, environ={"A": "1"})
    assert invocation == Invocation("python3", ("p.py",), (), {}, str(tmp_path))
    assert invocation.environment({"A": "1"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("keys", "target"),
    [
        ({"program": "-x/p.py"}, ("-x/p.py",)),
        ({"module": "a.b", "program": ...}, ("-m", "a.b")),
        ({"code": "print(1)\nprint(2)", "program": ...}, ("-c", "print(1)\nprint(2)")),
        ({"code": ["print(1)", "print(2)"], "program": ...}, ("-c", "print(1)\nprint(2)")),
    ],
)
def test_targets(tmp_path, keys, target):
    assert config(tmp_path, console="internalConsole", **keys).target == target


@pytest.mark.parametrize(
    ("keys", "python", "options"),
    [
        ({"python": "/a b/python"}, "/a b/python", ()),
        ({"pythonPath": "old"}, "old", ()),
        ({"python": "${command:python.interpreterPath}"}, "python3", ()),
        ({"pythonPath": "${command:python.interpreterPath}", "pythonArgs": ["-O"]}, "python3", ("-O",)),
        ({"python": ""}, "python3", ()),
        ({"python": None}, "python3", ()),
        ({"python": "${userHome}/python"}, "/home/u/python", ()),
        ({PLATFORM: {"python": "${env:HOME}/python"}}, "/home/u/python", ()),
        ({"python": "${env:HOME}", PLATFORM: {"python": "p"}}, "p", ()),
        ({PLATFORM: {"python": "${command:python.interpreterPath}"}}, "python3", ()),
        ({"pythonArgs": ["-O"]}, "python3", ("-O",)),
    ],
)
def test_interpreters(tmp_path, keys, python, options):
    invocation = config(tmp_path, environ={"HOME": "/home/u"}, **keys)
    assert (invocation.python, invocation.options) == (python, options)
    assert invocation.argv() == [python, *options, "p.py"]


def test_keys_that_only_concern_display_are_not_looked_at(tmp_path):
    shown = {
        "console": "${input:x}",
        "justMyCode": False,
        "presentation": {"group": 1},
        "purpose": ["x"],
        "preLaunchTask": "${defaultBuildTask}",
        "stopOnEntry": 3,
        "subProcess": True,
        "internalConsoleOptions": None,
        "sudo": False,
        "made up": "${file}",
        "autoStartBrowser": True,
        "django": True,
        "jinja": True,
        "gevent": True,
        "redirectOutput": False,
        "debugOptions": ["RedirectOutput"],
    }
    assert config(tmp_path, **shown) == config(tmp_path)


def test_variables(tmp_path):
    (tmp_path / "ws").mkdir()
    folder = str(tmp_path / "ws")
    args = [
        "${workspaceFolder}/x:${workspaceFolder}",
        "${workspaceFolderBasename}",
        "${userHome}",
        "a${pathSeparator}b${/}c",
        "${cwd}",
        "${env:SET}",
        "<${env:UNSET}>",
        "$HOME $ {} ${",
        "$${env:SET}",
        "${workspaceRoot}:${workspaceRootFolderName}:${workspaceFolder:ws}:${cwd:ws}",
    ]
    env = {"HOME": "/home/u", "SET": "${env:HOME}"}
    invocation = config(
        tmp_path,
        environ=env,
        workspace=tmp_path / "ws" / ".." / "ws",
        args=args,
        program="${workspaceFolder}/p.py",
        cwd="${workspaceFolder}/sub dir/",
        python="${workspaceFolder}/python",
    )
    assert invocation.args == (
        f"{folder}/x:{folder}",
        "ws",
        "/home/u",
        f"a{os.sep}b{os.sep}c",
        folder,
        "${env:HOME}",  # one pass
        "<>",
        "$HOME $ {} ${",
        "$${env:HOME}",
        f"{folder}:ws:{folder}:{folder}",
    )
    assert invocation.target == (f"{folder}/p.py",)
    assert invocation.cwd == f"{folder}/sub dir"
    assert invocation.python == f"{folder}/python"


def test_the_working_directory_is_the_folder_that_is_open(tmp_path):
    assert config(tmp_path).cwd == str(tmp_path)
    assert config(tmp_path, cwd=None, envFile=None) == config(tmp_path)
    assert config(tmp_path, workspace=pathlib.Path()).cwd == str(pathlib.Path.cwd())


@pytest.mark.parametrize("console", [..., "internalConsole", "externalTerminal"])
@pytest.mark.parametrize("cwd", ["", ".", "a/b", "~", "~/x", "${env:UNSET}x"])
def test_a_relative_working_directory_fails_in_vs_code(tmp_path, cwd, console):
    error = failure(config, tmp_path, cwd=cwd, console=console)
    assert f"configurations[1].cwd = {json.dumps(cwd)}" in error.where
    assert "${workspaceFolder}" in error.hint


def test_platform_keys_replace_the_general_ones(tmp_path):
    invocation = config(
        tmp_path,
        args=["general"],
        env={"A": "general", "B": "general"},
        **{
            PLATFORM: {"args": ["mine"], "env": {"A": "mine"}},
            OTHER_PLATFORM: {"args": ["${file}"], "program": 3},
        },
    )
    assert invocation.args == ("mine",)
    assert invocation.env == {"A": "mine"}
    error = failure(config, tmp_path, **{PLATFORM: {"args": ["a", "${file}"]}})
    assert f"configurations[1].{PLATFORM}.args[1]" in error.where
    assert f"configurations[1].{PLATFORM} = 3" in failure(config, tmp_path, **{PLATFORM: 3}).where


def test_environment(tmp_path):
    invocation = config(
        tmp_path,
        environ={"N": "NAME", "PATH": "/bin"},
        env={"BOTH": "own", "GONE": None, "OWN": "$own", "KEY_${pathSeparator}": "${workspaceFolder}"},
    )
    assert invocation.env == {"BOTH": "own", "GONE": None, "OWN": "$own", f"KEY_{os.sep}": str(tmp_path)}
    base = {"GONE": "base", "BOTH": "base", "KEPT": "base"}
    merged = invocation.environment(base)
    assert "GONE" not in merged
    assert (merged["BOTH"], merged["KEPT"]) == ("own", "base")
    assert base == {"GONE": "base", "BOTH": "base", "KEPT": "base"}


def test_an_environment_file_is_not_read(tmp_path):
    (tmp_path / ".env").write_text("A=1\n")
    assert config(tmp_path).env == {}
    assert config(tmp_path, envFile="").env == {}
    assert config(tmp_path, **{PLATFORM: {"envFile": "${env:UNSET}"}}).env == {}
    error = failure(config, tmp_path, envFile="${workspaceFolder}/.env")
    assert error.where.endswith('configurations[1].envFile = "${workspaceFolder}/.env"')
    assert '"env"' in error.hint
    assert "${env:NAME}" in error.hint


@pytest.mark.parametrize(
    ("own", "inherited", "expected"),
    [
        ({"PYTHONPATH": " "}, "/inh", {}),
        ({"PYTHONPATH": " own "}, " /inh ", {"PYTHONPATH": "own:/inh"}),
        ({"PYTHONPATH": "own"}, " ", {"PYTHONPATH": "own"}),
        ({"PYTHONPATH": "", "PATH": "\u00a0"}, "/inh", {}),
        ({"PYTHONPATH": "${env:UNSET}"}, "/inh", {}),
    ],
)
def test_what_is_blank_in_a_search_path(tmp_path, own, inherited, expected):
    environ = {"PYTHONPATH": inherited, "PATH": "/bin"}
    found = config(tmp_path, environ=environ, env=own).env
    assert found == {name: value.replace(":", os.pathsep) for name, value in expected.items()}


def test_search_paths_are_put_before_the_inherited_ones(tmp_path):
    environ = {"PYTHONPATH": "old", "PATH": "/bin"}
    invocation = config(tmp_path, environ=environ, env={"PYTHONPATH": "own", "PATH": " "})
    assert invocation.env == {"PYTHONPATH": os.pathsep.join(["own", "old"])}
    assert config(tmp_path, environ={}, env={"PATH": "x"}).env["PATH"] == "x"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"args": ["a", 384]}, ["args[1] = 384", 'Write "384"']),
        ({"args": ["a", True]}, ["args[1] = true", 'Write "true"']),
        ({"args": [None]}, ["args[0] = null"]),
        ({"args": {"a": "b"}}, ["args = {"]),
        ({"args": 3}, ["args = 3"]),
        ({"args": "a 'b"}, ["args = ", "list"]),
        ({"args": "a > b"}, ["args = ", "list"]),
        ({"args": "a b", "console": "internalConsole"}, ['args = "a b"', '"internalConsole"', "list"]),
        ({PLATFORM: {"args": "", "console": "internalConsole"}}, [f'{PLATFORM}.args = ""', "list"]),
        ({"args": ["a", "${cwd}/${userHome/x"]}, ["args[1]", "${userHome has no closing brace"]),
        ({"env": {"A": "${env:HOME"}}, ["env.A", "${env:HOME has no closing brace"]),
        ({"args": ["a\0"]}, ["args[0]", "NUL"]),
        ({"args": ["\ud800"]}, ["args[0]", "surrogate"]),
        ({"args": ["${command:pick}"]}, ["args[0]", "${command:pick}", "${env:NAME}"]),
        ({"args": ["${input:x}"]}, ["args[0]", "${input:x}"]),
        ({"args": ["${config:a.b}"]}, ["${config:a.b}"]),
        ({"args": ["${file}"]}, ["${file}", "editor"]),
        ({"args": ["${fileDirname}"]}, ["${fileDirname}", "editor"]),
        ({"args": ["${relativeFile}"]}, ["editor"]),
        ({"args": ["${fileWorkspaceFolder}"]}, ["editor"]),
        ({"args": ["${lineNumber}"]}, ["editor"]),
        ({"args": ["${selectedText}"]}, ["editor"]),
        ({"args": ["${execPath}"]}, ["Only VS Code", "${env:NAME}"]),
        ({"args": ["${defaultBuildTask}"]}, ["Only VS Code"]),
        ({"args": ["${env:A:B}"]}, ["${env:A:B}"]),
        ({"args": ["${cwd:other}"]}, ["only folder", "${cwd}"]),
        ({"args": ["${workspacefolder}"]}, ["Did you mean ${workspaceFolder}?"]),
        ({"args": ["${workspaceFolder:other}"]}, ["${workspaceFolder:other}"]),
        ({"args": ["${env:}"]}, ["${env:NAME}"]),
        ({"args": ["${env:${env:A}}"]}, ["${env:${env:A}"]),
        ({"args": ["${}"]}, ["${}", "${workspaceFolder}"]),
        ({"env": {"A": 1}}, ["env.A = (not shown)", "Write a string"]),
        ({"env": {"PATH": 1}}, ["env.PATH = 1", 'Write "1"']),
        ({"env": {"HF_HOME": False}}, ["env.HF_HOME = false", 'Write "false"']),
        ({"env": {"A": ["x"]}}, ["env.A"]),
        ({"env": {"A": "${nope}"}}, ["env.A", "${nope}"]),
        ({"env": {"A": "\0"}}, ["env.A", "NUL"]),
        ({"env": {"A=B": "x"}}, ["env = (not shown)", "'A='"]),
        ({"env": {"A_${env:A}": "x"}}, ["env.A_${env:A} = (not shown)", "cannot be the name"]),
        ({"env": {"": "x"}}, ["env."]),
        ({"env": {"-u": None}}, ["env.-u"]),
        ({"env": {"A\0": "x"}}, ["NUL"]),
        ({"env": ["A=1"]}, ["env = (not shown)"]),
        ({"env": {"PATH": None}}, ["env.PATH = null", "does not remove PATH"]),
        ({"env": {"PYTHONPATH": None}}, ["env.PYTHONPATH = null"]),
        ({"env": None}, ["env = null"]),
        ({"envFile": "none.env"}, ["envFile", "none.env", "no environment file"]),
        ({"args": "a ${env:A}"}, ['args = "a ${env:A}"', "list"]),
        ({"args": "a\tb"}, ['args = "a\\tb"', "A tab", "list"]),
        ({"args": "a b", "console": "externalTerminal"}, ['args = "a b"', "one word", "list"]),
        ({"args": "a", "program": "it's"}, ['program = "it', "shell"]),
        ({"envFile": 3}, ["envFile = 3"]),
        ({"cwd": 3}, ["cwd = 3"]),
        ({"cwd": "a\0"}, ["cwd", "NUL"]),
        ({"type": "node"}, ['type = "node"', "debugpy"]),
        ({"type": []}, ["type = []"]),
        ({"request": "attach"}, ['request = "attach"', "launch"]),
        ({"sudo": True}, ["sudo = true"]),
        ({"debugOptions": ["RedirectOutput", "Sudo"]}, ["debugOptions = ", 'Remove "Sudo"']),
        ({PLATFORM: {"type": "debugpy"}}, [f"{PLATFORM}.type", "Move it out"]),
        ({"code": [], "program": ...}, ["code = []"]),
        ({"code": 3, "program": ...}, ["code = 3"]),
        ({"module": "", "program": ...}, ['module = ""']),
        ({"module": "m"}, ["module", "exactly one"]),
        ({"program": ""}, ['program = ""']),
        ({"program": 3}, ["program = 3"]),
        ({"python": "a", "pythonPath": "b"}, ["pythonPath"]),
        ({"python": []}, ["python = []"]),
        ({"python": [""]}, ['python = [""]']),
        ({"python": "${command:pick}"}, ["python = ", "${command:pick}", f'of "{PLATFORM}"']),
        ({"python": "${env:HOME}/venv/bin/python"}, ["replaces ${env:HOME} by nothing", "${userHome}"]),
        ({"python": "${env.HOME}/venv/bin/python"}, ["replaces ${env.HOME} by nothing"]),
        ({"pythonPath": "${env:HOME}"}, ["pythonPath = ", "by nothing", f'of "{PLATFORM}"']),
        ({PLATFORM: {"python": ""}}, [f'{PLATFORM}.python = ""']),
        ({PLATFORM: {"python": None}}, [f"{PLATFORM}.python = null"]),
        ({PLATFORM: {"python": "${env:UNSET}"}}, [f"{PLATFORM}.python = ", "empty"]),
        ({PLATFORM: {"python": ["a"]}}, [f"{PLATFORM}.python = "]),
        ({PLATFORM: {"pythonPath": "x"}}, [f"{PLATFORM}.pythonPath = ", "passes over", 'Write "python"']),
        ({"python": "a", PLATFORM: {"pythonPath": "x"}}, [f"{PLATFORM}.pythonPath = ", 'Write "python"']),
        ({"python": ["a", "-O"]}, ['python = ["a", "-O"]', '"pythonArgs"']),
        ({"args": ["${env.HOME}"]}, ["${env.HOME} is no variable of VS Code", "Write ${env:NAME}"]),
        ({"args": ["${nope}"]}, ["${nope} is no variable of VS Code", "${env:NAME}"]),
        ({"python": "${nope}"}, ["${nope} is no variable of VS Code"]),
        ({"pythonArgs": "-O"}, ["pythonArgs"]),
    ],
)
def test_wrong_key_is_a_user_error(tmp_path, keys, words):
    error = failure(config, tmp_path, **keys)
    assert not [word for word in words if word not in str(error)], str(error)
    assert "configurations[1]." in error.where
    assert str(tmp_path / "launch.json") in error.where


@pytest.mark.parametrize("key", ["type", "request", "program"])
def test_missing_key_is_a_user_error(tmp_path, key):
    error = failure(config, tmp_path, **{key: ...})
    assert f"configurations[1].{key} = absent" in error.where


# --- running it --------------------------------------------------------------------------------------

CHILD = """
import json, os, sys
seen = {name: os.environ.get(name) for name in json.loads(os.environ["SEEN"])}
print(json.dumps([sys.argv, seen, os.getcwd(), sys.flags.optimize]))
"""


def run_both_ways(invocation, base):
    """Run the invocation without and with a shell; return what the program saw, which must be the same."""
    direct = subprocess.run(
        invocation.argv(),
        env=invocation.environment(base),
        cwd=invocation.cwd,
        stdout=subprocess.PIPE,
        check=True,
    )
    # Values that are not the kit's are not in the command: the shell it is pasted into has them.
    shell = subprocess.run(
        ["sh", "-c", invocation.shell()],
        env=invocation.environment(base),
        cwd=os.sep,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert json.loads(shell.stdout) == json.loads(direct.stdout)
    return json.loads(direct.stdout)


def base_environment(*seen):
    base = {"PATH": os.environ["PATH"], "SEEN": json.dumps(seen), "PYTHONUTF8": "1"}
    return {**base, "REMOVED": "inherited", "KEPT": "inherited", "SET": "inherited"}


@pytest.mark.parametrize("kind", ["program", "module", "code"])
def test_program_gets_what_the_file_says(tmp_path, kind):
    folder = tmp_path / "it's a $HOME\n模"
    folder.mkdir()
    (folder / "child_program.py").write_text(CHILD)
    target = {
        "program": {"program": "child_program.py"},
        "module": {"module": "child_program"},
        "code": {"code": CHILD.split("\n")},
    }[kind]
    variables = {f"NASTY{index}": value for index, value in enumerate(NASTY)}
    body = {
        "name": "n",
        "type": "python",
        "request": "launch",
        **target,
        "args": NASTY,
        "env": {**variables, "REMOVED": None, "SET": "own"},
        "cwd": "${workspaceFolder}/" + folder.name,
        "pythonArgs": ["-O"],
        "console": "internalConsole",
    }
    text = json.dumps({"configurations": [body]}, indent=2).replace('"args"', '/* c */ // d\n"args"')
    invocation = resolve_configuration(
        Variables(read_launch_file(write(tmp_path, text)).configurations[0], tmp_path, {}), sys.executable
    )
    base = base_environment(*variables, "REMOVED", "SET", "KEPT")
    argv, seen, cwd, optimize = run_both_ways(invocation, base)
    assert argv[1:] == NASTY
    assert seen == {**variables, "REMOVED": None, "SET": "own", "KEPT": "inherited"}
    assert cwd == str(folder.resolve())
    assert optimize == 1


def test_no_variables_and_an_equals_sign_in_the_interpreter(tmp_path):
    (tmp_path / "p.py").write_text(CHILD)
    base = base_environment("KEPT", "SET", "A.B")
    folder = tmp_path / "a=b"
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    for python in (sys.executable, str(folder / "python")):
        for env in ({}, {"SET": "a b"}, {"A.B": "x"}):
            args = ("${HOME}", "x y")
            invocation = dataclasses.replace(config(tmp_path), python=python, args=args, env=env)
            words, seen, *_ = run_both_ways(invocation, base)
            assert words == ["p.py", *args]
            assert seen == {"KEPT": "inherited", "SET": "inherited", "A.B": None, **env}


def test_shell_reads_well():
    invocation = Invocation(
        python="python3",
        target=("run_qa.py",),
        args=("squad", "--do_eval", "--stride", "128", "--layers", "1", "2", "last word"),
        env={"A": "1", "GONE": None, "B": "two words"},
        cwd="/work space",
    )
    assert invocation.shell() == (
        "cd '/work space' && \\\n"
        "env -u GONE \\\n"
        "  A=1 \\\n"
        "  'B=two words' \\\n"
        "  python3 run_qa.py \\\n"
        "  squad \\\n"
        "  --do_eval \\\n"
        "  --stride 128 \\\n"
        "  --layers 1 \\\n"
        "  2 \\\n"
        "  'last word'"
    )
