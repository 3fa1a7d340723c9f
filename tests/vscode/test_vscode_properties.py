"""Whatever a launch file holds: an invocation, or an error that names file, line and key; never a traceback.

Each property is tried on some hundred cases; ``KIT_CASES=10000 python -m launch test <this file>`` tries
more.
"""

import contextlib
import json
import pathlib
import re
import shlex
import subprocess
import tempfile

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from launch.build import jobs, rules
from launch.core import hidden, paths
from launch.core.errors import KitError
from launch.sources.source import Registry
from launch.vscode.launch_file import (
    PLATFORM,
    find_configuration,
    parse_jsonc,
    parse_launch_file,
    read_launch_file,
)
from launch.vscode.resolve import Variables, resolve_configuration

from ..conftest import HYBRID

cases = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

SAMPLES = tempfile.TemporaryDirectory()
SOURCE = "some folder/launch.json"
ENVIRONMENT = {"HOME": "/home/u", "PATH": "/bin", "SET": "a ${env:SET} b"}


def check(text):
    """Read ``text`` and resolve every configuration in it; return how many became invocations."""
    lines = text.count("\n") + 1
    try:
        file = parse_launch_file(text, SOURCE)
    except KitError as error:
        check_error(error, lines, "")
        return 0
    made = 0
    for index, configuration in enumerate(file.configurations):
        assert find_configuration(file, configuration.name) is configuration
        try:
            invocation = resolve_configuration(
                Variables(configuration, pathlib.Path("/nowhere/at all"), ENVIRONMENT), "python3"
            )
        except KitError as error:
            check_error(error, lines, f", configurations[{index}].")
        else:
            made += 1
            words = [*invocation.argv(), *(value for value in invocation.env.values() if value is not None)]
            assert all(b"\0" not in word.encode("utf-8", "surrogateescape") for word in words)
            assert all(invocation.argv()[:1])
            # shlex does not know lines that go on in the next one; in a word the same two characters go too.
            shell = invocation.shell().replace("\\\n", "")
            if "$(printenv" in shell:
                continue  # quotes within quotes, which shlex does not know either
            printed = shlex.split(shell)
            argv = [as_printed(word) for word in invocation.argv()]
            assert printed[1] == as_printed(invocation.cwd)
            assert printed[-len(argv) :] == argv
    with contextlib.suppress(KitError):
        find_configuration(file, "no such name")
    return made


def as_printed(word):
    """Return what shlex makes of a printed word: it expands no variable."""
    return hidden.REFERENCE.sub(r"${\1}", hidden.show_word(word)).replace("\\\n", "")


def check_error(error, lines, key, file=SOURCE):
    assert error.what
    assert error.hint
    place = re.search("^" + re.escape(file) + r", line (\d+)", error.where, re.M)
    assert place, error.where
    assert 1 <= int(place.group(1)) <= lines
    assert key in error.where


# --- texts ---------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        *("{", "}", "[", "]", ":", ",", '"', "\\", "//", "/*", "*/", "\n", "\r", "\t", " ", "\ufeff", "\0"),
        *("\ud800", "null", "true", "1e999", "NaN", "-", "0", "${", "$", "'"),
        *('"configurations"', '"name"', '"a"', '"args"'),
    ]
)
ANY_TEXT = st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=2)), max_size=40).map("".join))


@cases
@given(ANY_TEXT)
@example("\ufeff1")
@example('"' + "\\")
@example("")
def test_any_text(text):
    check(text)


@cases
@given(ANY_TEXT)
def test_any_text_where_a_configuration_should_be(text):
    check('{"configurations": [\n' + text + "\n]}")
    check('{"configurations": [{"name": "n",' + text + "}]}")


@cases
@given(
    st.one_of(st.integers(0, 300), st.sampled_from([999, 1000, 5000])),
    st.sampled_from(["[", '{"a":', '[1, {"b": [', "/**/[\n"]),
    st.booleans(),
    st.data(),
)
def test_any_depth(depth, opening, closed, data):
    closing = "".join({"[": "]", "{": "}"}[mark] for mark in reversed(opening) if mark in "[{")
    inside = data.draw(st.sampled_from(["1", '"x"', "", "null,"]))
    value = opening * depth + inside + (closing * depth if closed else "")
    check(value)
    check(
        '{"configurations": [{"name": "n", "type": "debugpy", "request": "launch", "program": "p",\n'
        f'"args": {value}, "env": {{"A": {value}}}}}]}}'
    )


# --- structures ----------------------------------------------------------------------------------------

REFERENCES = st.sampled_from(
    [
        *("${workspaceFolder}", "${env:SET}", "${env:}", "${file}", "${input:x}", "${command:a.b}"),
        *("${config:a}", "${", "${}", "${nope}", "${cwd:x}", "$", "\0", "\ud800", "/a b/", "\n", "'", '"'),
        *("=", "-"),
    ]
)
STRINGS = st.one_of(
    st.text('/*",\\\n]}a ', max_size=12),
    st.text(max_size=8),
    st.lists(REFERENCES, min_size=1, max_size=3).map("".join),
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), STRINGS
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(STRINGS, inner, max_size=4)),
    max_leaves=12,
)
COMMENTS = st.sampled_from(["", " ", "\n", "// ,] } \" ' /* \n", '/* \n // " , ] */', "/**/", "\t/*a*/ "])


@st.composite
def commented(draw, value):
    """A value as JSON with comments and trailing commas."""
    plain = json.dumps(value, indent=draw(st.sampled_from([None, 1])))
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[][{}:,]|[^][{}:,"\s]+', plain)
    text = [draw(COMMENTS)]
    for previous, token in zip(["", *tokens], tokens):
        if token in ("]", "}") and previous not in ("[", "{") and draw(st.booleans()):
            text.append("," + draw(COMMENTS))
        text.append(token + draw(COMMENTS))
    return "".join(text)


@cases
@given(VALUES, st.data())
def test_commented_json_reads_as_the_plain_one(value, data):
    assert parse_jsonc(data.draw(commented(value)), "f").value == value


@cases
@given(VALUES, st.data())
def test_any_json_with_comments(value, data):
    check(data.draw(commented(value)))
    check(data.draw(commented({"configurations": value, "inputs": value, "compounds": value})))


KEYS = [
    *("args", "env", "cwd", "program", "module", "code", "python", "pythonPath", "pythonArgs", "envFile"),
    *("sudo", "type", "request", "debugOptions", "linux", "osx", "windows", "console", "name"),
]
WORDS = st.one_of(STRINGS, st.text(max_size=6), VALUES)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "args": st.one_of(st.lists(WORDS, max_size=4), WORDS),
        "env": st.one_of(st.dictionaries(WORDS.filter(lambda word: isinstance(word, str)), WORDS), WORDS),
        "cwd": WORDS,
        "python": st.one_of(st.lists(WORDS, max_size=3), WORDS),
        "pythonArgs": st.one_of(st.lists(WORDS, max_size=3), WORDS),
        PLATFORM: st.dictionaries(st.sampled_from(KEYS), WORDS, max_size=3),
    },
)


@cases
@given(BODIES, st.dictionaries(st.sampled_from(KEYS), WORDS, max_size=2), st.data())
def test_any_configuration(body, more, data):
    whole = {"name": "n", "type": "debugpy", "request": "launch", "program": "p", **body, **more}
    check(data.draw(commented({"configurations": [{"name": "first"}, whole]})))


# --- the real launch file, damaged -----------------------------------------------------------------------

LAUNCH = paths.LAUNCH_FILE.read_text(encoding="utf-8")


def test_the_real_launch_file_is_whole():
    assert check(LAUNCH) == len(read_launch_file(paths.LAUNCH_FILE).configurations) > 5


@cases
@given(st.data())
def test_the_real_launch_file_with_changes(data):
    text = LAUNCH
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.sampled_from([0, 1, 2, 10, 100, 3000])))
        put = data.draw(st.one_of(PIECES, REFERENCES, st.just(text[start:end] * 2), st.text(max_size=4)))
        text = text[:start] + put + text[end:]
    check(text)


@cases
@given(st.data())
def test_the_real_launch_file_with_other_values(data):
    value = parse_jsonc(LAUNCH, "f").value
    for _ in range(data.draw(st.integers(1, 3))):
        inside = value["configurations"][data.draw(st.integers(0, len(value["configurations"]) - 1))]
        key = data.draw(st.sampled_from([*inside, *KEYS]))
        if isinstance(inside.get(key), dict) and inside[key] and data.draw(st.booleans()):
            inside = inside[key]
            key = data.draw(st.sampled_from(list(inside)))
        inside[key] = data.draw(WORDS)
    check(json.dumps(value, indent=2))


# --- what make command makes of it --------------------------------------------------------------------

PLAIN = st.lists(
    st.sampled_from(["a", "b c", "${env:SET}", "${workspaceFolder}", "/x", "é"]), min_size=1, max_size=3
).map("".join)
ENOUGH = ["--model_name_or_path", "m", "--output_dir", "o", "--do_eval", "--train_file", "t"]
OPTIONS = ["--seed", "--seed=7", "42", "--to_onnx", "--gen_sparse_cfg", "--nncf_config", "--do_eval"]
QA_WORDS = st.builds(
    lambda first, more: [*first, *more],
    st.sampled_from([ENOUGH, ENOUGH, []]),
    st.lists(st.one_of(st.sampled_from(OPTIONS), PLAIN), max_size=3),
)
FOLDERS = st.sampled_from(["${workspaceFolder}/launch/qa/", "launch/qa/../qa/", "/opt/"])
PROGRAMS = st.sampled_from(["run_qa.py", "gen_hybrid_sparse_qa.py", "answers.py"])
TARGETS = st.one_of(
    st.builds(lambda folder, name: {"program": folder + name}, FOLDERS, PROGRAMS),
    st.builds(lambda folder, name: {"program": folder + name}, FOLDERS, PROGRAMS),
    st.fixed_dictionaries({"module": PLAIN}),
    st.fixed_dictionaries({"code": st.one_of(PLAIN, st.lists(PLAIN, min_size=1))}),
)
READABLE = st.fixed_dictionaries(
    {},
    optional={
        "env": st.dictionaries(PLAIN, st.one_of(st.none(), PLAIN), max_size=3),
        "pythonArgs": st.lists(PLAIN, max_size=2),
        PLATFORM: st.fixed_dictionaries({"args": QA_WORDS}),
    },
)


@cases
@given(
    st.sampled_from(["mine", "mine", "evaluate", "configs", HYBRID]),
    TARGETS,
    st.one_of(QA_WORDS, QA_WORDS.map(" ".join)),
    READABLE,
    st.sampled_from([rules.Selection(), rules.Selection(seed=7)]),
)
def test_any_configuration_is_a_run_a_job_or_an_error(name, target, args, body, selection):
    whole = {"name": name, "type": "debugpy", "request": "launch", "cwd": "${workspaceFolder}"}
    text = json.dumps({"configurations": [{**whole, **body, **target, "args": args}]}, indent=2)
    path = pathlib.Path(SAMPLES.name, "any.json")
    path.write_text(text, encoding="utf-8")
    try:
        found = jobs.run_of(str(path), name, selection, Registry())
    except KitError as error:
        check_error(error, text.count("\n") + 1, ", configurations[0].", str(path))
        return
    assert isinstance(found, jobs.Job) or name == "mine"
    assert found.explain().startswith(f"{name!r} in ")
    # What no rule changed stands in the table as in the file, or was substituted.
    assert all(part.before or part.rules or part.what in ("python", "cwd") for part in found.parts)


# --- a string of arguments -------------------------------------------------------------------------------

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@cases
@given(st.one_of(PRINTABLE, st.text("ab '\"\\$\n!`", max_size=12)))
@example('a\\ b "c d" \'e $f\' g\\"h "\\\\ \\x" i=j')
def test_args_in_one_string_are_what_a_shell_makes_of_them(text):
    body = {"name": "n", "type": "debugpy", "request": "launch", "program": "p", "args": text}
    try:
        args = resolve_configuration(
            Variables(
                parse_launch_file(json.dumps({"configurations": [body]}), "f").configurations[0],
                pathlib.Path(),
                {},
            ),
            "p",
        ).args
    except KitError:
        return
    script = f'show() {{ for word; do printf "%s\\0" "$word"; done; }}; show {text}'
    printed = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout.decode()
    assert tuple(printed.split("\0")[:-1]) == args
