"""Nothing of the person leaves the machine: no value of a variable that is not the kit's own, no path."""

import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Dict, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.artifact import trees
from launch.build import jobs, rules, upstream
from launch.core import child, files, hidden, paths
from launch.model.variants import VARIANTS
from launch.sources.source import Fork, Registry
from launch.vscode.launch_file import parse_jsonc, read_launch_file

from ..conftest import HYBRID, Kit, assert_user_error, call, copy_checkout, run

PLANTED = {
    name: f"planted-{name}-3f9c"
    for name in ("file", "literal", "referred", "argument", "exported", "path", "home", "search")
}
"""Values of a person's, by how they come to the kit."""

EXPORTED = {
    "PLANTED_REFERRED": PLANTED["referred"],
    "PLANTED_ARGUMENT": PLANTED["argument"],
    "PLANTED_HOME": PLANTED["home"],
    "PLANTED_EXPORTED": PLANTED["exported"],
    "PYTHONPATH": f"/{PLANTED['search']}",
    "PATH": os.pathsep.join([os.environ["PATH"], f"/{PLANTED['path']}"]),
}


def plant(kit: Kit, **env: str) -> None:
    """Give the small variant's entry variables and arguments with values of a person's."""
    document = parse_jsonc(kit.launch_file.read_text(encoding="utf-8"), "f").value
    (entry,) = (entry for entry in document["configurations"] if entry["name"] == HYBRID)
    entry["env"].update(
        HF_TOKEN=PLANTED["literal"],
        TOKEN_TOO="${env:PLANTED_REFERRED}",
        HF_HOME="${workspaceFolder}/build/cache/${env:PLANTED_HOME}",
        **env,
    )
    entry["args"] += ["--model_revision", "${env:PLANTED_ARGUMENT}"]
    kit.launch_file.write_text(json.dumps(document), encoding="utf-8")


def disclosed(text: str) -> List[str]:
    """Return which of the planted values, or plain digests of them, are in ``text``."""
    return [
        name
        for name, value in PLANTED.items()
        if value in text or files.hashlib.sha256(value.encode()).hexdigest()[:12] in text
    ]


def everything_below(folder: Path) -> Dict[str, str]:
    """Return the texts of all files below a folder, those in archives too."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix in (".tar", ".gz", ".xz", ".zst"):
            with tarfile.open(str(path)) as archive:
                for member in archive:
                    handle = archive.extractfile(member)
                    found[f"{path.name}:{member.name}"] = handle.read().decode("latin-1") if handle else ""
        elif path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
    return found


def test_an_environment_file_is_passed_over(kit: Kit) -> None:
    """One in the checkout, where VS Code reads it."""
    clone = copy_checkout(kit.folder / "clone")
    text = f"HF_TOKEN={PLANTED['file']}\nPLANTED_EXPORTED={PLANTED['file']}\n"
    (clone / ".env").write_text(text)
    plant(kit)
    for explain in ("0", "1"):
        done = run(kit.argv("command", HYBRID, explain=explain), cwd=clone, env={**os.environ, **EXPORTED})
        assert done.returncode == 0, done.stderr
        assert "note: VS Code reads .env, and make does not" in done.stderr
        assert disclosed(done.stdout + done.stderr) == []


def test_no_file_and_no_line_has_a_persons_value(built: Kit, kit: Kit) -> None:
    """Of a launch file that was edited in all ways: with values, with a path elsewhere, and with a seed."""
    plant(kit, WANDB_DISABLED=str(kit.folder / "some" / "where"))
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace('"--seed", "42"', '"--seed", "43"'), encoding="utf-8")
    env = {**os.environ, **EXPORTED}
    said = ""
    for argv in (
        kit.argv("command", HYBRID),
        kit.argv("command", HYBRID, explain=1),
        kit.argv("variant", HYBRID),
        kit.argv("variant", HYBRID),
        [*kit.MODULE, "report", f"--out={kit.out}", f"--to={kit.folder / 'report'}"],
        [*kit.MODULE, "package", f"--v={HYBRID}", f"--out={kit.out}", f"--to={kit.folder / 'packages'}"],
    ):
        done = run(argv, env=env)
        assert done.returncode == 0, done.stderr
        assert disclosed(done.stdout + done.stderr) == []
        said += done.stdout + done.stderr
    assert 'HF_TOKEN="${HF_TOKEN:?' in said
    assert 'TOKEN_TOO="${PLANTED_REFERRED}"' in said
    assert '--model_revision "${PLANTED_ARGUMENT}"' in said
    assert said.count("(up to date)") == 1, "a key is compared as it is recorded, without paths and values"
    kit.launch_file.unlink()  # the person's own
    texts = {**everything_below(kit.folder), **everything_below(paths.BUILD / "log")}
    assert any("report" in name for name in texts)
    assert any("packages" in name or ".tar" in name for name in texts)
    assert {name: disclosed(text) for name, text in texts.items() if disclosed(text)} == {}
    found = trees.read_provenance(kit.tree(HYBRID))
    assert found["onnx_key"]["environment"]["WANDB_DISABLED"].startswith("${elsewhere}/where (")
    assert str(kit.folder) not in json.dumps(found)
    for name in (f"{HYBRID}-8bit.onnx", f"ir/{HYBRID}-8bit.bin"):
        assert (kit.tree(HYBRID) / name).read_bytes() != (built.tree(HYBRID) / name).read_bytes()
    command = found["command"]
    assert command["environment"]["WANDB_DISABLED"] == "${elsewhere}/where"
    assert command["environment"]["HF_TOKEN"] == "(not shown)"
    assert command["environment"]["TOKEN_TOO"] == "${env:PLANTED_REFERRED}"
    assert command["environment"]["PATH"] == "${venv}/bin:${env:PATH}"
    assert "${env:PLANTED_ARGUMENT}" in command["argv"]


def load(kit: Kit, monkeypatch: pytest.MonkeyPatch, **changed: str) -> jobs.TreeJob:
    for name, value in {**EXPORTED, **changed}.items():
        monkeypatch.setenv(name, value)
    selection = rules.Selection()
    return jobs.load_tree(str(kit.launch_file), VARIANTS[HYBRID], selection, Registry())


def test_the_values_reach_the_program_and_count(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(kit)
    job = load(kit, monkeypatch)
    key = jobs.make_onnx_key(job)
    environment = job.invocation.environment({})
    assert environment["HF_TOKEN"] == PLANTED["literal"]
    assert environment["TOKEN_TOO"] == PLANTED["referred"]
    assert environment["HF_HOME"] == f"{paths.REPOSITORY}/build/cache/{PLANTED['home']}"
    assert environment["PYTHONPATH"].endswith(f":/{PLANTED['search']}")
    assert job.arguments.model_revision == PLANTED["argument"]
    assert disclosed(json.dumps(key)) == []
    assert jobs.make_onnx_key(load(kit, monkeypatch)) == key
    for name in ("PLANTED_REFERRED", "PLANTED_ARGUMENT", "PYTHONPATH"):
        assert jobs.make_onnx_key(load(kit, monkeypatch, **{name: "another value"})) != key, name
    for name in ("PLANTED_EXPORTED", "PLANTED_HOME", "PATH"):
        assert jobs.make_onnx_key(load(kit, monkeypatch, **{name: "another value"})) == key, name
        monkeypatch.setenv(name, EXPORTED[name])
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace(PLANTED["literal"], "another value"), encoding="utf-8")
    assert jobs.make_onnx_key(load(kit, monkeypatch)) != key


def test_a_digest_that_is_published_needs_the_checkouts_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_KEY", tmp_path / "build" / "one")
    first = files.digest_with_key("1234")
    assert files.digest_with_key("1234") == first != files.digest_with_key("1235")
    assert (tmp_path / "build" / "one").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["one"]
    monkeypatch.setattr(files, "_KEY", tmp_path / "build" / "two")
    assert files.digest_with_key("1234") != first


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"HF_TOKEN": 3917}, ["env.HF_TOKEN = (not shown)"]),
        ({"HF_TOKEN": [PLANTED["literal"]]}, ["env.HF_TOKEN = (not shown)"]),
        ({"HF_TOKEN": PLANTED["literal"] + "\0"}, ["env.HF_TOKEN = (not shown)"]),
        ({"HF_TOKEN": PLANTED["literal"] + "${nope}"}, ["env.HF_TOKEN = (not shown)", "${nope}"]),
        ({"HF_TOKEN": "${env:A " + PLANTED["literal"]}, ["env.HF_TOKEN = (not shown)", "no closing brace"]),
        ({"HF_TOKEN=" + PLANTED["literal"]: ""}, ["configurations[0].env = ", "'HF_TOKEN='"]),
        ([f"HF_TOKEN={PLANTED['literal']}"], ["env = (not shown)"]),
        ({"linux": {"env": {"HF_TOKEN": 3917}}}, ["linux.env.HF_TOKEN = (not shown)"]),
    ],
)
def test_no_error_shows_a_persons_value(tmp_path: Path, env: object, words: List[str]) -> None:
    body = {"name": HYBRID, "type": "debugpy", "request": "launch", "program": "p.py", "env": env}
    if isinstance(env, dict) and "linux" in env:
        body.update(env)
        del body["env"]
    file = tmp_path / "launch.json"
    file.write_text(json.dumps({"configurations": [body]}), encoding="utf-8")
    done = call(["command", f"--v={HYBRID}", f"--launch={file}", "--source=registry"])
    assert_user_error(done, *words)
    assert disclosed(done.stderr) == []
    assert "3917" not in done.stderr


def test_an_error_about_a_path_shows_the_reference(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    text = text.replace('"${workspaceFolder}/launch/configs/nncf.json"', '"/${env:PLANTED_HOME}/nncf.json"')
    text = text.replace('"--seed", "42"', '"--model_revision", "${env:PLANTED_ARGUMENT}", "--seed", "42"')
    kit.launch_file.write_text(text, encoding="utf-8")
    folder = kit.folder / PLANTED["home"]
    folder.mkdir()
    os.mkfifo(str(folder / "nncf.json"))
    env = {**os.environ, **EXPORTED, "PLANTED_HOME": str(folder).lstrip("/")}
    done = kit.run("variant", HYBRID, env=env)
    assert_user_error(done, "--nncf_config=/${env:PLANTED_HOME}/nncf.json\n")
    assert disclosed(done.stderr) == []


@pytest.mark.parametrize("option", ["--seed", "--max_seq_length", "--do_eval"])
def test_what_is_published_does_not_come_from_a_variable(kit: Kit, option: str) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    text = text.replace('"--do_eval"', f'"--do_eval", "{option}", "${{env:PLANTED_NUMBER}}"')
    kit.launch_file.write_text(text, encoding="utf-8")
    number = "true" if option == "--do_eval" else "391"
    done = kit.run("variant", HYBRID, env={**os.environ, "PLANTED_NUMBER": number})
    assert_user_error(done, "${env:PLANTED_NUMBER}", "Write it out")
    assert "391" not in done.stderr


def test_the_kits_variables_are_those_that_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for configuration in read_launch_file(paths.LAUNCH_FILE).configurations:
        found |= set(configuration.body.get("env", {}))
    threads = 1000  # more than there are cores, so that the variables for that are set, too
    for name in (*VARIANTS, "configs", "evaluate"):
        for source in (Registry(), Fork()):
            job = jobs.load_job(str(paths.LAUNCH_FILE), name, rules.Selection(threads=threads), source)
            found |= {variable for variable, value in job.invocation.env.items() if value is not None}
    if upstream.third_party.is_checked_out(upstream.third_party.find_fork("transformers")):
        for name in (HYBRID, "configs", "evaluate"):
            found |= set(upstream.rewrite_upstream(name, Fork()).result().env)
    else:
        found.add("TORCH_DISTRIBUTED_DEBUG")
    assert found == hidden.OWN


def test_what_a_program_prints_of_its_variables_leaves_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "_values", {})
    value = hidden.hide_variable("PLANTED_PRINTED", "planted-in-print")
    log = tmp_path / "program.log"
    code = "import os; print('seen', os.environ['PLANTED_PRINTED'])"
    child.run_child(
        [sys.executable, "-c", code],
        env={**os.environ, "PLANTED_PRINTED": str(value)},
        cwd=tmp_path,
        log=log,
        what="a program",
        tick=lambda step: None,
    )
    assert log.read_text().splitlines()[1:] == ["seen ${env:PLANTED_PRINTED}"]


R, V = paths.REPOSITORY, paths.VENV


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{R}", "${workspaceFolder}"),
        (f"{R}/launch/sample/train.json", "${workspaceFolder}/launch/sample/train.json"),
        (f"{V}/bin/python", "${venv}/bin/python"),
        (f"{V}/bin:/usr/bin:", "${venv}/bin:${elsewhere}/bin:"),
        (f"{R}/a:{R}", "${workspaceFolder}/a:${workspaceFolder}"),
        (f"--output_dir={R}/build", "--output_dir=${workspaceFolder}/build"),
        (f"-I{R}/a -I/opt/b", "-I${workspaceFolder}/a -I${elsewhere}/b"),
        (f"'evaluate' in {R}/launch.json", "'evaluate' in ${workspaceFolder}/launch.json"),
        # Others that begin or end like it.
        (f"{R}-old/x.json", "${elsewhere}/x.json"),
        (f"{R}.old/x.json", "${elsewhere}/x.json"),
        (f"/mnt{R}/x.json", "${elsewhere}/x.json"),
        ("/mnt/my models/BERT, large/", "${elsewhere}/BERT, large"),
        ("'evaluate' in /mnt/my files/launch.json", "'evaluate' in ${elsewhere}/launch.json"),
        ("--model=/mnt/x", "--model=${elsewhere}/x"),
        ("/mnt/a:b/c", "${elsewhere}/c"),
        ("//mnt//x", "${elsewhere}/x"),
        ("file:///mnt/x", "file://${elsewhere}/x"),
        ("file:/mnt/x", "file:${elsewhere}/x"),
        ('{"folder": "/mnt/x"}', '{"folder": "${elsewhere}/x"}'),
        ("one /a/b\ntwo /c/d", "one ${elsewhere}/b\ntwo ${elsewhere}/d"),
        (str(Path.home()), "${userHome}"),
        (f"{Path.home()}/x", "${elsewhere}/x"),
    ],
)
def test_folders_are_named_and_other_paths_left_out(text: str, expected: str) -> None:
    assert hidden.remove_paths(text) == expected
    assert not hidden.shows_path(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "42",
        "squad",
        "launch/qa",
        "../x/y",
        "https://host/a/b",
        "12 / 24",
        "int8/float",
        "${x}/y",
        "~/x",
    ],
)
def test_what_is_no_absolute_path_stays(text: str) -> None:
    assert hidden.remove_paths(text) == text
    assert not hidden.shows_path(text)


PIECES = [
    *(str(R), str(V), str(Path.home()), "/tmp/x", "${x}", "file:", "https:", " ", "\n", "\u00e4"),
    *["/", "//", ":", "=", "-I", "--a", "'", "(", "}", "a", ".", "-", "~", ",", "\\"],
    '"',
]


@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_nothing_of_a_path_but_its_end_is_left(text: str) -> None:
    short = hidden.remove_paths(text)
    assert not hidden.shows_path(short)
    assert hidden.remove_paths(short) == short


def test_a_folder_is_named_by_both_its_paths(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    folders = {"<outer>": tmp_path, "<link>": tmp_path / "link"}
    text = f"{tmp_path}/disk/a {tmp_path}/link/b {tmp_path}/c"
    assert hidden.name_folders(text, folders) == "<link>/a <link>/b <outer>/c"
