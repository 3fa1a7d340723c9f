"""How to make a tree again: the commands that its provenance stands for."""

import re
import shlex
from typing import Any, Dict, List

from ..model import hub_list

_KITS_LAUNCH_FILE = re.compile(r"(?: in |\$\{workspaceFolder\}/)(?:\.vscode|launch)/launch\.json$")
"""The kit's own at the commit that the provenance names; earlier commits have it in ``launch/``."""

_UPSTREAMS_LAUNCH_FILE = "vscode-launch.json"
_SAMPLE = "launch/sample/"
_READ = ("--model_name_or_path", "--train_file")


def list_commands(provenance: Dict[str, Any]) -> List[str]:
    """Return the commands, in order, for a shell in a checkout of the kit.

    What was named by a path of a machine stands as ``<…>``, quoted; its digest is among the inputs.
    """
    commit = provenance["kit"]["commit"]
    words = [
        f"V={provenance['variant']}",
        f"SOURCE={provenance['source']['name']}",
        f"SEED={provenance['weights']['seed']}",
        f"THREADS={provenance['weights']['threads']}",
        *_inputs(provenance),
        f"MO={provenance['model_optimizer']}",
    ]
    launch = provenance["command"]["launch"]
    if _UPSTREAMS_LAUNCH_FILE in launch:
        words.append("LAUNCH=upstream")
    elif not _KITS_LAUNCH_FILE.search(launch):
        words.append("LAUNCH=<the launch file>")
    before = [f"git checkout {shlex.quote(commit)}"] if commit else []
    before += ["make third_party"] if provenance["source"]["name"] == "fork" else []
    return [*before, " ".join(["make", "variant", *map(shlex.quote, words)])]


def _inputs(provenance: Dict[str, Any]) -> List[str]:
    if "hub" in provenance:
        read, listed = provenance["hub"], hub_list.read_hub_list(hub_list.LIST)
        kits = (read["repository"], read["revision"]) == (listed.repository, listed.revision)
        kits = kits and listed.train.sha256 in read["files"].values()
        return ["INPUT=hub"] if kits else ["INPUT=hub", "HUB=<list>"]
    words = provenance["command"]["argv"]
    # As both --name value and --name=value.
    values = [value for word, value in zip(words, words[1:]) if word in _READ]
    values += [word for word in words if word.split("=", 1)[0] in _READ and "=" in word]
    if values and all(_SAMPLE in value for value in values):
        return ["INPUT=sample"]
    return ["INPUT=files", "MODEL=<folder>", "TRAIN_FILE=<questions.json>"]
