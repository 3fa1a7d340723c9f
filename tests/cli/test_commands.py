"""Make targets, commands and help are one list; and what a person may type is read well or refused well."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, Dict, Set, Tuple

import pytest

from launch import cli
from launch.build import convert, preflight, rules
from launch.cli import COMMANDS, OPTIONS
from launch.core import child, paths
from launch.core.errors import KitError
from launch.model import model_folder, variants
from launch.qa.arguments import HEADS
from launch.share import compare, package
from launch.sources import source

from .. import sample_trees
from ..conftest import HYBRID, Kit, assert_user_error, call, processor_seconds, run

MAKE = ["make", "--no-print-directory"]
PYTHON = [sys.executable, "-m", "launch"]


def phony() -> Set[str]:
    database = run([*MAKE, "--print-data-base", "--question", "help"]).stdout
    return set(re.findall(r"^\.PHONY: (.*)$", database, re.M)[0].split())


def test_every_target_is_a_command_and_every_command_a_target() -> None:
    assert phony() == set(COMMANDS)
    dry = run([*MAKE, "--dry-run", *COMMANDS]).stdout
    assert dry == "".join(f"./launch/kit.sh '{name}'\n" for name in COMMANDS)


def test_every_option_is_a_commands() -> None:
    assert {name for command in COMMANDS.values() for name in command.options} == set(OPTIONS)


@pytest.fixture
def told(tmp_path: Path) -> Callable[..., Dict[str, str]]:
    """A function that returns the ``LAUNCH_`` variables which make hands to the kit."""
    shutil.copy(str(paths.REPOSITORY / "Makefile"), str(tmp_path))
    script = tmp_path / "launch/kit.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nexec env -0\n")
    script.chmod(0o755)

    def call(*words: str, **environment: str) -> Dict[str, str]:
        env = {**os.environ, **environment}
        done = run([*MAKE, "-C", str(tmp_path), *words], env=env)
        assert done.returncode == 0, done.stderr
        pairs = (line.partition("=") for line in done.stdout.split("\0"))
        return {name: value for name, _, value in pairs if name.startswith("LAUNCH_")}

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
    shell = {name.upper(): "the shell's" for name in OPTIONS}
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
            ("SEED means nothing to make report", "takes OUT, TO, TRAINED, PYTHON", "make all, variant"),
        ),
        ("report LAUNCH_SEED=3", ("SEED means nothing to make report",)),
        ("all fast=secret", ("There is no variable fast", "make all fast=\n", "Did you mean 'FAST'?")),
        ("all OTU=secret", ("There is no variable OTU", "make all OTU=\n", "Did you mean 'OUT'?")),
        (
            "report modle=secret",
            ("There is no variable modle", "Did you mean 'MODEL'?", "takes OUT, TO, TRAINED, PYTHON"),
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
def test_make_refuses_what_its_targets_do_not_take(told, words: str, parts: Tuple[str, ...]) -> None:
    targets = [word for word in words.split() if "=" not in word]
    done = call([*targets, "help"][:1], {**os.environ, **told(*words.split())})
    assert_user_error(done, *parts)
    assert "secret" not in done.stderr
    assert done.stdout == ""


def test_make_ends_as_the_command_does() -> None:
    assert_user_error(run([*MAKE, "varient", "V=secret"]), "no command 'varient'", "make varient\n")


def test_with_predictions_nothing_is_taken_that_is_not_used(told) -> None:
    words = ["evaluate", "--predictions=p.json", "--validation-file=v.json"]
    values = {"input": "sample", "source": "registry", "fast": "1", "launch": str(paths.LAUNCH_FILE)}
    for name in sorted({*COMMANDS["evaluate"].options} - {"predictions", "validation_file", "python"}):
        flag = f"--{name.replace('_', '-')}={values.get(name, '1')}"
        assert_user_error(call([*words, flag]), f"{name.upper()} has no meaning with PREDICTIONS")
    for word in ("SOURCE=auto", "LAUNCH_SOURCE=fork"):
        made = told("evaluate", "PREDICTIONS=p.json", "VALIDATION_FILE=v.json", word)
        assert_user_error(call(["evaluate"], {**os.environ, **made}), "SOURCE has no meaning")
    # What is exported is for other commands, too.
    assert_user_error(
        call(words, {**os.environ, "LAUNCH_SOURCE": "registry"}), "VALIDATION_FILE=", "does not exist"
    )


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
    done = call(["help"], {**os.environ, **exported})
    assert (done.returncode, done.stdout) == (0, cli.write_help() + "\n")
    assert done.stderr == (
        "note: LAUNCH_EDITOR in the environment is no variable of the kit.\n"
        "note: LAUNCH_FATS in the environment is no variable of the kit. Did you mean 'LAUNCH_FAST'?\n"
    )


def test_the_helps_name_every_command_and_every_variable() -> None:
    made, overview = cli.write_help(), cli.write_overview()
    for name, command in COMMANDS.items():
        assert re.search(rf"^  make {name}( \S+)* +{re.escape(command.summary)}$", made, re.M)
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", overview, re.M)
    for name in OPTIONS:
        assert re.search(rf"^  {name.upper()}=\S* +\w", made, re.M)
    assert max(map(len, (made + overview).splitlines())) <= 115


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_commands_help(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse_words([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    command = COMMANDS[name]
    assert shown.startswith(f"usage: python -m launch {name}")
    assert command.summary[1:] in " ".join(shown.split())
    flat = " ".join(shown.split())
    assert f" {name}: " not in flat  # it need not say which command it is of
    for option in command.options:
        assert f"--{option.replace('_', '-')} " in shown
        assert f"{option.upper()}=" in shown
        default = command.options[option].otherwise or command.options[option].shown
        assert f"default: {default})" in flat or not default
    assert str(paths.REPOSITORY) not in shown
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_example_is_one(name: str) -> None:
    _, _, examples = COMMANDS[name].help
    assert examples
    for example in examples:
        words = shlex.split(example.split("|")[0])
        assert words[0] == name
        given = cli.parse_words(words)
        assert given is not None
        assert given.command == name


@pytest.mark.parametrize("name", list(COMMANDS))
def test_the_example_for_make_is_the_first_of_the_others(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, target, *words = shlex.split(cli.write_for_make(COMMANDS[name].help[2][0]))
    assert (made, target) == ("make", name)
    expected = vars(cli.parse_words(shlex.split(COMMANDS[name].help[2][0])))
    typed = expected.pop("typed")
    assert sorted(typed) == sorted(word.partition("=")[0].lower() for word in words)
    for word in words:
        variable, _, value = word.partition("=")
        assert value
        monkeypatch.setenv(f"LAUNCH_{variable}", value)
    found = vars(cli.parse_words([name]))
    assert found.pop("typed") == []
    assert {**found, "argv": expected["argv"]} == expected


def test_what_a_command_needs_is_marked_and_asked_for(capsys: pytest.CaptureFixture) -> None:
    required = {name: command.required for name, command in COMMANDS.items() if command.required}
    assert required == {
        **{name: ["v"] for name in ("variant", "command", "package")},
        **{name: ["p"] for name in ("patch-edit", "patch-export")},
        "compare": ["a", "b"],
    }
    for name, needed in required.items():
        with pytest.raises(SystemExit):
            cli.parse_words([name, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        for option in COMMANDS[name].options:
            assert (f"({option.upper()}=; required)" in shown) == (option in needed)
        done = call([name])
        assert_user_error(done, f"{needed[0].upper()}=")


def test_help_and_command_are_fast() -> None:
    for words in (["help"], ["command", f"--v={HYBRID}"]):
        assert processor_seconds([*PYTHON, *words]) < 0.6  # torch alone takes seconds to import


def test_help_loads_nothing_of_what_the_commands_do() -> None:
    code = (
        "import sys; sys.argv = ['launch', *sys.argv[1:]]; import runpy\n"
        "try: runpy.run_module('launch', run_name='__main__')\n"
        "except SystemExit: print(sorted(name for name in sys.modules if name.startswith('launch.')))"
    )
    for words in (["all", "--help"], ["help"]):
        loaded = run([sys.executable, "-c", code, *words]).stdout.splitlines()[-1]
        assert "'launch.cli'" in loaded
        for name in (
            "build.jobs",
            "setup.environment",
            "share.package",
            "artifact.provenance",
            "build.pipeline",
        ):
            assert (paths.PACKAGE / f"{name.replace('.', '/')}.py").is_file()
            assert f"'launch.{name}'" not in loaded


def test_the_words_to_choose_from_are_those_that_are_acted_on() -> None:
    acted_on = {
        "input": rules.KINDS,
        "source": source.KINDS,
        "mo": tuple(convert.OPTIMIZERS),
        "level": compare.LEVELS,
        "format": package.FORMATS,
        "heads": HEADS,
    }
    for command in COMMANDS.values():
        for name, words in acted_on.items():
            option = command.options.get(name, OPTIONS[name])
            chosen = [word for word in option.value.split("|") if word[0] != "<"]
            assert chosen == list(words)
            assert option.default in ("", words[0])
    assert OPTIONS["weights"].value.split("|")[0] == model_folder.RANDOM
    assert convert.DEFAULT.name == OPTIONS["mo"].default
    assert set(cli._OTHERS) == {preflight.IGNORE_MEMORY, child.STATUS_FD}


def test_products_are_in_the_checkout_wherever_a_command_is_given(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(paths.REPOSITORY)}
    code = "from launch import cli; print(cli.parse_words(['all']).out)"
    printed = run([sys.executable, "-c", code], tmp_path, env).stdout
    assert printed == f"{paths.REPOSITORY / 'gen_hybrid_sparse'}\n"
    given = cli.parse_words(["package"])
    assert given is not None
    assert (given.out, given.to) == (
        str(paths.REPOSITORY / "gen_hybrid_sparse"),
        str(paths.REPOSITORY / "packages"),
    )
    script = run([str(paths.PACKAGE / "kit.sh"), "help"], tmp_path)
    assert script.stdout == call(["help"]).stdout


@pytest.mark.parametrize(
    ("name", "value"), [("PYTHONSAFEPATH", "1"), ("PYTHONINSPECT", "1"), ("PYTHONHOME", "/nope")]
)
def test_pythons_own_variables_stop_no_command(name: str, value: str) -> None:
    done = run(MAKE, env={**os.environ, name: value})
    assert (done.returncode, done.stdout) == (0, cli.write_help() + "\n"), done.stderr


def test_nothing_and_help_print_the_commands() -> None:
    assert run(PYTHON).stdout == call(["--help"]).stdout == cli.write_overview() + "\n"
    assert run(MAKE).stdout == call(["help"]).stdout == cli.write_help() + "\n"


def test_a_wrong_command_line_is_a_user_error() -> None:
    assert_user_error(call(["evalute"]), "evalute", "Did you mean 'evaluate'?")
    assert_user_error(call(["xyz"]), "patch-export")
    assert_user_error(call(["all", "--outt", "x"]), "--outt", "python -m launch all --help")
    assert_user_error(call(["all", "--ou", "x"]), "--ou")
    assert_user_error(call(["all", "--out"]), "--out", "expected one argument")
    assert_user_error(call(["clean", "all"]), "all")


@pytest.mark.parametrize("name", list(COMMANDS))
def test_each_command_refuses_as_a_process(name: str) -> None:
    done = run([*PYTHON, name, "--nope"])
    assert_user_error(done, "unrecognized arguments: --nope", f"python -m launch {name} --help")


def test_a_name_without_its_option_is_met_with_it() -> None:
    for name in ("variant", "command", "package", "verify"):
        done = call([name, HYBRID])
        assert_user_error(done, f"unrecognized arguments: {HYBRID}", f"python -m launch {name} --v {HYBRID}")
    assert "--v" not in call(["command", "--nope"]).stderr
    assert "--v" not in call(["clean", HYBRID]).stderr


def test_help_on_a_command_is_the_commands_help() -> None:
    assert call(["help", "command"]).stdout == call(["command", "--help"]).stdout != ""
    assert_user_error(call(["help", "comand"]), "Did you mean 'command'?")


def test_options_default_to_the_variables_that_make_exports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_OUT", "from make")
    monkeypatch.setenv("LAUNCH_TRAIN_FILE", "")
    given = cli.parse_words(["all", "--seed", "3"])
    assert given is not None
    assert (given.out, given.train_file, given.seed, given.input) == ("from make", "", "3", "sample")
    given = cli.parse_words(["all", "--out", "own"])
    assert given is not None
    assert given.out == "own"


@pytest.mark.parametrize("exported", ["", "from make"])
def test_an_option_given_as_empty_is_not_given(monkeypatch: pytest.MonkeyPatch, exported: str) -> None:
    for name in ("OUT", "SEED"):
        monkeypatch.setenv(f"LAUNCH_{name}", exported)
    given = cli.parse_words(["all", "--out", "", "--seed=", "--fast="])
    assert given is not None
    assert (given.out, given.seed) == (exported or str(paths.REPOSITORY / "gen_hybrid_sparse"), exported)
    assert given.fast == "1"
    given = cli.parse_words(["command", "--explain=", "--v", HYBRID])
    assert given is not None
    assert (given.explain, given.v) == ("0", HYBRID)


@pytest.mark.parametrize("text", ["0", "no", "No", "false", "FALSE", " 0 "])
def test_explain_no(text: str) -> None:
    assert not cli.is_yes(text, "explain")


@pytest.mark.parametrize("text", ["1", "yes", "True"])
def test_explain_yes(text: str) -> None:
    assert cli.is_yes(text, "explain")


@pytest.mark.parametrize("text", ["2", "on please", "y", "-", ""])
def test_explain_neither(text: str) -> None:
    with pytest.raises(KitError) as caught:
        cli.is_yes(text, "explain")
    assert caught.value.where == f"EXPLAIN={text}"
    assert "1, yes, true" in caught.value.hint


def test_explain_is_on_or_off_or_an_error(kit: Kit) -> None:
    words = ["command", "--v", HYBRID, "--launch", str(kit.launch_file)]
    plain = call(words).stdout
    assert plain.startswith("cd ")
    assert call([*words, "--explain=no"]).stdout == plain
    explained = call([*words, "--explain"]).stdout
    assert explained.startswith(f"{HYBRID!r} in ")
    assert call([*words, "--explain", "yes"]).stdout == explained
    wrong = call([*words, "--explain=maybe"])
    assert_user_error(wrong, "EXPLAIN=maybe")
    assert wrong.stdout == ""


def test_the_test_commands_tell_pytest_which_tests(tmp_path) -> None:
    """Pytest runs for real, on a file of its own; the kit's tests do not run the kit's tests."""
    file = tmp_path / "test_inner.py"
    file.write_text(
        "import os, pytest\n"
        "@pytest.mark.forks\ndef test_forks(): pass\n"
        "@pytest.mark.long\ndef test_long(): assert os.environ['KIT_CASES'] == '500'\n"
        "def test_other(): assert False\n"
    )
    code = "import sys; from launch import cli; cli._pytest(cli.parse_words(sys.argv[1:]))"
    quick = ["-c", str(paths.REPOSITORY / "pyproject.toml"), "-W", "ignore", "-n", "0"]
    quick += ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    for command, code_of_exit, summary in (
        ("test", 1, "1 failed, 2 deselected"),
        ("test-long", 0, "1 passed, 2 deselected"),
        ("test-forks", 0, "1 passed, 2 deselected"),
    ):
        done = run([sys.executable, "-c", code, command, "--", str(file), *quick])
        assert (done.returncode, summary in done.stdout.splitlines()[-1]) == (code_of_exit, True), done.stdout


# --- the environment's Python ----------------------------------------------------------------------------

ANOTHER = str(Path(sys.base_prefix, "bin", "python3"))
"""A Python without the environment's libraries."""


def test_another_python_becomes_the_environments(tmp_path: Path) -> None:
    """With the same words, in the same folder; and what was told before is not told again."""
    sample_trees.write(tmp_path / "out", variants.find_variant(HYBRID))
    env = {**os.environ, "LAUNCH_FATS": "1", "PYTHONPATH": str(paths.REPOSITORY), "PYTHONINSPECT": "1"}
    more = {"cwd": str(tmp_path), "capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
    assert subprocess.run([ANOTHER, "-c", "import jinja2"], check=False, **more).returncode != 0
    words = ["report", "--out", "out", "--to", "the page.html"]
    done = subprocess.run([ANOTHER, "-m", "launch", *words], env=env, check=False, **more)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("LAUNCH_FATS") == 1
    assert (tmp_path / "the page.html").is_file()
    assert "report  the page.html  (" in done.stdout


def test_a_command_starts_over_once_at_most() -> None:
    environment = {**os.environ, "LAUNCH_ENTERED": "1"}
    done = run([ANOTHER, "-m", "launch", "compare", "--a=launch", "--b=launch"], env=environment)
    assert_user_error(done, "There is no tree in this folder")  # before anything is entered
    tree = paths.PACKAGE / "model" / "hub.json"
    words = ["compare", f"--a={tree}", f"--b={tree}"]
    done = run([ANOTHER, "-m", "launch", *words], env=environment)
    assert_user_error(done, "does not run in the environment", "make setup")


def test_the_environments_python_stays_what_it_is(capsys: pytest.CaptureFixture) -> None:
    tree = str(paths.PACKAGE / "model" / "hub.json")
    assert cli.main(["compare", "--a", tree, "--b", tree]) == 0
    assert capsys.readouterr().out == "hub: same bytes (1 file)\n"
