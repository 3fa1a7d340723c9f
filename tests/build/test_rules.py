"""What a run reads: every INPUT with either launch file and either source."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from launch.build import hub, jobs, program, rules
from launch.core import files, paths
from launch.core.errors import KitError
from launch.model import bert_config, hub_list, squad
from launch.model.variants import VARIANTS

from ..conftest import HYBRID, UNSTRUCTURED
from ..model.test_squad import flat, nested, write
from .test_upstream import CONFIG, SOURCES, make_checkout

LAUNCHES = {"kit": str(paths.LAUNCH_FILE), "upstream": "upstream"}
OFFLINE = ("TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


@pytest.fixture(autouse=True)
def _checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkout(tmp_path, monkeypatch)


DOWNLOADED = {"repository": "owner/name", "revision": "0" * 40}


@pytest.fixture
def chosen(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> rules.Selection:
    made = rules.Selection(
        "files",
        model=tiny_model,
        train_file=write(tmp_path / "mine.json", nested()),
        validation_file=write(tmp_path / "other.json", nested(id="q2")),
    )

    def local(listing: hub_list.Listing, questions: str, weights: bool, ready: object) -> hub.Local:
        files = {"config.json": "0" * 64, **({"model.safetensors": "1" * 64} if weights else {})}
        return hub.Local(tiny_model, getattr(made, f"{questions}_file", None), {**DOWNLOADED, "files": files})

    monkeypatch.setattr(hub, "fetch_local", local)
    return made


def load(launch: str, job: str, source: str, selection: rules.Selection) -> jobs.Job:
    return jobs.load_job(LAUNCHES[launch], job, selection, SOURCES[source])


def selected(kind: str, chosen: rules.Selection) -> rules.Selection:
    """Return the selection of a kind; what ``hub`` downloads are the files of ``chosen``."""
    if kind == "hub":
        return rules.Selection("hub", listing=hub_list.read_hub_list(hub_list.LIST), ready=lambda: None)
    return chosen if kind == "files" else rules.Selection(kind)


def without(selection: rules.Selection, name: str) -> rules.Selection:
    return rules.Selection(**{**vars(selection), name: None})


def rule(job: jobs.Job, option: str) -> str:
    return next("; ".join(part.rules) for part in job.parts if option in (*part.before[:1], *part.after[:1]))


def made_flat(path: Path) -> Path:
    return paths.BUILD / "inputs" / files.digest_file(path)[:16] / "questions.json"


def reads(job: jobs.Job) -> Dict[str, Optional[str]]:
    found: Dict[str, Any] = {
        name: getattr(job.arguments, name)
        for name in ("model_name_or_path", "train_file", "validation_file", "dataset_name")
    }
    found.update((name, job.invocation.env.get(name)) for name in (*OFFLINE, "HF_HOME"))
    return {name: value for name, value in found.items() if value is not None}


def expected(kind: str, source: str, chosen: rules.Selection) -> Dict[str, str]:
    found = dict.fromkeys(OFFLINE, "1")
    if source == "fork":
        found["HF_HOME"] = str(paths.BUILD / "cache" / "huggingface")
    if kind == "sample":
        model, train, validation = (
            paths.SAMPLE / name for name in ("model", "train.json", "validation.json")
        )
    else:
        model, train, validation = chosen.model, chosen.train_file, chosen.validation_file
        if source == "fork":
            train, validation = (
                made_flat(train),
                made_flat(validation),
            )
    for name, path in (("model_name_or_path", model), ("train_file", train), ("validation_file", validation)):
        found[name] = str(path)
    return found


@pytest.mark.parametrize("kind", rules.KINDS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("name", [HYBRID, UNSTRUCTURED, "evaluate"])
def test_a_run_reads_the_same_with_either_launch_file(
    name: str, launch: str, source: str, kind: str, chosen: rules.Selection
) -> None:
    selection = selected(kind, chosen)
    job = load(launch, name, source, selection)
    if kind == "hub":
        # Only what the job reads is downloaded; upstream's script wants validation questions for a tree.
        left_out = "train_file" if name == "evaluate" else "validation_file"
        wanted = expected("files", source, chosen)
        del wanted[left_out]
        if name != "evaluate" and source == "fork":
            wanted["validation_file"] = wanted["train_file"]
        assert reads(job) == wanted
        assert job.downloaded is not None
        assert ("model.safetensors" in job.downloaded["files"]) == (name == "evaluate")
        assert rule(job, "--model_name_or_path").endswith("INPUT=hub: owner/name at 000000000000")
    else:
        assert reads(job) == expected(kind, source, chosen)
        assert job.downloaded is None
        assert Path(job.arguments.train_file).is_file()


@pytest.mark.parametrize("kind", rules.KINDS)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_upstreams_script_reads_questions_before_it_writes_configs(
    launch: str, kind: str, chosen: rules.Selection
) -> None:
    job = load(launch, "configs", "fork", selected(kind, chosen))
    wanted = expected("sample", "fork", chosen)
    if kind != "sample":
        wanted["model_name_or_path"] = str(chosen.model)
        assert job.arguments.output_dir == str(paths.BUILD / "configs" / "user")
    assert reads(job) == wanted
    assert job.arguments.do_eval


@pytest.mark.parametrize("kind", rules.KINDS)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_kits_program_computes_configs_from_a_folder_and_needs_no_questions(
    launch: str, kind: str, chosen: rules.Selection
) -> None:
    selection = without(without(chosen, "train_file"), "validation_file")
    job = load(launch, "configs", "registry", selected(kind, selection))
    model = chosen.model if kind != "sample" else paths.SAMPLE / "model"
    assert job.arguments.model_name_or_path == str(model)
    assert (job.arguments.train_file, job.arguments.validation_file) == (None, None)
    if kind != "sample":
        assert job.arguments.output_dir == str(paths.BUILD / "configs" / "user")


@pytest.mark.parametrize("launch", LAUNCHES)
def test_trees_need_questions_to_calibrate_on_only(launch: str, chosen: rules.Selection) -> None:
    train_only = without(chosen, "validation_file")
    assert load(launch, HYBRID, "registry", train_only).arguments.validation_file is None
    job = load(launch, HYBRID, "fork", train_only)
    assert job.arguments.validation_file == str(made_flat(chosen.train_file))
    assert "does nothing with them" in rule(job, "--validation_file")
    for source in SOURCES:
        with pytest.raises(KitError) as caught:
            load(launch, HYBRID, source, without(chosen, "train_file"))
        assert caught.value.where == "TRAIN_FILE is empty"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_an_evaluation_needs_questions_to_evaluate_on_only(
    launch: str, source: str, chosen: rules.Selection
) -> None:
    job = load(launch, "evaluate", source, without(chosen, "train_file"))
    assert job.arguments.train_file is None
    with pytest.raises(KitError) as caught:
        load(launch, "evaluate", source, without(chosen, "validation_file"))
    assert caught.value.where == "VALIDATION_FILE is empty"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_weights_are_drawn_for_the_sample_and_who_asks(
    launch: str, source: str, chosen: rules.Selection
) -> None:
    for selection, drawn in (
        (rules.Selection(), True),
        (selected("hub", chosen), False),
        (dataclasses.replace(selected("hub", chosen), weights="random"), True),
        (chosen, False),
        (dataclasses.replace(chosen, weights="random"), True),
    ):
        job = load(launch, "evaluate", source, selection)
        assert job.arguments.weights == ("random" if drawn else None)
        assert job.downloaded is None or ("model.safetensors" in job.downloaded["files"]) != drawn
        if selection.weights and launch == "upstream":
            assert rule(job, "--weights") == "WEIGHTS"


def test_what_reads_no_weights_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(KitError, match="WEIGHTS has no meaning") as caught:
        load("kit", "configs", "registry", rules.Selection(weights="random"))
    assert caught.value.where == "WEIGHTS=random"
    for name in ("configs", "evaluate"):
        with pytest.raises(KitError, match="is for trees") as caught:
            load("kit", name, "registry", rules.Selection(checkpoint=tmp_path))
        assert caught.value.where == f"WEIGHTS={tmp_path}"


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_random_weights_are_the_default_of_trees(launch: str, source: str) -> None:
    for name in (HYBRID, UNSTRUCTURED):
        usual, asked = (
            load(launch, name, source, rules.Selection(weights=weights)) for weights in ("", "random")
        )
        assert usual.invocation == asked.invocation
        assert usual.checkpoint is None
        assert not {"weights", "heads"} & set(jobs.make_onnx_key(asked)["arguments"])  # type: ignore[arg-type]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_the_seed_is_the_files_unless_one_is_given(launch: str, source: str) -> None:
    for name in (HYBRID, UNSTRUCTURED, "evaluate"):
        assert load(launch, name, source, rules.Selection()).arguments.seed == 42
        job = load(launch, name, source, rules.Selection(seed=7))
        assert job.arguments.seed == 7
        assert rule(job, "--seed") == "SEED"
    assert "--seed" not in load(launch, "configs", "registry", rules.Selection(seed=7)).invocation.args


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_a_hybrid_is_cut_from_the_users_model(launch: str, source: str, chosen: rules.Selection) -> None:
    job = load(launch, HYBRID, source, chosen)
    config = Path(str(job.arguments.config_name))
    assert config.parent.parent.parent == paths.BUILD / "configs"
    wanted = bert_config.make_hybrid(bert_config.read_config(chosen.model, "MODEL"), VARIANTS[HYBRID], "")
    assert json.loads(config.read_text()) == wanted
    assert rule(job, "--config_name").endswith("MODEL")
    assert load(launch, UNSTRUCTURED, source, chosen).arguments.config_name is None


@pytest.mark.parametrize("source", SOURCES)
def test_from_a_bert_large_the_committed_config_is_taken(source: str, chosen: rules.Selection) -> None:
    large = rules.Selection("files", model=paths.SAMPLE / "model", train_file=chosen.train_file)
    job = load("kit", HYBRID, source, large)
    assert job.arguments.config_name == str(paths.PACKAGE / "configs" / HYBRID / "config.json")
    assert rule(job, "--config_name") == ""
    folder = Path(load("upstream", HYBRID, source, rules.Selection()).invocation.cwd)
    committed = folder / CONFIG.format(HYBRID)
    committed.parent.mkdir(parents=True)
    committed.write_bytes((paths.PACKAGE / "configs" / HYBRID / "config.json").read_bytes())
    assert load("upstream", HYBRID, source, large).arguments.config_name == CONFIG.format(HYBRID)


def test_what_somebody_wrote_into_the_kits_launch_file_stays(tmp_path: Path) -> None:
    text = paths.LAUNCH_FILE.read_text()
    for name in ("model", "train.json", "validation.json"):
        text = text.replace("${workspaceFolder}/launch/sample/" + name, f"/mine/{name}")
    edited = tmp_path / "launch.json"
    edited.write_text(text)
    job = jobs.load_job(str(edited), HYBRID, rules.Selection(), SOURCES["registry"])
    found = job.arguments
    assert (found.model_name_or_path, found.train_file) == ("/mine/model", "/mine/train.json")
    assert found.validation_file == "/mine/validation.json"
    assert not any(part.rules for part in job.parts if part.what != "env")


def test_a_configuration_of_another_program_runs_on_the_registry_alone(tmp_path: Path) -> None:
    edited = tmp_path / "launch.json"
    edited.write_text(paths.LAUNCH_FILE.read_text().replace("/launch/qa/run_qa.py", "/mine/run_qa.py"))
    with pytest.raises(KitError) as caught:
        jobs.load_job(str(edited), UNSTRUCTURED, rules.Selection(), SOURCES["fork"])
    assert "SOURCE=fork" in caught.value.what
    assert caught.value.where.startswith(f"{edited}, line ")
    assert "program = " in caught.value.where
    job = jobs.load_job(str(edited), UNSTRUCTURED, rules.Selection(), SOURCES["registry"])
    assert job.invocation.target[0].endswith("/mine/run_qa.py")


@pytest.mark.parametrize("content", [nested(), flat(), nested(question="Où va-t-il?")])
def test_the_flat_form_has_the_same_questions(tmp_path: Path, content: dict) -> None:
    path = write(tmp_path / "mine.json", content)
    made = rules.flatten_questions(path, "TRAIN_FILE")
    rows = json.loads(made.read_text())["data"]
    assert rows == [example.flat() for example in squad.read_questions(path, "TRAIN_FILE")]
    assert squad.read_questions(made, "TRAIN_FILE") == squad.read_questions(path, "TRAIN_FILE")


def test_the_flat_form_is_named_after_the_content_and_made_once(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.json", nested())
    made = rules.flatten_questions(path, "TRAIN_FILE")
    assert made == made_flat(path)
    made.write_text("made before")
    assert rules.flatten_questions(write(tmp_path / "copy.json", nested()), "TRAIN_FILE") == made
    assert made.read_text() == "made before"
    write(path, nested(id="q2"))
    assert rules.flatten_questions(path, "TRAIN_FILE") != made


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ({"data": [{}]}, "is missing"),
        ({"data": []}, "no questions"),
    ],
)
def test_a_file_without_questions_is_named_and_leaves_nothing(
    tmp_path: Path, chosen: rules.Selection, content: object, words: str
) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        write(path, content)
    selection = rules.Selection(**{**vars(chosen), "train_file": path})
    with pytest.raises(KitError, match=words) as caught:
        load("upstream", HYBRID, "fork", selection)
    assert caught.value.where.startswith(f"TRAIN_FILE={path}")
    assert not (paths.BUILD / "inputs").exists()


def edited(folder: Path, questions: Path) -> Path:
    """Return the kit's launch file with other questions in it."""
    text = paths.LAUNCH_FILE.read_text()
    for name in ("train", "validation"):
        text = text.replace(f"${{workspaceFolder}}/launch/sample/{name}.json", str(questions))
    launch = folder / "launch.json"
    launch.write_text(text)
    return launch


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", [HYBRID, "evaluate"])
def test_upstreams_script_gets_the_launch_files_questions_in_its_form(
    tmp_path: Path, name: str, mark: bytes
) -> None:
    mine = tmp_path / "mine.json"
    mine.write_bytes(mark + json.dumps(nested()).encode())
    job = jobs.load_job(str(edited(tmp_path, mine)), name, rules.Selection(), SOURCES["fork"])
    argument = "validation_file" if name == "evaluate" else "train_file"
    assert getattr(job.arguments, argument) == str(made_flat(mine))
    assert job.questions(argument) == mine
    assert "flat form" in rule(job, f"--{argument}")


@pytest.mark.parametrize("source", SOURCES)
def test_what_the_launch_file_names_is_named_with_its_place(tmp_path: Path, source: str) -> None:
    mine = write(tmp_path / "mine.json", nested())
    launch = edited(tmp_path, mine)
    job = jobs.load_job(str(launch), "evaluate", rules.Selection(), SOURCES[source])
    lines = launch.read_text().splitlines()
    line = next(
        n
        for n, text in enumerate(lines, 1)
        if '"args"' in text and n > lines.index('      "name": "evaluate",')
    )
    place = f"{launch}, line {line}, configurations[6].args: --validation_file"
    assert job.named("validation_file") == place
    write(mine, nested(question=7))

    def read() -> None:
        again = jobs.load_job(str(launch), "evaluate", rules.Selection(), SOURCES[source])
        squad.read_questions(again.questions("validation_file"), again.named("validation_file"))

    with pytest.raises(KitError) as caught:
        read()
    assert caught.value.where.replace("train_file", "validation_file").startswith(
        f"{place}={mine}: data[0].paragraphs[0].qas[0].question"
    )


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("launch", LAUNCHES)
def test_what_make_names_is_named_by_its_variable(launch: str, source: str, chosen: rules.Selection) -> None:
    job = load(launch, "evaluate", source, chosen)
    assert job.named("validation_file") == "VALIDATION_FILE"
    assert job.named("model_name_or_path") == "MODEL"
    assert job.questions("validation_file") == chosen.validation_file


def test_a_script_that_failed_has_the_persons_files_looked_through(chosen: rules.Selection) -> None:
    job = load("kit", "evaluate", "fork", chosen)
    assert str(chosen.validation_file) in program.cause_step(job)[1]
    assert job.arguments.validation_file not in program.cause_step(job)[1]


@pytest.mark.parametrize(
    ("values", "where"),
    [
        (("other", "", "", "", ""), "INPUT=other"),
        (("sample", "/m", "", "", ""), "MODEL=/m"),
        (("hub", "", "/t", "", ""), "TRAIN_FILE=/t"),
        (("hub", "", "", "/v", ""), "VALIDATION_FILE=/v"),
        (("files", "", "/t", "", ""), "MODEL is empty"),
        (("sample", "", "", "", "-1"), "SEED=-1"),
        (("sample", "", "", "", "4294967296"), "SEED=4294967296"),
    ],
)
def test_values_that_make_no_selection_are_named(values: tuple, where: str) -> None:
    with pytest.raises(KitError) as caught:
        rules.choose_inputs(*values)
    assert caught.value.where == where


def test_paths_are_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert rules.choose_inputs("files", "m", "t.json", "", "4294967295") == rules.Selection(
        "files", model=tmp_path / "m", train_file=tmp_path / "t.json", seed=4294967295
    )
