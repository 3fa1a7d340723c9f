"""``python -m launch.verify OUT [V]``: verify the trees below a folder, or one, and say what they are.

Run in the kit's environment.  Ends with 0 where every tree passed, 1 where one did not.
"""

import sys
from pathlib import Path
from typing import List

from ..errors import exit_with_message
from ..progress import Progress, size
from . import tree
from .tree import Result


def _lines(result: Result) -> List[str]:
    lines = [
        f"  {'ok  ' if check.passed else 'FAIL'}  {check.name:<32}{check.text}" for check in result.checks
    ]
    for finding in result.findings:
        mark = "note" if finding.known else "FAIL"
        reason = f" ({finding.reason})" if finding.reason else ""
        lines.append(f"  {mark}  {finding.kind:<32}{finding.text}{reason}")
    return lines


def summary(result: Result) -> str:
    """Return a result in one line."""
    if result.passed:
        known = f", {len(result.findings)} known findings" if result.findings else ""
        return f"verified: {len(result.checks)} checks passed{known}"
    count = len(result.failed) + len(result.unknown)
    return f"NOT AS IT MUST BE: {count} of {len(result.checks) + len(result.findings)} checks failed"


def main() -> int:
    """Verify; return the exit status."""
    out, name = Path(sys.argv[1]), (sys.argv[2:] or [""])[0]
    passed = True
    for path in tree.chosen(out, name):
        with Progress(f"{path.name}", None) as progress:
            result = tree.verify(path, Path(sys.executable), progress.tick)
            progress.done(f"largest process {size(result.peak_bytes)}")
        print(f"{path.name}: {summary(result)}")
        print("\n".join(_lines(result)), flush=True)
        passed = passed and result.passed
    return 0 if passed else 1


if __name__ == "__main__":
    exit_with_message(main)
