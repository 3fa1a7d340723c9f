"""Make targets, commands and help are one list; and what a person may type is read well or refused well."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Callable, Dict, Set, Tuple

import pytest

from launch import choices, handlers, help, optimizers, options, paths
from launch.commands import COMMANDS, OPTIONS
from launch.errors import KitError
from launch.source import KINDS

from .conftest import HYBRID, Kit, assert_user_error, processor_seconds, run

MAKE = ["make", "--no-print-directory"]
PYTHON = [sys.executable, "-m", "launch"]


def phony() -> Set[str]:
    database = run([*MAKE, "--print-data-base", "--question", "help"]).stdout
    return set(re.findall(r"^\.PHONY: (.*)$", database, re.M)[0].split())


def test_every_target_is_a_command_and_every_command_a_target() -> None:
    assert phony() == set(COMMANDS)
    assert {*handlers._handlers("", Namespace()), "help"} == set(COMMANDS)
    for name in COMMANDS:
        assert run([*MAKE, "--dry-run", name]).stdout == f"./launch/kit.sh '{name}'\n"


def test_every_option_is_a_commands() -> None:
    assert {name for command in COMMANDS.values() for name in command.options} == set(OPTIONS)


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Dict[str, str]]:
    """A function that returns the ``LAUNCH_`` variables which make hands to the kit."""
    shutil.copy(str(paths.REPOSITORY / "Makefile"), str(tmp_path))
    script = tmp_path / "launch/kit.sh"
    script.parent.mkdir()
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    script.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -c {shlex.quote(program)}\n")
    script.chmod(0o755)

    def call(*words: str, **environment: str) -> Dict[str, str]:
        env = {**os.environ, **environment}
        done = run([*MAKE, "-C", str(tmp_path), *words], env=env)
        assert done.returncode == 0, done.stderr
        return {name: value for name, value in json.loads(done.stdout).items() if name.startswith("LAUNCH_")}

    return call


VALUES = [
    "",
    "two  words ",
    'it\'s "quoted"',
    "$$HOME `id`",
    "a#b;c&d|e\\",
    "one\ntwo\n",
    "V=x OUT=y",
    "模型\t",
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_on_makes_command_line_reaches_the_command_as_it_is(told, value: str) -> None:
    plain = value.replace("$$", "$")
    expected = {"LAUNCH_OUT": plain, "LAUNCH_MAKE": "all OUT=", "LAUNCH_SOURCE": "registry"}
    for words in (
        ["all", f"OUT={value}"],
        ["-j2", "all", f"OUT={value}"],
        [f"LAUNCH_OUT={value}", "-e", "all"],
    ):
        given = told(*words, V="shell", OUT="shell", LAUNCH_OUT="exported")
        assert {**given, "LAUNCH_MAKE": given["LAUNCH_MAKE"].replace("LAUNCH_", "")} == expected


def test_only_what_is_exported_as_the_kits_is_taken_from_the_shell(told) -> None:
    shell = {options.variable(name): "the shell's" for name in OPTIONS}
    for words in (["all"], ["-e", "all"]):
        assert told(*words, **shell) == {"LAUNCH_MAKE": "all ", "LAUNCH_SOURCE": "registry"}
    exported = {f"LAUNCH_{name}": f"exported {name}" for name in shell}
    assert told("all", "SEED=3", **shell, **exported) == {
        **exported,
        "LAUNCH_SEED": "3",
        "LAUNCH_MAKE": "all SEED=",
    }


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (
            "clean V=secret",
            ("V means nothing to make clean", "make clean V=\n", "no variables", "make variant"),
        ),
        (
            "report SEED=3",
            ("SEED means nothing to make report", "takes OUT, TO, PYTHON", "make all, variant"),
        ),
        ("report LAUNCH_SEED=3", ("SEED means nothing to make report",)),
        ("all fast=secret", ("There is no variable fast", "make all fast=\n", "Did you mean 'FAST'?")),
        ("all OTU=secret", ("There is no variable OTU", "make all OTU=\n", "Did you mean 'OUT'?")),
        (
            "report modle=secret",
            ("There is no variable modle", "Did you mean 'MODEL'?", "takes OUT, TO, PYTHON"),
        ),
        ("all HF_TOKEN=secret", ("There is no variable HF_TOKEN", "make all takes OUT,")),
        (f"V={HYBRID}", ("V means nothing to make help", "make variant")),
        ("varient V=secret", ("no command 'varient'", "make varient\n", "Did you mean 'variant'?")),
        ("tests", ("no command 'tests'", "Did you mean 'test'?")),  # a folder's name
        (HYBRID, (f"no command '{HYBRID}'", f"make variant V={HYBRID}")),
        ("configs confgs", ("no command 'confgs'", "Did you mean 'configs'?")),
        ("configs report FATS=secret", ("There is no variable FATS", "make configs report FATS=\n")),
    ],
)
def test_make_refuses_what_its_targets_do_not_take(words: str, parts: Tuple[str, ...]) -> None:
    done = run([*MAKE, *words.split()])
    assert_user_error(done, *parts)
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_a_variable_may_be_for_another_target_of_the_same_call(kit: Kit) -> None:
    done = run([*MAKE, "help", "command", f"V={HYBRID}", f"LAUNCH={kit.launch_file}"])
    assert (done.returncode, done.stderr) == (0, "")
    assert f"launch/configs/{HYBRID}/config.json" in done.stdout


def test_an_exported_variable_that_no_command_knows_is_told() -> None:
    exported = {
        "LAUNCH_FATS": "secret",
        "LAUNCH_SEED": "3",
        "LAUNCH_IGNORE_MEMORY": "1",
        "LAUNCH_EDITOR": "secret",
    }
    for words in ([*MAKE, "help"], [*PYTHON, "help"]):
        done = run(words, env={**os.environ, **exported})
        assert (done.returncode, done.stdout) == (0, help.text() + "\n")
        assert done.stderr == (
            "note: LAUNCH_EDITOR in the environment is no variable of the kit.\n"
            "note: LAUNCH_FATS in the environment is no variable of the kit. Did you mean 'LAUNCH_FAST'?\n"
        )


def test_the_helps_name_every_command_and_every_variable() -> None:
    made, overview = help.text(), options.overview()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  make {name}( \S+)* +{re.escape(command.summary)}$", made, re.M)
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", overview, re.M)
    for name in OPTIONS:
        assert re.search(rf"^  {name.upper()}=\S* +\w", made, re.M)
    assert max(map(len, (made + overview).splitlines())) <= 115


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_commands_help(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        options.parse([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    command = COMMANDS[name]
    assert shown.startswith(f"usage: python -m launch {name}")
    assert command.summary[1:] in " ".join(shown.split())
    flat = " ".join(shown.split())
    assert f" {name}: " not in flat  # it need not say which command it is of
    for option in command.options:
        assert f"--{option.replace('_', '-')} " in shown
        assert f"{options.variable(option)}=" in shown
        default = command.option(option).otherwise or command.option(option).shown
        assert f"default: {default})" in flat or not default
    assert str(paths.REPOSITORY) not in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_example_is_one(name: str) -> None:
    assert COMMANDS[name].examples
    for example in COMMANDS[name].examples:
        words = shlex.split(example.split("|")[0])
        assert words[0] == name
        command, given = options.parse(words)
        assert command == name
        assert given is not None


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_example_for_make_is_the_first_of_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, target, *words = shlex.split(options.as_make(COMMANDS[name].examples[0]))
    assert (made, target) == ("make", name)
    expected = vars(options.parse(shlex.split(COMMANDS[name].examples[0]))[1] or Namespace())
    for word in words:
        variable, _, value = word.partition("=")
        assert value
        monkeypatch.setenv(f"LAUNCH_{variable}", value)
    assert vars(options.parse([name])[1] or Namespace()) == expected


def test_what_a_command_needs_is_marked_and_asked_for(capsys: pytest.CaptureFixture) -> None:
    required = {name: command.required for name, command in COMMANDS.items() if command.required}
    assert required == {
        **{name: ["v"] for name in ("variant", "command", "package")},
        **{name: ["p"] for name in ("patch-edit", "patch-export")},
        "compare": ["a", "b"],
    }
    for name, needed in required.items():
        with pytest.raises(SystemExit):
            options.parse([name, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        for option in COMMANDS[name].options:
            assert (f"({options.variable(option)}=; required)" in shown) == (option in needed)
        done = run([*PYTHON, name])
        assert_user_error(done, f"{options.variable(needed[0])}=")


def test_help_and_command_are_fast() -> None:
    for words in (["--help"], ["all", "--help"], ["help"], ["command", f"--v={HYBRID}"]):
        assert processor_seconds([*PYTHON, *words]) < 0.3


def test_help_loads_nothing_of_what_the_commands_do() -> None:
    code = (
        "import sys; sys.argv = ['launch', *sys.argv[1:]]; import runpy\n"
        "try: runpy.run_module('launch', run_name='__main__')\n"
        "except SystemExit: print(sorted(name for name in sys.modules if name.startswith('launch.')))"
    )
    for words in (["--help"], ["all", "--help"], ["help", "all"], ["help"]):
        loaded = run([sys.executable, "-c", code, *words]).stdout.splitlines()[-1]
        assert "'launch.commands'" in loaded
        for name in ("jobs", "handlers", "package", "provenance", "pipeline"):
            assert f"'launch.{name}'" not in loaded


def test_the_words_to_choose_from_are_those_that_are_acted_on() -> None:
    assert choices.SOURCES == KINDS
    assert tuple(optimizers.OPTIMIZERS) == choices.OPTIMIZERS
    assert choices.OPTIMIZERS[0] == optimizers.DEFAULT.name


def test_products_are_in_the_checkout_wherever_a_command_is_given(tmp_path: Path) -> None:
    elsewhere = {"cwd": str(tmp_path), "capture_output": True, "text": True, "check": False}
    env = {**os.environ, "PYTHONPATH": str(paths.REPOSITORY)}
    code = "from launch import options; print(options.parse(['all'])[1].out)"
    printed = subprocess.run([sys.executable, "-c", code], env=env, **elsewhere).stdout
    assert printed == f"{paths.REPOSITORY / 'gen_hybrid_sparse'}\n"
    given = options.parse(["package"])[1]
    assert given is not None
    assert (given.out, given.to) == (
        str(paths.REPOSITORY / "gen_hybrid_sparse"),
        str(paths.REPOSITORY / "packages"),
    )
    script = subprocess.run([str(paths.PACKAGE / "kit.sh"), "help"], **elsewhere)
    assert script.stdout == run([*PYTHON, "help"]).stdout


@pytest.mark.parametrize(
    ("name", "value"), [("PYTHONSAFEPATH", "1"), ("PYTHONINSPECT", "1"), ("PYTHONHOME", "/nope")]
)
def test_pythons_own_variables_stop_no_command(name: str, value: str) -> None:
    done = run(MAKE, env={**os.environ, name: value})
    assert (done.returncode, done.stdout) == (0, help.text() + "\n"), done.stderr


def test_nothing_and_help_print_the_commands() -> None:
    assert run(PYTHON).stdout == run([*PYTHON, "--help"]).stdout == options.overview() + "\n"
    assert run(MAKE).stdout == run([*PYTHON, "help"]).stdout == help.text() + "\n"


def test_a_wrong_command_line_is_a_user_error() -> None:
    assert_user_error(run([*PYTHON, "evalute"]), "evalute", "Did you mean 'evaluate'?")
    assert_user_error(run([*PYTHON, "xyz"]), "patch-export")
    assert_user_error(run([*PYTHON, "all", "--outt", "x"]), "--outt", "python -m launch all --help")
    assert_user_error(run([*PYTHON, "all", "--ou", "x"]), "--ou")
    assert_user_error(run([*PYTHON, "all", "--out"]), "--out", "expected one argument")
    assert_user_error(run([*PYTHON, "clean", "all"]), "all")


def test_a_name_without_its_option_is_met_with_it() -> None:
    for name in ("variant", "command", "package", "verify"):
        done = run([*PYTHON, name, HYBRID])
        assert_user_error(done, f"unrecognized arguments: {HYBRID}", f"python -m launch {name} --v {HYBRID}")
    assert "--v" not in run([*PYTHON, "command", "--nope"]).stderr
    assert "--v" not in run([*PYTHON, "clean", HYBRID]).stderr


def test_help_on_a_command_is_the_commands_help() -> None:
    assert run([*PYTHON, "help", "command"]).stdout == run([*PYTHON, "command", "--help"]).stdout != ""
    assert_user_error(run([*PYTHON, "help", "comand"]), "Did you mean 'command'?")


def test_options_default_to_the_variables_that_make_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_OUT", "from make")
    monkeypatch.setenv("LAUNCH_TRAIN_FILE", "")
    given = options.parse(["all", "--seed", "3"])[1]
    assert given is not None
    assert (given.out, given.train_file, given.seed, given.input) == ("from make", "", "3", "sample")
    given = options.parse(["all", "--out", "own"])[1]
    assert given is not None
    assert given.out == "own"


@pytest.mark.parametrize("exported", ["", "from make"])
def test_an_option_given_as_empty_is_not_given(monkeypatch: pytest.MonkeyPatch, exported: str) -> None:
    for name in ("OUT", "SEED"):
        monkeypatch.setenv(f"LAUNCH_{name}", exported)
    given = options.parse(["all", "--out", "", "--seed=", "--fast="])[1]
    assert given is not None
    assert (given.out, given.seed) == (exported or str(paths.REPOSITORY / "gen_hybrid_sparse"), exported)
    assert given.fast == "1"
    given = options.parse(["command", "--explain=", "--v", HYBRID])[1]
    assert given is not None
    assert (given.explain, given.v) == ("0", HYBRID)


@pytest.mark.parametrize("text", ["0", "no", "No", "false", "FALSE", " 0 "])
def test_explain_no(text: str) -> None:
    assert not options.is_yes(text, "explain")


@pytest.mark.parametrize("text", ["1", "yes", "True"])
def test_explain_yes(text: str) -> None:
    assert options.is_yes(text, "explain")


@pytest.mark.parametrize("text", ["2", "on please", "y", "-", ""])
def test_explain_neither(text: str) -> None:
    with pytest.raises(KitError) as caught:
        options.is_yes(text, "explain")
    assert caught.value.where == f"EXPLAIN={text}"
    assert "1, yes, true" in caught.value.hint


def test_explain_is_on_or_off_or_an_error(kit: Kit) -> None:
    command = [*MAKE, "command", f"V={HYBRID}", f"LAUNCH={kit.launch_file}"]
    plain = run(command).stdout
    assert plain.startswith("cd ")
    assert run([*command, "EXPLAIN=0"]).stdout == plain
    assert run([*command, "EXPLAIN=1"]).stdout.startswith(f"{HYBRID!r} in ")
    wrong = run([*command, "EXPLAIN=maybe"])
    assert "EXPLAIN=maybe" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert wrong.stdout == ""
    words = [*PYTHON, "command", "--v", HYBRID, "--launch", str(kit.launch_file)]
    assert run([*words, "--explain"]).stdout == run([*words, "--explain", "yes"]).stdout != plain
    assert run([*words, "--explain=no"]).stdout == plain


def test_the_test_commands_tell_pytest_which_tests(tmp_path) -> None:
    """Pytest runs for real, on a file of its own; the kit's tests do not run the kit's tests."""
    file = tmp_path / "test_inner.py"
    file.write_text("import pytest\n@pytest.mark.forks\ndef test_forks(): pass\ndef test_other(): pass\n")
    code = "import sys; from launch import upkeep; upkeep.pytest(sys.argv[1], sys.argv[2:])"

    def summary(command: str) -> str:
        argv = [sys.executable, "-c", code, command, str(file), "-p", "no:cacheprovider", "-W", "ignore"]
        done = run(argv)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert "1 passed, 1 deselected" in summary("test")
    assert "1 passed, 1 deselected" in summary("test-forks")
    assert "2 passed" in summary("test-fast")
    file.write_text("def test_fails(): assert False\n")
    assert run([sys.executable, "-c", code, "test", str(file), "-p", "no:cacheprovider"]).returncode == 1
