"""The help that ``make`` alone prints."""

import textwrap

from . import paths, resources
from .commands import OPTIONS
from .options import listing, variable
from .progress import duration
from .spec import bert_large
from .variants import VARIANTS


def text() -> str:
    """Return the help: targets by group, variables with their defaults, the five variants."""
    lines = listing(lambda name, command: f"make {name + ' ' + command.shown:<26}{command.summary}")
    lines += [
        "",
        "Variables, with their defaults; on make's command line, or exported as LAUNCH_OUT, LAUNCH_SEED …",
    ]
    for name, option in OPTIONS.items():
        what = option.what + (f" (default: {option.otherwise})" if option.otherwise else "")
        first, *rest = textwrap.wrap(what, 84)
        lines.append(f"  {variable(name) + '=' + option.shown:<27}{first}")
        lines += [" " * 29 + line for line in rest]
    lines += ["", "Variants V (24 layers, hidden size 1024, sequence length 384; times on 2 cores)"]
    lines.append(f"  {'':<32}{'heads':>5}{'intermediate':>14}{'time':>8}{'memory':>10}{'disk':>9}")
    for variant in VARIANTS.values():
        need = resources.estimate(bert_large(variant))
        lines.append(
            f"  {variant.name:<32}{variant.heads or 16:>5}{variant.intermediate_size or 4096:>14}"
            f"{duration(need.seconds):>8}"
            f"{need.memory / resources.GB:>7.1f} GB{need.disk / resources.GB:>6.1f} GB"
        )
    lines += [
        "",
        f"The first run also sets up {paths.shown(paths.VENV)} (2.7 GB) and compiles an extension.",
    ]
    return "\n".join(lines)
