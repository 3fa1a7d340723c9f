"""Trees for tests of what shows and packages them: documents from the variants' arithmetic, files of a line.

No model is in them.  What a real tree's provenance says is measured; here it follows from the dimensions.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from launch.artifact import sums, trees
from launch.core import files
from launch.model.variants import Spec, Variant, count_dense_weights, make_bert_large

LAYERS = 2
KNOWN = {
    "kind": "all-zero matrices",
    "text": "48 of 48 feed-forward matrices hold zeros only",
    "known": True,
    "reason": "one threshold over layers of two sizes prunes the larger ones completely",
}
INPUTS = {
    "model_name_or_path": "folder:" + "a" * 64,
    "nncf_config": "file:" + "b" * 64,
    "train_file": "file:" + "c" * 64,
}
UNKNOWN = {"kind": "dead layers", "text": "layer 3 gives what it is given", "known": False, "reason": ""}


def spec(variant: Variant, layers: int = LAYERS) -> Spec:
    """Return a model as wide as BERT-large, and not as deep."""
    large = make_bert_large(variant)
    dense = count_dense_weights(layers, large.hidden)
    return replace(large, layers=layers, heads=large.heads[:1] * layers, dense_block_weights=dense)


def zeros(model: Spec) -> Dict[str, int]:
    """Return zeros by parameter: those that one threshold over weights that were drawn leaves."""
    expected = model.expected_zeros()
    return {
        name: round(expected.get(name, 0.0) * rows * columns)
        for name, (rows, columns) in model.matrices().items()
    }


def matrices(model: Spec, counts: Mapping[str, int]) -> List[Dict[str, Any]]:
    return [
        {
            "parameter": name,
            "shape": list(shape),
            "dense": model.dense_size(name),
            "zeros": counts[name],
            "ir_zeros": min(counts[name] + 3, shape[0] * shape[1]),
        }
        for name, shape in model.matrices().items()
    ]


def document(
    variant: Variant,
    model: Optional[Spec] = None,
    counts: Optional[Mapping[str, int]] = None,
    seed: int = 42,
) -> Dict[str, Any]:
    """Return a provenance without its files.

    :param counts: zeros by parameter; from the arithmetic where not given.
    """
    model = model or spec(variant)
    found = matrices(model, counts or zeros(model))

    attention = [entry for entry in found if ".attention." in entry["parameter"]]
    rest = [entry for entry in found if ".encoder." in entry["parameter"] and entry not in attention]

    def own(some: List[Dict[str, Any]]) -> float:
        sizes = sum(entry["shape"][0] * entry["shape"][1] for entry in some)
        return float(sum(entry["zeros"] for entry in some) / sizes)

    left = model.kept_weights - sum(entry["zeros"] for entry in (*attention, *rest))
    return {
        "format": trees.FORMAT,
        "variant": variant.name,
        "finished": "2026-03-04T05:06:07Z",
        "kit": {"changed": False, "commit": "0123456789abcdef" * 2 + "01234567"},
        "model": model.model(),
        "weights": {"kind": "random", "seed": seed, "threads": 2},
        "source": {
            "name": "registry",
            "digest": "d" * 64,
            "packages": {"nncf": "2.1.0", "transformers": "4.9.1"},
            "patches": [
                {"name": "nncf/sparsify_params.patch", "sha256": "1" * 64},
                {"name": "transformers/lazy_module_spec.patch", "sha256": "2" * 64},
            ],
        },
        "command": {
            "argv": [
                "${venv}/bin/python",
                "-m",
                "launch.qa.gen_hybrid_sparse_qa",
                "--model_name_or_path",
                "${workspaceFolder}/launch/sample/model",
                "--train_file",
                "${workspaceFolder}/launch/sample/train.json",
                "--seed",
                "42",
            ],
            "environment": {"PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", "HF_HOME": None},
            "launch": f"{variant.name!r} in .vscode/launch.json",
            "working_directory": "${workspaceFolder}",
        },
        "inputs": dict(INPUTS),
        "model_optimizer": "2022.1",
        "versions": {
            "numpy": "1.19.5",
            "onnx": "1.10.2",
            "openvino": "2022.1.0",
            "openvino-dev": "2022.1.0",
            "torch": "1.9.1",
        },
        "host": {
            "system": "Linux 6.1",
            "machine": "x86_64",
            "processor": "A Processor of 2 GHz",
            "cores": 2,
            "memory_bytes": 24_000_000_000,
            "python": "3.8.18",
        },
        "onnx_key": {
            "source": "d" * 64,
            "arguments": {"seed": seed, "max_seq_length": model.sequence_length, **INPUTS},
        },
        "ir_key": {},
        "seconds": {"onnx": 114.2, "ir": 5.8, "verify": 21.0},
        "peak_bytes": {"onnx": 2_566_893_568, "ir": 824_922_112, "verify": 1_400_000_000},
        "verification": {
            "attention_sparsity": own(attention),
            "block_sparsity": 1 - left / model.dense_block_weights,
            "feed_forward_sparsity": own(rest),
            "checks": [
                {"name": "structure", "passed": True, "text": f"{model.nodes:,} nodes, opset 10"},
                {"name": "sparsity", "passed": True, "text": "block sparsity 0.900000"},
            ],
            "findings": [] if variant.hybrid else [KNOWN],
            "onnx": {
                "opset": 10,
                "nodes": model.nodes,
                "inputs": [
                    {"name": name, "shape": [1, model.sequence_length], "type": "int64"}
                    for name in ("input_ids", "attention_mask.1", "input.1")
                ],
                "outputs": [
                    {"name": name, "shape": [1, model.sequence_length], "type": "float"}
                    for name in model.outputs
                ],
                "quantizers": {
                    "weights": len(found),
                    "activations": model.activation_quantizers,
                    "bits": {"8": len(found) + model.activation_quantizers},
                },
            },
            "ir": {
                "version": 11,
                "int8_constants": len(found),
                "layers": {"Const": 100 * model.layers, "MatMul": 1 + 8 * model.layers, "Gelu": model.layers},
            },
            "matrices": found,
            "outputs": {
                "as_run": {"difference": 0.0321, "tolerance": 0.1},
                # Run only where the outputs as run are not the same.
                **(
                    {"without_rounding": {"difference": 0.00042, "tolerance": 0.01}} if variant.hybrid else {}
                ),
            },
        },
    }


def write(out: Path, variant: Variant, content: Optional[Dict[str, Any]] = None) -> Path:
    """Write a tree below ``out`` and return its folder.

    :param content: its provenance without the files; the variant's document where not given.
    """
    tree = out / variant.name
    for name in trees.list_files(variant.stem):
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {variant.name}\n")
    finish(tree, document(variant) if content is None else content)
    return tree


def finish(tree: Path, content: Dict[str, Any]) -> None:
    """Write provenance and list of checksums of the files that are in ``tree``."""
    for name in (trees.PROVENANCE, sums.NAME):
        if (tree / name).exists():
            (tree / name).unlink()
    described = trees.describe_files(tree, sums.list_files(tree))
    onnx = described.get(f"{content['variant']}-8bit.onnx", {}).get("sha256")
    content = {**content, "files": described, "ir_key": {**content["ir_key"], "onnx": onnx}}
    (tree / trees.PROVENANCE).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    sums.write_sums(tree, {})


def damage(path: Path) -> str:
    """Change a byte of a file, its size kept, and return its sha256."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))
    return files.digest_file(path)
