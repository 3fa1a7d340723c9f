"""What follows from measurements: medians and spread, speed-ups, arithmetic, warnings; as tables of text."""

import json
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from ..core import files, paths
from ..core.errors import KitError
from ..core.progress import align_columns, escape_text
from ..model.variants import BLOCK_PREFIX, HEAD, Spec

GENERATOR = "sparse BERT reproduction kit, bench"
"""Marks what the kit has written."""

FORMAT = 1
SCHEMA = Path(__file__).with_name("bench_schema.json")
PRODUCT = "product"
"""The kind of a measurement of one matrix product."""

NOTHING = "–"
"""The cell of an unknown value."""

SPREAD = 0.1
"""Spread by the median above which there is a warning; and how near 1 a factor is that stands for nothing."""

IDLE = 0.5
"""Load average, in processes, above which the machine was not idle."""

_MOST_BYTES = 64 << 20  # of a results file
_UNITS = {"latency": 1e3, "throughput": 1.0}  # ms, runs a second

Content = Dict[str, Any]
Row = List[str]


def count_macs(spec: Spec, length: int) -> int:
    """Return the multiplications of one sequence of ``length`` tokens: products with weights, and attention's
    two products of activations, each of length × length × head size for a head.
    """
    return length * count_weights(spec) + 2 * length * length * spec.head_size * sum(spec.heads)


def count_weights(spec: Spec) -> int:
    """Return the weights of the matrices that each run reads whole: all but the tables of embeddings."""
    return sum(
        rows * columns
        for name, (rows, columns) in spec.matrices().items()
        if name.startswith(BLOCK_PREFIX) or name == HEAD
    )


class Summary(NamedTuple):
    """What was measured of a cell: seconds of a run, or runs in a second; ``memory``: bytes.

    :param spread: from the first quartile to the third.
    """

    median: float
    spread: float
    p99: float
    runs: int
    memory: int


def summarize(cell: Optional[Content]) -> Optional[Summary]:
    """Return the summary of a cell; None where there is none, or it failed."""
    import numpy

    measured = cell["measured"] if cell else {}
    if not measured:
        return None
    values = [value for turn in measured.get("turns", [[measured.get("rate")]]) for value in turn]
    first, middle, third, most = map(float, numpy.quantile(values, (0.25, 0.5, 0.75, 0.99)))
    return Summary(middle, third - first, most, len(values), measured["memory"])


class Figures:
    """Results, as :func:`read_results` returns them, with what follows."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.trees: Dict[str, Content] = {tree["name"]: tree for tree in content["trees"]}
        self.runtimes: Dict[str, str] = {name: one["label"] for name, one in content["runtimes"].items()}
        self._cells: Dict[Tuple[str, str, str, str], Content] = {
            (cell["tree"], cell["runtime"], cell["kind"], cell["mode"]): cell
            for cell in content["cells"]
            if cell["tree"]
        }

    def find(self, tree: str, runtime: str, kind: str = "own", mode: str = "latency") -> Optional[Summary]:
        """Return the summary of a cell; None where there is none, or it failed."""
        return summarize(self._cells.get((tree, runtime, kind, mode)))

    def find_reference(self, tree: Content, quantized: bool) -> str:
        """Return the name of the dense tree of the same model; empty where there is none."""
        same = ("layers", "hidden", "dense_block_weights")
        for one in self.content["trees"]:
            fits = all(one["model"][name] == tree["model"][name] for name in same)
            if fits and one["dense"] and one["quantized"] == quantized:
                return str(one["name"])
        return ""

    def compare_turns(self, runtime: str, one: Tuple[str, str], other: Tuple[str, str]) -> Optional[float]:
        """Return how many times as long as ``other`` ``one`` takes, each a tree and a kind: of the medians in
        each turn, which are near each other in time, the median ratio.
        """
        cells = [self._cells.get((tree, runtime, kind, "latency")) for tree, kind in (one, other)]
        turns = [cell["measured"]["turns"] for cell in cells if cell and "turns" in cell["measured"]]
        return median(median(a) / median(b) for a, b in zip(*turns)) if len(turns) == 2 else None

    def speed_up(self, tree: Content, runtime: str, quantized: bool) -> Optional[float]:
        """Return how many times as fast as its dense reference a tree is."""
        dense = self.find_reference(tree, quantized)
        return self.compare_turns(runtime, (dense, "own"), (tree["name"], "own"))

    def split_gain(self, tree: Content, runtime: str) -> Tuple[Optional[float], Optional[float]]:
        """Return the factors that removed structure and scattered zeros give over dense int8: dense over
        without zeros, and that over the tree's own.
        """
        own, filled = ((tree["name"], kind) for kind in ("own", "filled"))
        dense = (self.find_reference(tree, True), "own")
        return self.compare_turns(runtime, dense, filled), self.compare_turns(runtime, filled, own)

    def speed(self, tree: Content, runtime: str) -> Optional[float]:
        """Return the multiplications in a second, one sequence at a time."""
        own = self.find(tree["name"], runtime)
        return tree["macs"] / own.median if own else None

    def peak(self, runtime: str) -> Optional[float]:
        """Return the multiplications in a second of the fastest run of an int8 product."""
        speeds = [
            cell["macs"] / min(map(min, cell["measured"]["turns"]))
            for cell in self.content["cells"]
            if (cell["kind"], cell["runtime"]) == (PRODUCT, runtime) and "turns" in cell["measured"]
        ]
        return max(speeds, default=None)

    @property
    def failed(self) -> List[str]:
        """What failed, and why, a line each."""
        return [
            f"FAILED: {self._describe(cell)}: {cell['error']}"
            for cell in self.content["cells"]
            if cell["error"]
        ]

    def _describe(self, cell: Content) -> str:
        words = [cell["tree"], cell["kind"].replace("own", ""), cell["mode"]]
        return f"{' '.join(filter(None, words))} in {self.runtimes[cell['runtime']]}"

    def warnings(self) -> List[str]:
        """Return the signs that the machine was busy, a line each."""
        load, lines = self.content["load"]["before"][0], []
        if load > IDLE:
            lines.append(f"warning: other work ran on the machine: its load before was {load:.2f}")
        found = [(summarize(cell), self._describe(cell)) for cell in self._cells.values()]
        spread = [(one.spread / one.median, text) for one, text in found if one]
        busy = [pair for pair in spread if pair[0] > SPREAD]
        if busy:
            lines.append(
                f"warning: the machine was busy: of {len(busy)} of {len(spread)} measurements the spread is"
                f" over {SPREAD:.0%} of the median, most in {max(busy)[1]}, {max(busy)[0]:.0%}"
            )
        return lines

    def notes(self) -> List[str]:
        """Return what a reader of the tables has to know, a line each."""
        host, settings = self.content["host"], self.content["settings"]
        sets = ", ".join(host["instructions"]) or "none of AVX2, AVX-512, VNNI and AMX"
        load = self.content["load"]
        lines = [
            f"{host['processor'] or host['machine']}, {host['cores']} cores, {settings['threads']} threads;"
            f" instructions: {sets}, which each runtime may use",
            f"load average {load['before'][0]:.2f} before, {load['after'][0]:.2f} after; latency:"
            f" {settings['rounds']} turns of each model; throughput: batches of {settings['batch']}, OpenVINO"
            " with as many requests as it calls optimal, ONNX Runtime with one session and a caller for each"
            " thread",
        ]
        for runtime, label in self.runtimes.items():
            peak, kernels = self.peak(runtime), self._kernels(runtime)
            if peak:
                text = f"; products in the models: {kernels}" if kernels else ""
                lines.append(f"{label}: peak {peak / 1e9:.0f} GMAC/s, of one int8 product{text}")
            effects = [self.split_gain(tree, runtime)[1] for tree in self.trees.values()]
            known = [one for one in effects if one]
            if known:
                none = all(abs(one - 1) <= SPREAD for one in known)
                text = "no effect on this processor, " if none else ""
                text += f"× {min(known):.2f} to {max(known):.2f} over the same IR with random levels"
                lines.append(f"scattered zeros in {label}: {text} in place of int8 zeros")
        if "amx_int8" not in host["instructions"]:
            lines.append("CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE: no effect on this processor: no AMX")
        return lines + self._missing()

    def _kernels(self, runtime: str) -> str:
        found: Dict[str, int] = Counter()
        for cell in self._cells.values():
            if cell["runtime"] == runtime and cell["kind"] == "own" and cell["measured"]:
                found.update(cell["measured"]["kernels"])
        return ", ".join(sorted(found, key=lambda name: -found[name]))

    def _missing(self) -> List[str]:
        lines = []
        for tree in self.content["trees"]:
            for quantized, kind, words in ((True, "int8", ""), (False, "fp32", " PRECISION=fp32")):
                if not self.find_reference(tree, quantized):
                    lines.append(f"no dense {kind}: make variant V={_name_dense(tree['model'])}{words}")
        return list(dict.fromkeys(lines))

    def tables(self) -> Dict[str, List[Row]]:
        """Return tables by title: a row of headings, and the others; the first two columns are words."""
        speed, gain, size, batch = [_SPEED], [_GAIN], [_SIZE], self.content["settings"]["batch"]
        for name, tree in self.trees.items():
            for runtime, label in self.runtimes.items():
                own = self.find(name, runtime)
                many = self.find(name, runtime, mode="throughput")
                rate, peak = self.speed(tree, runtime), self.peak(runtime)
                share = rate / peak if rate and peak and tree["quantized"] else None
                row = [name, label, *_latency(own), _number(many and many.median * batch, ".3g")]
                row.append(_number(own and own.memory / 1e6, ".0f"))
                row += [_number(self.speed_up(tree, runtime, one), ".2f") for one in (True, False)]
                speed.append([*row, _number(rate and rate / 1e9, ".0f"), _number(share, ".0%")])
                structure, zeros = self.split_gain(tree, runtime)
                packed = self.compare_turns(runtime, (name, "own"), (name, "compressed"))
                if zeros:
                    factors = (structure, zeros, packed)
                    gain.append([name, label, *(_number(factor, ".2f") for factor in factors)])
            model = tree["model"]
            row = [name, "int8" if tree["quantized"] else "fp32", str(max(model["heads"]))]
            row += [str(model["intermediate_size"]), f"{tree['kept']:.1%}", f"{tree['zeros']:.1%}"]
            size.append([*row, f"{tree['macs'] / 1e9:.1f}", f"{tree['weight_bytes'] / 1e6:.1f}"])
        found = {"Latency (ms) and throughput": speed, "Structure against zeros": gain, "Arithmetic": size}
        return {title: rows for title, rows in found.items() if len(rows) > 1}

    def compare(self, base: "Figures") -> Tuple[List[Row], List[str]]:
        """Return a table of the cells that an earlier run has, too, and warnings where the two differ."""
        rows = [["variant", "runtime", "what", "base", "now", "times as fast"]]
        for key in self._cells:
            tree, runtime, kind, mode = key
            now, before = (one.find(tree, runtime, kind, mode) for one in (self, base))
            if now and before:
                ratio = now.median / before.median
                ratio = 1 / ratio if mode == "latency" else ratio
                ends = [f"{one.median * _UNITS[mode]:.4g}" for one in (before, now)]
                what = f"{mode} {kind}".replace(" own", "")
                rows.append([tree, self.runtimes[runtime], what, *ends, f"{ratio:.2f}"])
        places = (
            *(("host", name) for name in ("processor", "cores", "instructions")),
            *(("settings", name) for name in ("threads", "batch", "length")),
        )
        differ = [(name, base.content[part][name], self.content[part][name]) for part, name in places]
        differ += [
            (name, base.runtimes[name], label)
            for name, label in self.runtimes.items()
            if name in base.runtimes
        ]
        none = ["warning: BASE has none of these measurements"] if len(rows) == 1 else []
        return rows, none + [
            f"warning: another {name} than in BASE: {_show(now)}, not {_show(before)}"
            for name, before, now in differ
            if before != now
        ]


_SPEED = ["variant", "runtime", "median", "spread", "p99", "runs", "sequences/s", "MB"]
_SPEED += ["× dense int8", "× dense fp32", "GMAC/s", "of peak"]
_GAIN = ["variant", "runtime", "× by structure", "× by zeros", "× by compressing them"]
_SIZE = ["variant", "weights", "heads", "intermediate", "kept", "zeros in it", "GMAC", "weights, MB"]


def _name_dense(model: Content) -> str:
    spec = Spec.from_model("", model)
    return f"00pc_sparse-{spec.hidden // spec.head_size:02}_head-{spec.dense_intermediate_size:04}_ffnn"


def _show(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _number(value: Optional[float], form: str) -> str:
    return NOTHING if value is None else format(value, form)


def _latency(found: Optional[Summary]) -> Row:
    if found is None:
        return [NOTHING] * 4
    return [*(f"{value * 1e3:.4g}" for value in found[:3]), str(found.runs)]


def _format_table(title: str, rows: Sequence[Row], words: int) -> List[str]:
    """Return a table's lines; all columns but the first ``words`` are flush right."""
    shown = align_columns([[escape_text(word) for word in row] for row in rows], range(words, len(rows[0])))
    return [title, *("  " + row for row in shown), ""]


def write_text(figures: Figures, base: Optional[Figures]) -> str:
    """Return tables, notes, warnings and failures for the terminal."""
    lines = [line for title, rows in figures.tables().items() for line in _format_table(title, rows, 2)]
    warnings = figures.warnings()
    if base:
        rows, more = figures.compare(base)
        lines += _format_table("Against BASE", rows, 3)
        warnings += more
    return "\n".join([*lines, *map(escape_text, (*figures.notes(), *warnings, *figures.failed))])


def read_results(path: Path, option: str = "") -> Figures:
    """Return the results in a file, which ``option`` may have named.

    :raises KitError: it is no file of the kit's results.
    """
    import jsonschema

    where = (f"{option}=" if option else "") + paths.show_path(path)
    hint = "Measure again (make bench), or remove it."
    hint = f"Set {option}= to the bench.json of an earlier make bench." if option else hint
    try:
        content = json.loads(files.read_bytes(path, _MOST_BYTES).decode("utf-8"))
        jsonschema.validate(content, json.loads(SCHEMA.read_text(encoding="utf-8")))
        return Figures(content)
    except OSError as error:
        raise KitError(f"The results cannot be read: {error.strerror}.", where=where, hint=hint) from None
    except (ValueError, RecursionError, jsonschema.ValidationError) as error:
        text = str(getattr(error, "message", error))[:200]
        raise KitError(f"The file is none of make bench's: {text}.", where=where, hint=hint) from None
