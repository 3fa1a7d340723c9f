"""Upstream's launch file: what is taken from it as it stands, what the rules change, and when they refuse.

The file here is made up, in the shape of upstream's: its four configurations with what the rules look at.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Dict, List

import pytest

from launch import __main__ as cli
from launch.build import jobs, rules, upstream
from launch.build.rules import ALLOCATOR
from launch.core import git, machine, paths
from launch.core.errors import KitError
from launch.model.variants import VARIANTS, Variant, find_variant
from launch.sources.source import Fork, Registry, Source
from launch.vscode.launch_file import parse_jsonc

from ..conftest import HYBRID, UNSTRUCTURED

MODEL = "bert-large-uncased-whole-word-masking-finetuned-squad"
EXAMPLES = "transformers/examples/pytorch/question-answering"
CONFIG = "generated/{}/config.json"
HYBRIDS = [variant.name for variant in VARIANTS.values() if variant.hybrid]
JOBS = ["configs", *VARIANTS, "evaluate"]
SOURCES: Dict[str, Source] = {"fork": Fork(), "registry": Registry()}
READ = ("--train_file", "--validation_file")
"""What INPUT=sample puts at the end, in place of the data set's name."""


def model() -> List[str]:
    return ["--model_name_or_path", str(paths.SAMPLE / "model")]


def read() -> List[str]:
    return [READ[0], str(paths.SAMPLE / "train.json"), READ[1], str(paths.SAMPLE / "validation.json")]


COMMON = """"type": "python",
      "request": "launch",
      "env": {"CUDA_VISIBLE_DEVICES": "1", "WANDB_DISABLED": "True"},
      "cwd": "${workspaceFolder}/transformers/examples/pytorch/question-answering/","""
QUESTIONS = """"--dataset_name", "squad",
        "--do_eval",
        // "--max_seq_length", "128",
        "--max_seq_length", "384","""
NNCF = '"--nncf_config", "${workspaceFolder}/transformers/examples/pytorch/question-answering/nncf.json",'
TREES = "/tmp/vscode-runs/memalign_tx/gen_hybrid_sparse"
FILE = f"""{{
  // Made up.
  "configurations": [
    {{
      "name": "generate hybrid sparse config",
      {COMMON}
      "program": "gen_hybrid_sparse_qa.py",
      "args": [
        "--model_name_or_path",
        // "somebody/small",
        "{MODEL}",
        "--gen_sparse_cfg",
        // "--config_name",
        // "{CONFIG.format(HYBRIDS[1])}",
        {QUESTIONS}
        "--output_dir", "{TREES}",
        "--overwrite_output_dir"
      ]
    }},
    {{
      "name": "generate hybrid sparse + quantized model, onnx",
      {COMMON}
      "program": "gen_hybrid_sparse_qa.py",
      "args": [
        "--model_name_or_path", "{MODEL}",
        "--gen_hybrid_sparse_model",
        "--config_name",
        "{CONFIG.format(HYBRIDS[0])}",
        // "{CONFIG.format(HYBRIDS[1])}",
        // "{CONFIG.format(HYBRIDS[2])}",  /* a remark: this line is no choice */
        // "{CONFIG.format(HYBRIDS[2])}",
        // "--tokenizer_name", "{CONFIG.format(HYBRIDS[3])}",
          //"{CONFIG.format(HYBRIDS[3])}"
        // "--tokenizer_name",
        // "{CONFIG.format(HYBRIDS[3])}",
        "--to_onnx", "unused.onnx",
        {QUESTIONS}
        {NNCF}
        "--output_dir", "{TREES}",
        "--overwrite_output_dir",
      ],
    }},
    {{
      "name": "generate unstructured sparse + quantized model, onnx",
      {COMMON}
      "program": "run_qa.py",
      "args": [
        "--model_name_or_path", "{MODEL}",
        {QUESTIONS}
        {NNCF}
        "--output_dir", "{TREES}/{UNSTRUCTURED}",
        "--to_onnx", "{TREES}/{UNSTRUCTURED}/{UNSTRUCTURED}-8bit.onnx",
      ]
    }},
    {{
      "name": "Eval squad",
      {COMMON}
      "program": "run_qa.py",
      "args": [
        "--model_name_or_path",
        // "somebody/small",
        "/data2/author/{MODEL}",
        // "{MODEL}",
        {QUESTIONS}
        "--output_dir", "/tmp/vscode-runs/memalign_tx/squad-eval",
        // "--to_onnx",
      ]
    }},
  ]
}}
"""


def make_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a checkout of the kit with upstream's launch file in its submodule; return that file."""
    kit = folder / "kit"
    package = paths.PACKAGE.resolve()
    for name, place in {
        "REPOSITORY": "",
        "PACKAGE": "launch",
        "SAMPLE": "launch/sample",
        "PATCHES": "patches",
        "VENV": ".venv",
        "VENV_PYTHON": ".venv/bin/python",
        "BUILD": "build",
        "DERIVED_SOURCES": "build/src",
        "EXTENSIONS": "build/torch_extensions",
    }.items():
        monkeypatch.setattr(paths, name, kit / place)
    monkeypatch.setattr(upstream, "_DEVICES", folder / "dev")
    monkeypatch.setenv("PATH", "/usr/bin")
    for path in (kit / "patches", folder / "dev"):
        path.mkdir(parents=True)
    (kit / "launch").symlink_to(package)
    file = kit / "third_party" / EXAMPLES / "gen-hybrid-sparse" / "vscode-launch.json"
    file.parent.mkdir(parents=True)
    file.write_text(FILE)
    git.run_git(["init", "--quiet"], kit / "third_party" / "transformers")
    pin()
    return file


def pin() -> None:
    """Commit what the made-up submodule holds, and let that be its pin."""
    folder = paths.REPOSITORY / "third_party" / "transformers"
    name = {f"GIT_{role}_{key}": "x" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    name.update(GIT_AUTHOR_DATE="2021-11-30T00:00:00Z", GIT_COMMITTER_DATE="2021-11-30T00:00:00Z")
    git.run_git(["add", "--all"], folder)
    git.run_git(["commit", "--quiet", "--allow-empty", "--message=x"], folder, env=name)
    base = git.run_git(["rev-parse", "HEAD"], folder).stdout.strip()
    forks = {
        name: {"submodule": f"third_party/{name}", "base": base, "packed": ""}
        for name in ("nncf", "transformers")
    }
    (paths.PATCHES / "config.json").write_text(json.dumps(forks))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_checkout(tmp_path, monkeypatch)


def load(job: str, source: str = "fork") -> jobs.Job:
    return jobs.load_job("upstream", job, rules.Selection(), SOURCES[source])


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    pin()


def hybrid(name: str, nncf: Path) -> List[str]:
    return [
        *(*model(), "--gen_hybrid_sparse_model", "--config_name", CONFIG.format(name)),
        *("--to_onnx", "unused.onnx", "--do_eval", "--max_seq_length", "384"),
        *("--nncf_config", str(nncf), "--output_dir", str(paths.BUILD / "work"), "--overwrite_output_dir"),
        *read(),
    ]


def expected(job: str, nncf: Path) -> List[str]:
    questions = ["--do_eval", "--max_seq_length", "384"]
    build = str(paths.BUILD)
    if job == "evaluate":
        output = ["--output_dir", f"{build}/evaluate"]
        return [*model(), *questions, *output, "--weights", "random", *read()]
    if job == UNSTRUCTURED:
        own = f"{build}/work/{UNSTRUCTURED}"
        files = [
            "--nncf_config",
            str(nncf),
            "--output_dir",
            own,
            "--to_onnx",
            f"{own}/{UNSTRUCTURED}-8bit.onnx",
        ]
        return [*model(), *questions, *files, *read()]
    assert job == "configs"
    out = ["--output_dir", f"{build}/configs/upstream", "--overwrite_output_dir"]
    return [*model(), "--gen_sparse_cfg", *questions, *out, *read()]


@pytest.mark.parametrize("job", JOBS)
def test_on_the_fork_upstreams_program_runs_with_the_files_arguments_in_their_order(
    file: Path, job: str
) -> None:
    found = load(job).invocation
    folder = paths.DERIVED_SOURCES / "fork" / EXAMPLES
    nncf = folder / "nncf.json"
    assert list(found.args) == (hybrid(job, nncf) if job in HYBRIDS else expected(job, nncf))
    program = "run_qa.py" if job in (UNSTRUCTURED, "evaluate") else "gen_hybrid_sparse_qa.py"
    if job == "configs":  # it writes below its working folder
        assert (found.cwd, found.target) == (str(paths.BUILD / "configs/fork"), (str(folder / program),))
    else:
        assert (found.cwd, found.target) == (str(folder), (program,))
    assert (found.python, found.options) == (str(paths.VENV_PYTHON), ())
    threads = {} if job == "configs" else dict.fromkeys(machine.THREADS, found.env["OMP_NUM_THREADS"])
    assert {name: value for name, value in found.env.items() if value is not None} == {
        **threads,
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_DISABLED": "True",
        "PYTHONPATH": os.pathsep.join(map(str, Fork().python_path)),
        "PATH": f"{paths.VENV}/bin{os.pathsep}/usr/bin",
        "TORCH_EXTENSIONS_DIR": str(paths.EXTENSIONS / "fork"),
        "PYTHONHASHSEED": "0",
        "GLIBC_TUNABLES": ALLOCATOR,
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(paths.BUILD / "cache" / "huggingface"),
    }


@pytest.mark.parametrize("job", JOBS)
def test_on_the_registry_the_kits_program_runs_with_the_same_arguments(file: Path, job: str) -> None:
    found = load(job, "registry").invocation
    folder = paths.REPOSITORY / "third_party" / EXAMPLES
    wanted = hybrid(job, folder / "nncf.json") if job in HYBRIDS else expected(job, folder / "nncf.json")
    if job == "configs":  # the kit's program reads no questions for it
        wanted[wanted.index("--do_eval") : wanted.index("--do_eval")] = ["--dataset_name", "squad"]
        del wanted[-len(read()) :]
    assert list(found.args) == wanted
    program = "run_qa.py" if job in (UNSTRUCTURED, "evaluate") else "gen_hybrid_sparse_qa.py"
    assert found.target == (str(paths.PACKAGE / "qa" / program),)
    assert Path(found.target[0]).is_file()
    assert found.cwd == str(folder)
    assert found.env["PYTHONPATH"] == os.pathsep.join(map(str, Registry().python_path))
    assert found.env["TORCH_EXTENSIONS_DIR"] == str(paths.EXTENSIONS / "registry")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_each_tree_is_built_in_a_folder_of_its_own(file: Path, variant: Variant, source: str) -> None:
    found = jobs.load_tree("upstream", variant, rules.Selection(), SOURCES[source])
    assert found.onnx_path == paths.BUILD / "work" / variant.name / f"{variant.name}-8bit.onnx"


@pytest.mark.parametrize("source", SOURCES)
def test_other_variants_run_from_the_configuration_of_their_kind(file: Path, source: str) -> None:
    name, other = "75pc_sparse-08_head-2048_ffnn", "50pc_unstructured_sparse"
    nncf = Path(load(UNSTRUCTURED, source).arguments.nncf_config or "")
    nncf.parent.mkdir(parents=True, exist_ok=True)
    nncf.write_text((paths.PACKAGE / "configs" / "nncf.json").read_text(encoding="utf-8"), encoding="utf-8")
    hybrid = jobs.load_tree("upstream", find_variant(name), rules.Selection(), SOURCES[source])
    config = json.loads(Path(hybrid.arguments.config_name or "").read_text(encoding="utf-8"))
    assert (config["tx_block_overall_sparsity"], config["intermediate_size"]) == (0.75, 2048)
    assert hybrid.onnx_path == paths.BUILD / "work" / name / f"{name}-8bit.onnx"
    assert f"V: as {HYBRIDS[0]}" in hybrid.explain()
    plain = jobs.load_tree("upstream", find_variant(other, "fp32"), rules.Selection(), SOURCES[source])
    assert plain.onnx_path == paths.BUILD / "work" / "fp32" / other / f"{other}-fp32.onnx"
    compression = json.loads(Path(plain.arguments.nncf_config or "").read_text(encoding="utf-8"))[
        "compression"
    ]
    assert [(one["algorithm"], one["sparsity_init"]) for one in compression] == [("magnitude_sparsity", 0.5)]
    change(file, CONFIG.format(HYBRIDS[0]), "generated/other/config.json")
    with pytest.raises(KitError, match="the rule 'variant'"):
        load(name, source)


def test_a_tree_that_the_file_names_otherwise_is_refused(file: Path) -> None:
    change(file, f"{UNSTRUCTURED}-8bit.onnx", "other.onnx")
    with pytest.raises(KitError, match=r"but other\.onnx") as caught:
        jobs.load_tree("upstream", VARIANTS[UNSTRUCTURED], rules.Selection(), Fork())
    assert caught.value.where == f"upstream: {UNSTRUCTURED}"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("job", JOBS)
def test_the_explanation_has_every_word_of_the_file_and_a_rule_for_every_change(
    file: Path, job: str, source: str
) -> None:
    found = load(job, source)
    name = upstream.name_upstream(job)
    entries = parse_jsonc(FILE, "").value["configurations"]
    entry = next(entry for entry in entries if entry["name"] == name)
    variables = [f"{name}={value}" for name, value in entry["env"].items()]
    words = [entry["cwd"], *variables, entry["program"], *entry["args"]]
    assert [word for part in found.parts for word in part.before] == words
    for part in found.parts:
        assert bool(part.rules) == part.changed, part
    said = found.explain()
    for word in (*words, *found.invocation.args, *found.invocation.target, found.invocation.cwd):
        assert word in said


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("job", JOBS)
def test_nothing_of_the_authors_machine_remains(file: Path, job: str, source: str) -> None:
    command = load(job, source).invocation.shell()
    for trace in ("/tmp/vscode-runs", "/data", "CUDA_VISIBLE_DEVICES=1", "workspaceFolder"):
        assert trace not in command


def test_the_gpu_stays_selected_where_there_is_one(file: Path, tmp_path: Path) -> None:
    (tmp_path / "dev" / "nvidia1").touch()
    found = load(HYBRID)
    assert found.invocation.env["CUDA_VISIBLE_DEVICES"] == "1"
    assert [part.rules for part in found.parts if part.before == ("CUDA_VISIBLE_DEVICES=1",)] == [[]]


def test_the_environments_tools_come_first_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = os.pathsep.join(["/usr/bin", f"{paths.VENV}/bin"])
    monkeypatch.setenv("PATH", search)
    assert load(HYBRID).invocation.env["PATH"] == search


def test_workspace_folder_is_found_wherever_it_stands(file: Path) -> None:
    change(file, '"WANDB_DISABLED": "True"', '"LIST": "${workspaceFolder}/a:${workspaceFolder}/b"')
    change(file, NNCF, NNCF.replace('", "', "="))
    found = load(UNSTRUCTURED)
    tree = paths.DERIVED_SOURCES / "fork"
    assert found.invocation.env["LIST"] == f"{tree}/a:{tree}/b"
    assert f"--nncf_config={tree}/{EXAMPLES}/nncf.json" in found.invocation.args
    assert "LIST=${workspaceFolder}/a:${workspaceFolder}/b" in found.explain()


@pytest.mark.parametrize(
    ("job", "old", "new", "rule", "found"),
    [
        (HYBRID, "${workspaceFolder}/tr", "/home/author/tr", "workspace folder", "cwd = /home/author/"),
        (
            HYBRID,
            "question-answering/",
            "text/",
            "workspace folder",
            "cwd = ${workspaceFolder}/transformers/examples/pytorch/text",
        ),
        (HYBRID, '"cwd":', '"console":', "workspace folder", "cwd = ${workspaceFolder}"),
        ("configs", '"request"', '"python": "/opt/py", "request"', "interpreter", "python = /opt/py"),
        (
            "configs",
            '"request"',
            '"pythonArgs": ["-O"], "request"',
            "interpreter",
            "python = (the interpreter selected in VS Code) -O",
        ),
        (HYBRID, 'DEVICES": "1"', 'DEVICES": "0,1"', "CUDA device", "env.CUDA_VISIBLE_DEVICES = 0,1"),
        (HYBRID, '"CUDA_VISIBLE_DEVICES": "1",', "", "CUDA device", "env.CUDA_VISIBLE_DEVICES = None"),
        (HYBRID, TREES, "/tmp/other", "output folder", "--output_dir /tmp/other"),
        (HYBRID, TREES, TREES + "2", "output folder", f"--output_dir {TREES}2"),
        (HYBRID, f'"--output_dir", "{TREES}",', "", "output folder", "--output_dir "),
        ("evaluate", "squad-eval", "elsewhere", "output folder", "--output_dir /tmp/vscode-runs"),
        ("evaluate", f"/data2/author/{MODEL}", MODEL, "author's checkpoint", f"--model_name_or_path {MODEL}"),
        (
            "evaluate",
            f'// "{MODEL}"',
            '// "other"',
            "author's checkpoint",
            f"somebody/small, /data2/author/{MODEL}, other",
        ),
        (HYBRIDS[1], f'// "{CONFIG.format(HYBRIDS[1])}",', "", "variant", CONFIG.format(HYBRIDS[2])),
        (
            HYBRIDS[1],
            f'// "{CONFIG.format(HYBRIDS[2])}",\n',
            f'// "{CONFIG.format(HYBRIDS[1])}",\n',
            "variant",
            f"{CONFIG.format(HYBRIDS[1])}, {CONFIG.format(HYBRIDS[1])}",
        ),
        (HYBRIDS[1], '"--config_name",\n', '"--cfg",\n', "variant", "--config_name offers nothing"),
        # A string that is commented out where no value may stand: what is offered cannot be told.
        (HYBRID, '"configurations"', '// "old"\n"configurations"', "variant", "--config_name offers nothing"),
        (UNSTRUCTURED, '"run_qa.py"', '"run_qa_no_trainer.py"', "program", "program = run_qa_no_trainer.py"),
        (
            UNSTRUCTURED,
            '"run_qa.py"',
            '"${workspaceFolder}/run_qa.py"',
            "program",
            "program = ${workspaceFolder}/run_qa.py",
        ),
        (
            UNSTRUCTURED,
            f'"--to_onnx", "{TREES}',
            '"--to_onnx", "/tmp/other',
            "author's paths",
            "args --to_onnx /tmp/other",
        ),
        (
            HYBRID,
            NNCF,
            '"--nncf_config=/data1/n.json",',
            "author's paths",
            "args --nncf_config=/data1/n.json",
        ),
        (HYBRID, '"True"', '"True", "WANDB_DIR": "~/w"', "author's paths", "env WANDB_DIR=~/w"),
    ],
)
@pytest.mark.parametrize("source", SOURCES)
def test_a_rule_that_no_longer_matches_is_an_error(
    file: Path, source: str, job: str, old: str, new: str, rule: str, found: str
) -> None:
    change(file, old, new)
    with pytest.raises(KitError) as caught:
        load(job, source)
    assert f"the rule '{rule}'" in caught.value.what
    assert str(file) in caught.value.where
    assert f": {upstream.name_upstream(job)}: " in caught.value.where
    assert found in caught.value.where
    assert caught.value.hint


def test_a_change_matters_only_to_the_jobs_it_touches(file: Path) -> None:
    change(file, f"/data2/author/{MODEL}", MODEL)
    change(file, f'// "{CONFIG.format(HYBRIDS[1])}",', "")
    for job in set(JOBS) - {"evaluate", HYBRIDS[1]}:
        assert load(job)


def test_a_line_that_a_user_uncommented_is_still_one_of_the_choices(file: Path) -> None:
    first, second = (f'"{CONFIG.format(name)}",' for name in HYBRIDS[:2])
    change(file, f"        {first}\n        // {second}\n", f"        // {first}\n        {second}\n")
    for name in HYBRIDS[:2]:
        assert load(name).arguments.config_name == CONFIG.format(name)


def test_a_job_that_the_file_does_not_have_is_named_with_those_it_has(file: Path) -> None:
    for name in ("90pc", "Eval squad", ""):
        with pytest.raises(KitError) as caught:
            load(name)
        assert caught.value.where == f"V={name}"
        assert set(JOBS) <= set(caught.value.hint.split())


def test_a_configuration_that_is_gone_is_named(file: Path) -> None:
    change(file, '"Eval squad"', '"Eval"')
    with pytest.raises(KitError) as caught:
        load("evaluate")
    assert "'Eval squad'" in caught.value.what
    assert str(file) in caught.value.where


def test_without_the_submodule_the_error_says_how_to_get_it(file: Path) -> None:
    shutil.rmtree(paths.REPOSITORY / "third_party" / "transformers")
    with pytest.raises(KitError) as caught:
        load(HYBRID, "registry")
    assert caught.value.where.startswith("third_party/transformers/")
    assert "make third_party" in caught.value.hint


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_submodule_that_is_not_as_pinned_is_not_read(file: Path, source: str) -> None:
    file.write_text(FILE.replace("384", "383"))
    with pytest.raises(KitError) as caught:
        load(HYBRID, source)
    assert "local changes" in caught.value.what
    git.run_git(["checkout", "--quiet", "."], paths.REPOSITORY / "third_party/transformers")
    name = {f"GIT_{role}_{key}": "x" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    git.run_git(
        ["commit", "--quiet", "--allow-empty", "--message=y"],
        paths.REPOSITORY / "third_party/transformers",
        env=name,
    )
    with pytest.raises(KitError) as caught:
        load(HYBRID, source)
    assert "not at its pin" in caught.value.what


def test_a_file_that_is_no_json_is_named_with_the_line(file: Path) -> None:
    change(file, '"program": "run_qa.py",', '"program": "run_qa.py"')
    with pytest.raises(KitError) as caught:
        load(HYBRID)
    line = FILE[: FILE.index('"program": "run_qa.py"')].count("\n") + 2
    assert f"{file}, line {line}, " in caught.value.where


def test_a_moved_checkout_keeps_its_trees_and_a_changed_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = []
    for place in ("one", "other"):
        make_checkout(tmp_path / place, monkeypatch)
        for source in SOURCES:
            folder = paths.REPOSITORY / "third_party" if source == "registry" else SOURCES[source].tree
            for name in ("nncf.json", *map(CONFIG.format, HYBRIDS)):
                path = folder / EXAMPLES / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(name)
            for variant in VARIANTS.values():
                tree_job = jobs.load_tree("upstream", variant, rules.Selection(), SOURCES[source])
                keys.append(json.dumps(jobs.make_onnx_key(tree_job)))
        assert str(tmp_path) not in "".join(keys)
    half = len(keys) // 2
    assert keys[:half] == keys[half:]
    assert len(set(keys)) == half == 2 * len(VARIANTS)
    (folder / EXAMPLES / "nncf.json").write_text("changed")
    assert json.dumps(jobs.make_onnx_key(tree_job)) != keys[-1]


def test_the_command_prints_the_invocation_or_explains_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["command", f"--v={HYBRIDS[1]}", "--launch=upstream", "--source=registry"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out.rstrip("\n") == load(HYBRIDS[1], "registry").invocation.shell()
    assert cli.main([*argv, "--explain=1"]) == 0
    said = capsys.readouterr().out
    assert (
        f"args    --config_name {CONFIG.format(HYBRIDS[0])}\n"
        f"  runs  --config_name {CONFIG.format(HYBRIDS[1])}\n"
        "  rule  variant: the line that is commented out for it in the file\n"
    ) in said
    assert "args    --do_eval\nargs    --max_seq_length 384\n" in said
