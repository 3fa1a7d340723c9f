"""An invocation under change: what runs, what the file said, and by which rule they differ."""

from dataclasses import replace

from launch.vscode.invocation import Invocation, Rewriter, format_parts

INVOCATION = Invocation(
    python="python",
    target=("run.py",),
    args=("--model", "large", "--fast", "--files", "a b", "c", "--seed=1", "--out", "/tmp/out"),
    env={"DEVICE": "1", "QUIET": None},
    cwd="/w",
    options=("-X", "dev"),
)


def rewriter(*args: str) -> Rewriter:
    return Rewriter(replace(INVOCATION, args=args) if args else INVOCATION)


def test_without_a_rule_the_invocation_is_the_files() -> None:
    found = rewriter()
    assert found.result() == INVOCATION
    assert not any(part.changed or part.rules for part in found.parts())
    words = [word for part in found.parts() for word in part.before]
    assert words == ["/w", "DEVICE=1", "-u", "QUIET", "python", "-X", "dev", "run.py", *INVOCATION.args]


def test_an_option_is_set_at_its_place_or_at_the_end() -> None:
    found = rewriter()
    found.set("--model", "small", "smaller")
    found.set("--new", "x", "added")
    assert found.result().args == ("--model", "small", *INVOCATION.args[2:], "--new", "x")
    parts = found.parts()
    assert [(part.before, part.after, part.rules) for part in parts if part.changed] == [
        (("--model", "large"), ("--model", "small"), ["smaller"]),
        ((), ("--new", "x"), ["added"]),
    ]


def test_setting_what_is_there_already_is_no_change() -> None:
    found = rewriter()
    found.set("--model", "large", "same")
    found.set_variable("DEVICE", "1", "same")
    found.cwd.change(("/w",), "same")
    found.set_python("python", "same")
    found.target.change(("run.py",), "same")
    assert found.result() == INVOCATION
    assert not any(part.rules for part in found.parts())


def test_an_option_is_dropped_with_all_its_values_and_a_missing_one_is_no_matter() -> None:
    found = rewriter()
    found.drop("--files", "fewer")
    found.drop("--none", "fewer")
    assert found.result().args == ("--model", "large", "--fast", "--seed=1", "--out", "/tmp/out")
    assert [part.before for part in found.parts() if part.changed] == [("--files", "a b", "c")]
    assert not found.has("--files")
    assert found.value("--files") is None


def test_a_flag_is_added_once() -> None:
    found = rewriter()
    found.flag("--fast", "faster")
    found.flag("--faster", "faster")
    found.flag("--faster", "again")
    assert found.result().args == (*INVOCATION.args, "--faster")


def test_a_value_is_found_in_either_form() -> None:
    found = rewriter()
    assert (found.value("--model"), found.value("--seed"), found.value("--files")) == ("large", "1", "a b")
    assert found.has("--seed")
    assert found.has("--fast")
    assert found.value("--fast") is None
    assert found.value("--see") is None
    found.set("--seed", "2", "SEED")
    assert found.result().args[6:8] == ("--seed", "2")
    found.drop("--seed", "none")
    assert not found.has("--seed")


def test_of_an_option_given_twice_the_last_counts() -> None:
    found = rewriter("--seed", "1", "--fast", "--seed", "2")
    assert found.value("--seed") == "2"
    found.set("--seed", "3", "SEED")
    assert found.result().args == ("--seed", "1", "--fast", "--seed", "3")
    found.drop("--seed", "none")
    assert found.result().args == ("--fast",)


def test_every_word_and_every_variable_is_mapped() -> None:
    found = rewriter("first", "--a", "x/1", "--b=x/2")
    found.set_variable("LIST", "x:x", "before")
    found.map_words(lambda word: word.replace("x", "y"), "moved")
    result = found.result()
    assert result.args == ("first", "--a", "y/1", "--b=y/2")
    assert result.env == {"DEVICE": "1", "QUIET": None, "LIST": "y:y"}
    assert [part.rules for part in found.parts() if part.changed] == [
        ["before", "moved"],
        ["moved"],
        ["moved"],
    ]


def test_variables_are_set_and_dropped() -> None:
    found = rewriter()
    assert (found.variable("DEVICE"), found.variable("QUIET"), found.variable("NEW")) == ("1", None, None)
    found.set_variable("DEVICE", "", "no device")
    found.set_variable("QUIET", "1", "quiet")
    found.set_variable("NEW", "x", "new")
    assert found.result().env == {"DEVICE": "", "QUIET": "1", "NEW": "x"}
    found.drop_variable("DEVICE", "any device")
    found.drop_variable("NONE", "any device")
    assert found.result().env == {"QUIET": "1", "NEW": "x"}
    assert found.variable("DEVICE") is None
    found.set_variable("DEVICE", "2", "second")
    assert found.result().env["DEVICE"] == "2"
    assert found.env["DEVICE"].before == ("DEVICE=1",)
    assert found.env["DEVICE"].rules == ["no device", "any device", "second"]


def test_interpreter_program_and_folder_are_set_and_the_interpreters_options_stay() -> None:
    found = rewriter()
    found.set_python("/venv/python", "kit's")
    found.target.change(("-m", "run"), "module")
    found.cwd.change(("/elsewhere",), "elsewhere")
    result = found.result()
    assert (result.python, result.options, result.target, result.cwd) == (
        "/venv/python",
        ("-X", "dev"),
        ("-m", "run"),
        "/elsewhere",
    )
    assert result.args == INVOCATION.args


def test_several_rules_on_one_part_are_told_in_their_order_and_the_file_stays_as_it_was() -> None:
    found = rewriter()
    found.set("--model", "small", "first")
    found.drop("--files", "no files")
    found.set("--model", "tiny", "second")
    part = found.args[0]
    assert (part.before, part.after, part.rules) == (
        ("--model", "large"),
        ("--model", "tiny"),
        ["first", "second"],
    )


def test_an_option_that_was_dropped_is_set_anew_at_the_end() -> None:
    found = rewriter("--a", "1", "--b", "2")
    found.drop("--a", "gone")
    found.set("--a", "3", "back")
    assert found.result().args == ("--b", "2", "--a", "3")


def test_the_table_shows_the_file_the_run_and_the_rule() -> None:
    found = rewriter("--model", "a b", "--fast", "--old", "1")
    found.set("--model", "c", "first")
    found.set("--model", "d", "second")
    found.drop("--old", "too old")
    found.set("--new", "1", "newer")
    found.set("--gone", "1", "in")
    found.drop("--gone", "out")
    found.drop_variable("DEVICE", "any device")
    assert format_parts(found.parts()).splitlines() == [
        "cwd     /w",
        "env     DEVICE=1",
        "  runs  (left out)",
        "  rule  any device",
        "env     -u QUIET",
        "python  python -X dev",
        "program run.py",
        "args    --model 'a b'",
        "  runs  --model d",
        "  rule  first; then second",
        "args    --fast",
        "args    --old 1",
        "  runs  (left out)",
        "  rule  too old",
        "args    (not in the file)",
        "  runs  --new 1",
        "  rule  newer",
    ]


def test_the_activated_environment_of_type_python_is_named() -> None:
    for body, told in (
        ({"type": "python", "python": "p"}, True),
        ({"type": "python"}, False),
        ({"type": "debugpy", "python": "p"}, False),
    ):
        found = rewriter("a")
        found.as_written({**body, "args": ["a"]}, str)
        assert ("type    python" in format_parts(found.parts())) is told
        assert ("VIRTUAL_ENV and PATH" in format_parts(found.parts())) is told
