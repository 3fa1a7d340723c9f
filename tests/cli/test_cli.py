"""What the commands print and change, and every error on one screen."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from launch import cli
from launch.core import paths
from launch.core.errors import KitError
from launch.core.files import hold_lock
from launch.model import variants
from launch.qa import compress
from launch.qa.arguments import Arguments

from ..conftest import (
    HYBRID,
    TINY,
    UNSTRUCTURED,
    Kit,
    assert_user_error,
    call,
    processor_seconds,
    write_model,
)


def test_the_help_has_the_dimensions_of_each_variant() -> None:
    shown = cli.write_help()
    for variant in variants.VARIANTS.values():
        row = next(line for line in shown.splitlines() if variant.name in line and " GB" in line)
        assert str(variant.heads or 16) in row.split()
        assert str(variant.intermediate_size or 4096) in row.split()
    for word in ("make all", "make test", "OUT=gen_hybrid_sparse", "INPUT=sample", "SEED="):
        assert word in shown


def command(name: str, *words: object) -> "subprocess.CompletedProcess[str]":
    return call(["command", f"--v={name}", *map(str, words)])


def test_command_prints_what_runs_and_runs_nothing(kit: Kit) -> None:
    before = sorted(kit.folder.rglob("*"))
    done = command(HYBRID, f"--launch={kit.launch_file}", "--source=registry")
    # Where its products would go there is nothing new, and it says nothing of having made any.
    assert sorted(kit.folder.rglob("*")) == before
    assert done.stderr == ""
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[:3] == ["cd", str(paths.REPOSITORY), "&&"]
    assert str(paths.REPOSITORY / "launch/qa/gen_hybrid_sparse_qa.py") in words
    assert words[words.index("--config_name") + 1].endswith(f"launch/configs/{HYBRID}/config.json")
    assert words[words.index("--seed") + 1] == "42"
    assert words[words.index("--output_dir") + 1] == f"{kit.folder}/work"


def test_an_edited_argument_changes_what_runs(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(
        text.replace('"--doc_stride", "128"', '"--doc_stride", "64"'), encoding="utf-8"
    )
    words = shlex.split(command(UNSTRUCTURED, f"--launch={kit.launch_file}").stdout)
    assert words[words.index("--doc_stride") + 1] == "64"


def test_variables_rewrite_by_named_rules(kit: Kit) -> None:
    common = ["--seed=7", "--input=files", f"--model={kit.model}", "--train-file=a b.json"]
    words = shlex.split(command(UNSTRUCTURED, *common).stdout)
    assert words[words.index("--seed") + 1] == "7"
    assert words[words.index("--model_name_or_path") + 1] == str(kit.model)
    assert words[words.index("--train_file") + 1] == str(paths.REPOSITORY / "a b.json")
    assert "--validation_file" not in words
    lines = command(UNSTRUCTURED, *common, "--explain").stdout.splitlines()
    place = lines.index("args    --seed 42")
    assert lines[place + 1 : place + 3] == ["  runs  --seed 7", "  rule  SEED"]
    place = lines.index(f"  runs  --model_name_or_path {kit.model}")
    assert lines[place + 1] == "  rule  MODEL"


def test_make_configs_is_fast_and_changes_nothing() -> None:
    before = {path: path.read_bytes() for path in paths.CONFIGS.rglob("*.json")}
    assert processor_seconds(["make", "configs"]) < 1.5
    assert {path: path.read_bytes() for path in paths.CONFIGS.rglob("*.json")} == before


def test_configs_of_another_model_do_not_stand_beside_those_of_this_one(kit: Kit, tmp_path: Path) -> None:
    smaller = write_model(tmp_path / "smaller", **{**TINY, "num_attention_heads": 4})
    made = []
    for model in (kit.model, smaller):
        done = kit.run("configs", model=model)
        assert done.returncode == 0, done.stderr
        made.append({path.parent.name for path in (paths.BUILD / "configs" / "user").glob("*/config.json")})
    assert made[1] < made[0] == {name for name, variant in variants.VARIANTS.items() if variant.hybrid}


def test_configs_wait_for_a_run_of_make(kit: Kit) -> None:
    with hold_lock():
        waiting = subprocess.Popen(
            kit.argv("configs", ""),
            cwd=str(paths.REPOSITORY),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert any("waiting: another process" in line for line in iter(waiting.stderr.readline, ""))
        assert waiting.poll() is None
    said, _ = waiting.communicate()
    assert waiting.returncode == 0
    assert HYBRID in said


def test_unknown_variant() -> None:
    done = call(["variant", "--v", "90pc_sparse-06_head-1536"])
    assert_user_error(done, "Did you mean V=90pc_sparse-06_head-1536_ffnn?")
    assert_user_error(call(["variant", "--v", "nonsense"]), *variants.VARIANTS)


def _bad_model(tmp_path: Path, name: str) -> Path:
    changes = {
        "roberta": {"model_type": "roberta"},
        "labels": {"num_labels": 3},
        "heads": {"num_attention_heads": 15},
        "tokenizer": {},
        "config": {},
    }[name]
    folder = write_model(tmp_path / name, **changes)
    if name == "tokenizer":
        (folder / "vocab.txt").unlink()
    if name == "config":
        (folder / "config.json").write_text('{"model_type": "bert",\n  oops}')
    return folder


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("roberta", ("not a BERT", "model_type")),
        ("heads", ("does not divide into 15 heads", "num_attention_heads")),
        ("labels", ("num_labels must be 2", "num_labels = 3")),
        ("tokenizer", ("no tokenizer", "vocab.txt")),
        ("config", ("not valid JSON", "line 2, column 3")),
    ],
)
def test_bad_models(kit: Kit, tmp_path: Path, model: str, words: tuple) -> None:
    folder = _bad_model(tmp_path, model)
    assert_user_error(kit.run("variant", HYBRID, model=folder), str(folder), *words)
    assert not kit.out.exists()


def test_bad_questions(kit: Kit, tmp_path: Path, derived_source: Path) -> None:
    cases = {
        '{"data": [\n {]}': ("not valid JSON", "line 2, column 3"),
        '{"rows": []}': ("'data' is missing",),
        '{"data": []}': ("no questions",),
    }
    for text, words in cases.items():
        path = tmp_path / "questions.json"
        path.write_text(text)
        assert_user_error(kit.run("variant", HYBRID, train_file=path), str(path), "TRAIN_FILE", *words)
    assert_user_error(
        kit.run("variant", HYBRID, train_file=tmp_path / "none.json"), "none.json", "does not exist"
    )
    assert_user_error(kit.run("variant", HYBRID, train_file=tmp_path), str(tmp_path), "cannot be read")
    assert not kit.out.exists()


@pytest.mark.parametrize("option", ["launch", "train_file", "validation_file", "config"])
def test_a_device_or_a_pipe_is_not_read(kit: Kit, tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(str(pipe))
    if option == "config":
        folder = write_model(tmp_path / "model")
        (folder / "config.json").unlink()
        pipe.rename(folder / "config.json")
        assert_user_error(kit.run("variant", HYBRID, model=folder), "no regular file", "MODEL", "config.json")
        return
    command, name = ("evaluate", "") if option == "validation_file" else ("command", HYBRID)
    for path in (pipe, Path("/dev/zero")):
        done = kit.run(command, name, **{option: path})
        assert_user_error(done, "no regular file", str(path))


def test_an_argument_of_the_launch_file_that_names_a_pipe(kit: Kit, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(str(pipe))
    text = kit.launch_file.read_text(encoding="utf-8")
    nncf = "${workspaceFolder}/launch/configs/nncf.json"
    kit.launch_file.write_text(text.replace(nncf, str(pipe)), encoding="utf-8")
    assert_user_error(kit.run("variant", HYBRID), "no regular file", str(pipe))


def test_too_few_calibration_features(kit: Kit, tmp_path: Path, derived_source: Path) -> None:
    rows = json.loads((paths.SAMPLE / "train.json").read_text())["data"][:5]
    path = tmp_path / "few.json"
    path.write_text(json.dumps({"data": rows}))
    done = kit.run("variant", HYBRID, train_file=path)
    assert_user_error(done, "too few", "32 are needed", str(path))
    assert not kit.tree(HYBRID).exists()


def test_tokenizer_with_more_words_than_the_model(kit: Kit, tmp_path: Path, derived_source: Path) -> None:
    config = json.loads((kit.model / "config.json").read_text())
    folder = write_model(tmp_path / "few-words", **{**config, "vocab_size": 100})
    assert_user_error(kit.run("variant", UNSTRUCTURED, model=folder), "2,048", "only 100", "vocab_size")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"compression": [}', "not valid JSON"),
        ('{"input_info": {"sample_size": [1, 384]}, "compression": {"algorithm": "quantization"}}', "lacks"),
        ('{"input_info": {"sample_size": [1, 384]}}', "names no compression"),
    ],
)
def test_bad_nncf_configs(derived_source: Path, tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "nncf.json"
    path.write_text(text)
    with pytest.raises(KitError, match=words) as caught:
        compress.read_nncf_config(Arguments("m", "unused", nncf_config=str(path)))
    assert str(path) in caught.value.where
    assert caught.value.hint


def test_options_that_do_not_go_together(kit: Kit) -> None:
    assert_user_error(kit.run("variant", HYBRID, input="sample", train_file=None), "MODEL", "INPUT=files")
    assert_user_error(kit.run("variant", HYBRID, input="file"), "INPUT=file", "sample, files, hub")
    assert_user_error(kit.run("variant", HYBRID, model=None), "MODEL")
    assert_user_error(kit.run("variant", HYBRID, train_file=None), "TRAIN_FILE")
    assert_user_error(kit.run("variant", HYBRID, seed="minus one"), "SEED=minus one")
    assert_user_error(kit.run("variant", HYBRID, seed=2**32), "SEED=4294967296")
    assert_user_error(kit.run("variant", HYBRID, seed="\u00b2"), "SEED=")
    assert_user_error(kit.run("variant", HYBRID, out="~nosuchuser/x"), "OUT=~nosuchuser/x")
    assert_user_error(kit.run("variant", HYBRID, model="x" * 5000), "x")


def test_out_that_cannot_be_written(kit: Kit, tmp_path: Path, derived_source: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert_user_error(kit.run("variant", HYBRID, out=blocker / "out"), "OUT=")
    assert_user_error(kit.run("variant", HYBRID, out=blocker), "not a folder", "OUT=")
    assert_user_error(
        kit.run("variant", HYBRID, out="/proc/out"), "cannot be made or written to", "OUT=/proc/out"
    )


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="mounting needs root")
def test_a_full_disk_keeps_the_earlier_tree(built: Kit, kit: Kit, tmp_path: Path, hashes) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        tree = small / HYBRID
        shutil.copytree(str(built.tree(HYBRID)), str(tree))
        before = hashes(tree)
        done = kit.run("variant", HYBRID, out=small, seed=5)
        assert_user_error(done, "disk")
        assert hashes(tree) == before
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_broken_launch_file_is_named_with_line_and_column(kit: Kit) -> None:
    kit.launch_file.write_text('{"configurations": [\n  {"name": }\n]}', encoding="utf-8")
    assert_user_error(kit.run("variant", HYBRID), str(kit.launch_file), "line 2")


def test_an_unknown_option_of_the_program_is_named(kit: Kit) -> None:
    text = kit.launch_file.read_text(encoding="utf-8")
    kit.launch_file.write_text(text.replace('"--do_eval",', '"--do_evil",'), encoding="utf-8")
    line = text[: text.index('"args"', text.index(HYBRID))].count("\n") + 1
    where = f"{kit.launch_file}, line {line}, configurations[1].args"
    assert_user_error(kit.run("variant", HYBRID), "--do_evil", "launch file", where)
