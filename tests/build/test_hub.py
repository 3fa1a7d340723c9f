"""INPUT=hub against a hub of today's manner on this machine: what is downloaded, checked, kept, and told."""

import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import pytest

from launch.artifact import sums
from launch.core import paths
from launch.core.errors import KitError
from launch.model import hub_list

from .. import hub_server
from ..conftest import HYBRID, TINY, Kit, assert_user_error, call, run, write_model
from ..hub_server import CHUNK, TOKEN, TRAIN, Place, once, sum_of

# --- what is downloaded ----------------------------------------------------------------------------------


def test_what_upstream_names_cannot_be_had_by_the_library_of_its_time(
    place: Place, derived_source: Path
) -> None:
    """Why the kit downloads for it: this is transformers 4.9.1 with the hub of today."""
    code = "import sys, transformers; transformers.AutoConfig.from_pretrained(sys.argv[1])"
    env = {**place.env, "HUGGINGFACE_CO_RESOLVE_ENDPOINT": place.server.address}
    done = run(
        [sys.executable, "-c", code, hub_server.REPOSITORY], env={**env, "PYTHONPATH": str(derived_source)}
    )
    assert done.returncode
    assert "Can't load config" in done.stderr
    assert place.server.asked("HEAD", "config.json"), "it has asked this hub"


@pytest.mark.parametrize("repository", [hub_server.REPOSITORY, hub_server.OLD_NAME])
def test_files_are_those_of_the_hub_and_are_asked_for_once(
    place: Place, repository: str, capfd: pytest.CaptureFixture[str]
) -> None:
    place.content["model"]["repository"] = repository
    place.write()
    found = place.local(weights=True)
    server = place.server
    assert {path.name: path.read_bytes() for path in found.model.iterdir()} == server.files
    assert found.questions is not None
    assert (found.questions.name, found.questions.read_bytes()) == ("train.json", TRAIN)
    assert found.downloaded == {
        "repository": repository,
        "revision": hub_server.REVISION,
        "files": {
            **{name: sum_of(content) for name, content in server.files.items()},
            "train.json": sum_of(TRAIN),
        },
    }
    said = capfd.readouterr().err
    assert f"{repository} at {hub_server.REVISION}" in said
    assert "model.safetensors (0.2 MB)" in said
    assert not server.asked("GET", "dev.json"), "no one has asked for these"
    count = len(server.requests)
    assert place.local(weights=True) == found
    assert len(server.requests) == count
    shutil.rmtree(str(place.base))  # make clean
    again = place.local(weights=True)
    assert (again, len(server.requests)) == (found, count), "the cache has all"
    assert capfd.readouterr().err == ""


def test_weights_are_in_a_folder_of_their_own(place: Place) -> None:
    model, checkpoint = place.local().model, place.local(weights=True).model
    assert {path.name for path in checkpoint.iterdir()} - {path.name for path in model.iterdir()} == {
        "model.safetensors"
    }
    assert place.local("").questions is None


def test_the_cache_is_the_librarys_own_and_the_token_is_for_the_hub_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "elsewhere"))
    found = place.local(weights=True)
    for path in found.model.iterdir():
        assert tmp_path / "elsewhere" in path.resolve().parents
    for _, path, _, authorization in place.server.requests:
        to_hub = not path.startswith(("/store/", "/train.json"))
        assert authorization == (f"Bearer {TOKEN}" if to_hub else "")
    assert place.server.asked("GET", "/store/model.safetensors")
    assert TOKEN not in "".join(capfd.readouterr())


def test_what_was_changed_in_the_cache_is_downloaded_again(place: Place) -> None:
    found = place.local(weights=True)
    assert found.questions is not None
    changed = [found.model / "vocab.txt", found.model / "model.safetensors", found.questions]
    for path in changed:
        path.resolve().write_bytes(b"x" * path.stat().st_size)
    assert place.local(weights=True) == found
    for path, content in zip(
        changed, (*map(place.server.files.get, ("vocab.txt", "model.safetensors")), TRAIN)
    ):
        assert path.read_bytes() == content
        assert len(place.server.asked("GET", path.name)) >= 2


# --- what goes wrong on the way --------------------------------------------------------------------------


def test_a_cut_connection_is_gone_on_with(place: Place) -> None:
    place.enlarge()
    weights, train = place.server.files["model.safetensors"], place.server.pages["/train.json"]
    place.server.special += [
        once("/store/model.safetensors", lambda h: h.content(weights, cut=2 * CHUNK + 1)),
        once("/train.json", lambda h: h.content(train, cut=CHUNK + 1)),
    ]
    found = place.local(weights=True)
    assert (found.model / "model.safetensors").read_bytes() == weights
    for end, kept in (("/store/model.safetensors", 2 * CHUNK), ("/train.json", CHUNK)):
        assert [request[2] for request in place.server.asked("GET", end)] == ["", f"bytes={kept}-"]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_resumes(place: Place, kit: Kit, signal_number: int) -> None:
    place.enlarge()

    def stall(handler: Any) -> None:
        content = place.server.pages["/train.json"]
        handler.head(200, len(content))
        handler.wfile.write(content[: CHUNK + 1])
        handler.wfile.flush()
        time.sleep(60)

    place.server.special.append(once("/train.json", stall))
    argv = kit.argv("command", HYBRID, input="hub", hub=place.list, **NONE)
    process = subprocess.Popen(
        argv,
        cwd=str(paths.REPOSITORY),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size == CHUNK for path in place.home.rglob("train.json.incomplete")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal_number)
    assert process.wait() != 0
    done = run(argv)
    assert done.returncode == 0, done.stderr
    assert place.server.asked("GET", "/train.json")[-1][2] == f"bytes={CHUNK}-"


def test_on_a_terminal_it_shows_how_far_it_is(place: Place, kit: Kit) -> None:
    read_end, write_end = pty.openpty()  # one that does not know its size
    argv = kit.argv("command", HYBRID, input="hub", hub=place.list, **NONE)
    process = subprocess.Popen(
        argv, cwd=str(paths.REPOSITORY), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=write_end
    )
    os.close(write_end)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's word for the other end's being closed
        while True:
            shown += os.read(read_end, 65536)
    os.close(read_end)
    assert process.wait() == 0, shown
    assert b"train.json: 100%" in shown


def test_a_hub_that_is_busy_is_asked_again(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    place.server.special.append(once("/config.json", lambda h: h.head(503), "HEAD"))
    place.local()
    said = capfd.readouterr().err
    assert "Retrying in 1s" in said
    assert "thrown while" not in said
    assert place.server.address not in said


REFUSALS = [
    ("HEAD", 401, {"X_Error_Message": "Invalid credentials in Authorization header"}, ["(401)", "HF_TOKEN"]),
    ("HEAD", 401, {"X_Error_Code": "GatedRepo"}, ["(401)", "with the token that was sent", "HF_TOKEN"]),
    ("HEAD", 403, {}, ["(403)", "HF_TOKEN"]),
    ("HEAD", 404, {"X_Error_Code": "EntryNotFound"}, ["(404, EntryNotFound)", "launch/model/hub.json"]),
    ("HEAD", 404, {"X_Error_Code": "RevisionNotFound"}, ["(404, RevisionNotFound)"]),
    ("HEAD", 429, {"Retry_After": "217"}, ["(429)", "Wait 217 seconds"]),
    ("GET", 429, {}, ["(429)", "some minutes"]),
    ("GET", 404, {}, ["(404)", "launch/model/hub.json"]),
    ("GET", 400, {}, ["an error: 400"]),
]


@pytest.mark.parametrize(("method", "status", "headers", "words"), REFUSALS)
def test_a_refusal_is_explained(
    place: Place, method: str, status: int, headers: Dict[str, str], words: List[str]
) -> None:
    end = "/config.json" if method == "HEAD" else "/train.json"
    place.server.special.append(once(end, lambda h: h.head(status, **headers), method, times=9))
    with pytest.raises(KitError) as caught:
        place.local()
    said = str(caught.value)
    for word in words:
        assert word in said
    assert caught.value.where.startswith("INPUT=hub: ")
    assert caught.value.hint
    assert TOKEN not in said


def test_without_a_route_it_says_so_and_the_way_out(
    place: Place, monkeypatch: pytest.MonkeyPatch, kit: Kit
) -> None:
    place.content["questions"]["train"]["address"] = "http://127.0.0.1:9/train.json"
    place.write()
    with pytest.raises(KitError, match="Connection refused") as caught:
        place.local()
    for word in ("HTTPS_PROXY", "HF_ENDPOINT", "INPUT=files", "INPUT=sample", "resumes"):
        assert word in caught.value.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = kit.run("variant", HYBRID, input="hub", hub=place.list, **NONE)
    assert_user_error(done, "HF_HUB_OFFLINE", "train.json", "INPUT=files", "INPUT=sample")


NONE: Dict[str, Any] = {"model": None, "train_file": None, "validation_file": None}
"""Options that the tests give otherwise, and that have no meaning with INPUT=hub."""


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "train.json"])
@pytest.mark.parametrize("changed", ["bytes", "sha256"])
def test_a_file_that_is_not_the_listed_one_is_an_error_and_not_kept(
    place: Place, name: str, changed: str
) -> None:
    listed = place.content["model"]["files"], place.content["model"]["weights"]
    entry = next((group[name] for group in listed if name in group), place.content["questions"]["train"])
    entry[changed] = 3 if changed == "bytes" else "0" * 64
    place.write()
    with pytest.raises(KitError) as caught:
        place.local(weights=True)
    assert name in caught.value.where
    assert changed == "bytes" or "0" * 64 in caught.value.what
    content = place.server.files.get(name, TRAIN)
    kept = [path for path in place.home.rglob("*") if path.is_file() and path.stat().st_size]
    assert sum_of(content) not in [sum_of(path.read_bytes()) for path in kept]


def test_bytes_that_are_not_those_the_hub_tells_of_are_an_error_and_the_next_run_has_the_right_ones(
    place: Place,
) -> None:
    for end, weights in (("/vocab.txt", False), ("/store/model.safetensors", True)):
        name = end.rpartition("/")[2]
        wrong = b"x" * len(place.server.files[name])
        place.server.special = [once(end, lambda h, wrong=wrong: h.content(wrong))]
        with pytest.raises(KitError, match="the hub says") as caught:
            place.local(weights=weights)
        assert name in caught.value.where
        found = place.local(weights=weights)
        assert (found.model / name).read_bytes() == place.server.files[name]


def test_a_file_without_a_listed_sum_stays_what_it_was_at_first(place: Place) -> None:
    first = place.local().downloaded
    shutil.rmtree(str(place.home / "hub"))
    shutil.rmtree(str(place.base))
    place.server.files["config.json"] += b"\n"
    with pytest.raises(KitError, match="at the first download") as caught:
        place.local()
    assert "config.json" in caught.value.where
    place.server.files["config.json"] = place.server.files["config.json"][:-1]
    assert place.local().downloaded == first


def test_another_revision_than_the_listed_one_is_refused(place: Place) -> None:
    place.content["model"]["revision"] = "f" * 40
    place.write()
    with pytest.raises(KitError, match="another revision"):
        place.local()


def test_what_is_no_hub_is_named(place: Place) -> None:
    place.server.special.append(lambda handler: bool(handler.head(200) or True))
    with pytest.raises(KitError, match="no model hub") as caught:
        place.local()
    assert "HF_ENDPOINT" in caught.value.hint


def test_room_is_looked_for_before(place: Place) -> None:
    place.content["questions"]["train"]["bytes"] = 10**18
    place.write()
    with pytest.raises(KitError, match="too little free disk space"):
        place.local()
    assert place.kept() == []


def test_a_cache_that_cannot_be_written_to_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.home.write_text("a file in the way")
    with pytest.raises(KitError) as caught:
        place.local()
    assert "HF_HOME" in str(caught.value)
    assert str(place.home) not in str(caught.value)


# --- the list --------------------------------------------------------------------------------------------


def test_the_kits_list_can_be_read_and_is_of_one_revision() -> None:
    found = hub_list.read_hub_list(hub_list.LIST)
    assert {file.name for file in found.model} >= {"config.json", "vocab.txt"}
    assert [file.bytes for file in (found.train, found.validation)] == [30_288_272, 4_854_279]


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("model", "revision"), "main", "revision"),
        (("model", "repository"), "a/b/c", "repository"),
        (("model", "repository"), None, "repository"),
        (("model", "files"), [], "stands where"),
        (("model", "files"), {"../config.json": {}}, "name of a file"),
        (("model", "files"), {"config.json": {"sha256": "0"}}, "sha256"),
        (("model", "files"), {"config.json": {"bytes": "1"}}, "number of bytes"),
        (("model", "files"), {"config.json": {"sha": 1}}, "means nothing"),
        (("model", "files"), {"train.json": {}}, "one name"),
        (("questions", "train"), {"address": "ftp://somewhere/train.json"}, "address"),
        (("questions", "train"), {"address": "http://somewhere/train.json"}, "bytes"),
        (("questions",), {}, "train"),
    ],
)
def test_a_malformed_list_is_named(place: Place, path: Any, value: Any, word: str) -> None:
    part = place.content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    place.list = place.list.with_name("other.json")
    place.write()
    with pytest.raises(KitError, match=word) as caught:
        hub_list.read_hub_list(place.list)
    assert caught.value.where == f"HUB={place.list}"


# --- whole commands --------------------------------------------------------------------------------------


def test_a_variant_is_made_of_what_the_hub_has(built: Kit, place: Place, kit: Kit) -> None:
    """The run is that of the shared tree, whose files are taken: it was made of the same bytes."""
    shutil.copytree(str(built.tree(HYBRID)), str(kit.tree(HYBRID)))
    (kit.tree(HYBRID) / sums.NAME).unlink()  # so that it is published anew
    argv = kit.argv("variant", HYBRID, input="hub", hub=place.list, **NONE)
    done = run(argv)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("unchanged, taken from the published tree") == 2
    made = json.loads((kit.tree(HYBRID) / "provenance.json").read_text())
    assert made["hub"]["repository"] == hub_server.REPOSITORY
    assert made["hub"]["revision"] == hub_server.REVISION
    wanted = {
        name: sum_of(content) for name, content in place.server.files.items() if "safetensors" not in name
    }
    assert made["hub"]["files"] == {**wanted, "train.json": sum_of(TRAIN)}
    environment = made["command"]["environment"]
    assert (environment["TRANSFORMERS_OFFLINE"], environment["HF_DATASETS_OFFLINE"]) == ("1", "1")
    assert str(place.home) not in json.dumps(made)
    assert TOKEN not in json.dumps(made)
    count = len(place.server.requests)
    again = run(argv)
    assert again.returncode == 0, again.stderr
    assert "(up to date)" in again.stdout
    same = kit.run("variant", HYBRID)
    assert same.stdout == again.stdout, "the run is that of INPUT=files"
    assert len(place.server.requests) == count
    page = call(["report", f"--out={kit.out}"])
    assert page.returncode == 0, page.stderr
    assert "INPUT=hub" in (kit.out / "report.html").read_text()


def test_an_evaluation_reads_the_hubs_weights(place: Place, kit: Kit, tmp_path: Path) -> None:
    """The result is that of the same folder as INPUT=files."""
    import transformers
    from safetensors.torch import save_file

    folder = write_model(tmp_path / "saved", **{**TINY, "hidden_size": 32, "intermediate_size": 128})
    config = transformers.AutoConfig.from_pretrained(str(folder))
    model = transformers.BertForQuestionAnswering(config)
    save_file(model.state_dict(), str(folder / "model.safetensors"), metadata={"format": "pt"})
    place.server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    place.list_all()
    results = []
    for options in ({"input": "hub", "hub": place.list, **NONE}, {"model": folder, "train_file": None}):
        done = kit.run("evaluate", "", **options)
        assert done.returncode == 0, done.stderr
        results.append(json.loads((kit.folder / "evaluate" / "eval_results.json").read_text()))
    assert results[0] == results[1]
    assert results[0]["weights"] == "checkpoint"
    assert not place.server.asked("GET", "train.json")
