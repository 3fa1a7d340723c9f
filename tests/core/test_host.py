"""What a provenance says of the machine, and texts without the machine's folders."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.core import hidden, machine, paths

CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: A Processor (R) @ 2.20GHz\ncores\t: 2\n"


def test_facts_are_the_systems() -> None:
    found = machine.describe_host(str(paths.VENV_PYTHON))
    assert set(found) == {"system", "machine", "processor", "cores", "memory_bytes", "python"}
    assert found["system"].split() == [platform.system(), platform.release()]
    assert found["machine"] == platform.machine()
    assert 1 <= found["cores"] <= (os.cpu_count() or 1)
    total = next(
        line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal")
    )
    # The kernel's own part is in neither.
    assert found["memory_bytes"] == pytest.approx(int(total.split()[1]) * 1024, rel=0.01)
    done = subprocess.run(
        [str(paths.VENV_PYTHON), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found["python"] == done.stdout.strip()
    assert platform.node() not in found.values(), "the machine's name is nobody's business"


def test_cores_are_those_that_the_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from launch.core import machine; print(machine.describe_host('')['cores'])"
    argv = [sys.executable, "-c", code]
    done = subprocess.run(argv, cwd=str(paths.REPOSITORY), capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_the_processor_is_named_where_the_system_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "_CPUINFO", cpuinfo)
    assert machine.read_processor() == ""
    cpuinfo.write_text(CPUINFO * 2)
    assert machine.read_processor() == "A Processor (R) @ 2.20GHz"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert machine.read_processor() == ""


def test_the_version_of_an_interpreter_outside_of_an_environment_is_not_known(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    assert machine.read_python_version(str(python)) == ""
    assert machine.read_python_version("python3") == ""
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.9.1.final.0\n")
    assert machine.read_python_version(str(python)) == "3.9.1"


# --- texts without folders -------------------------------------------------------------------------------

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
