"""Results of measuring models, as made up: what `make bench` writes."""

from pathlib import Path
from typing import Any, Dict, List

from launch.model.variants import VARIANTS, make_bert_large
from launch.runtimes import bench, bench_figures

from .conftest import HYBRID, UNSTRUCTURED

RUNTIMES = {"openvino": "OpenVINO 1", "onnxruntime": "ONNX Runtime 1"}


def make_tree(variant_name: str, **changes: Any) -> Dict[str, Any]:
    variant = VARIANTS[variant_name]
    subject = bench.Subject(Path(variant_name), variant, make_bert_large(variant), 384, 0.8)
    return {**subject.describe(), **changes}


def make_cell(tree: str, turns: List[List[float]], **changes: Any) -> Dict[str, Any]:
    """Return a measurement; one without turns has failed."""
    common = {"requests": 1, "memory": 2 * 10**8, "load": 1.0, "difference": 0.01, "kernels": {}}
    usual = {"tree": tree, "runtime": "openvino", "kind": "own", "mode": "latency", "error": "", "macs": 1e9}
    measured = {"turns": turns, **common} if turns else {}
    return {**usual, "shape": [1, 384], "measured": measured, **changes}


def make_content() -> Dict[str, Any]:
    """Return results of two variants and both dense references in two runtimes, one of which failed once."""
    dense = {"dense": True, "zeros": 0.004}
    trees = [
        make_tree(HYBRID),
        make_tree(UNSTRUCTURED),
        make_tree(UNSTRUCTURED, name="dense", **dense),
        make_tree(UNSTRUCTURED, name="dense-fp32", quantized=False, **dense),
    ]
    cells = [
        make_cell(HYBRID, [[0.05], [0.05]]),
        make_cell(HYBRID, [[0.06], [0.06]], kind="filled"),
        make_cell(UNSTRUCTURED, [[0.3, 0.29], [0.31, 0.3]]),
        make_cell("dense", [[0.3], [0.3]]),
        make_cell("dense-fp32", [[1.2], [1.2]]),
        make_cell("", [[0.02, 0.01], [0.01]], kind="product", macs=4e9),
        make_cell("", [[0.001], [0.001]], kind="product", macs=3e8),
        make_cell(HYBRID, [[0.1], [0.2]], runtime="onnxruntime"),
        make_cell("dense", [], runtime="onnxruntime", error="too large"),
    ]
    for tree, rate in ((HYBRID, 30.0), (UNSTRUCTURED, 4.0)):
        cell = make_cell(tree, [[1.0]], mode="throughput")
        cell["measured"]["rate"] = rate
        del cell["measured"]["turns"]
        cells.append(cell)
    return {
        "generator": bench_figures.GENERATOR,
        "format": bench_figures.FORMAT,
        "finished": "2022-01-01T00:00:00Z",
        "host": {"processor": "A", "machine": "x86_64", "cores": 2, "instructions": ["avx2"]},
        "load": {"before": [0.1, 0.1, 0.1], "after": [2.0, 1.0, 0.5]},
        "settings": {
            "threads": 2,
            "seconds": 1,
            "batch": 4,
            "length": None,
            "rounds": 2,
            "tolerance": 0.25,
        },
        "runtimes": {name: {"label": label, "may_use": ["avx2"]} for name, label in RUNTIMES.items()},
        "trees": trees,
        "cells": cells,
    }
