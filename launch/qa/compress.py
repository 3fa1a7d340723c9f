"""Weights, drawn or trained, are pruned, quantized and exported, in upstream's order: random numbers depend
on it.
"""

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..core import files
from ..core.child import report_step
from ..core.errors import KitError
from ..model.trained_quantizers import refine_quantizers
from ..model.variants import PLAIN, QUANTIZED, BertShape
from .arguments import Arguments
from .features import MODEL_INPUTS
from .model import build_model
from .weights import Trained

_PRUNING, _QUANTIZATION = "magnitude_sparsity", "quantization"


def draw_model(args: Arguments, config: Any) -> Any:
    """Return the model that upstream exports, of random weights by torch's default initialisation.

    For a hybrid upstream first draws another with BERT's own: torch's random stream advances.
    """
    from transformers.modeling_utils import no_init_weights

    if args.gen_hybrid_sparse_model:
        build_model(config, args.config_source)
    with no_init_weights(_enable=True):
        return build_model(config, args.config_source)


def read_nncf_config(args: Arguments) -> Any:
    """:raises KitError: it is unreadable or invalid, lacks an algorithm, or traces inputs of other shapes."""
    import jsonschema
    from nncf import NNCFConfig

    def fail(problem: str, hint: str, place: str = "") -> KitError:
        where = f"--nncf_config {args.nncf_config}{place}"
        return KitError(f"The NNCF config {problem}", where=where, hint=hint)

    try:
        config = NNCFConfig.from_json(args.nncf_config)
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}.", "Correct --nncf_config.") from None
    except jsonschema.ValidationError as error:
        place = f": {'.'.join(map(str, error.absolute_path))}"
        hint = "Correct the config; its schema is NNCF's."
        raise fail(f"is not valid: {error.message[:300]}", hint, place) from None
    except ValueError as error:
        raise fail(f"is not valid JSON: {error}", "Mend the file at that place.") from None
    if "compression" not in config:
        raise fail("names no compression.", "Name the algorithms to apply.")
    if not any(one.get("algorithm") == _PRUNING for one in _algorithms(config)):
        raise fail(f"lacks {_PRUNING}.", "Every variant is pruned: name that algorithm.", ": compression")
    inputs = config.get("input_info")
    inputs = inputs if isinstance(inputs, list) else [inputs or {}]
    shapes = [info.get("sample_size") for info in inputs]
    if shapes != [[1, args.max_seq_length]] * len(MODEL_INPUTS):
        raise fail(
            f"traces inputs of {shapes}, the features are {args.max_seq_length} tokens long.",
            f"Set three inputs of [1, {args.max_seq_length}], or change --max_seq_length.",
            ": input_info[].sample_size",
        )
    return config


def is_quantized(nncf_config: Any) -> bool:
    """Return whether a config has the model quantized, and not only pruned."""
    return any(one.get("algorithm") == _QUANTIZATION for one in _algorithms(nncf_config))


def _algorithms(nncf_config: Any) -> List[Dict[str, Any]]:
    compression = nncf_config["compression"]
    return compression if isinstance(compression, list) else [compression]


def _algorithm(nncf_config: Any, name: str) -> Dict[str, Any]:
    return next(a for a in _algorithms(nncf_config) if a.get("algorithm") == name)


def read_calibration_samples(nncf_config: Any) -> int:
    """Return the number of features that calibrate the activation ranges."""
    if not is_quantized(nncf_config):
        return 0
    initializer = _algorithm(nncf_config, _QUANTIZATION).get("initializer", {})
    return int(initializer.get("range", {}).get("num_init_samples", 256))  # 256 is NNCF's default


def name_precision(nncf_config: Any) -> str:
    """Return what the ONNX file's name ends in."""
    return QUANTIZED if is_quantized(nncf_config) else PLAIN


def read_sparsity(nncf_config: Any) -> float:
    """Return the share of single weights that a config has pruned."""
    return float(_algorithm(nncf_config, _PRUNING).get("sparsity_init", 0))  # 0 is NNCF's default


def make_calibration_loader(features: Any, needed: int, args: Arguments) -> Any:
    """Return the loader of calibration batches; torch's random stream orders them when NNCF reads.

    :raises KitError: there are fewer than ``needed`` features.
    """
    if len(features) < needed:
        raise KitError(
            f"{len(features)} calibration features are too few: {needed} are needed.",
            where=f"--train_file {args.train_file}",
            hint="Give more questions: each makes at least one feature.",
        )
    from torch.utils.data import DataLoader, RandomSampler
    from transformers import default_data_collator

    kept = features.remove_columns([name for name in features.column_names if name not in MODEL_INPUTS])
    return DataLoader(
        kept,
        batch_size=args.per_device_train_batch_size,
        sampler=RandomSampler(kept),
        collate_fn=default_data_collator,
    )


def compress_model(model: Any, nncf_config: Any, loader: Any) -> Any:
    """Prune, quantize and calibrate the model, and return NNCF's controller of it."""
    from nncf.config.structures import BNAdaptationInitArgs, QuantizationRangeInitArgs
    from nncf.torch import create_compressed_model
    from nncf.torch.initialization import PTInitializingDataLoader

    class _Loader(PTInitializingDataLoader):
        def get_inputs(self, dataloader_output: Dict[str, Any]) -> Tuple[Tuple[()], Dict[str, Any]]:
            return (), dataloader_output

    nncf_config.register_extra_structs(
        [QuantizationRangeInitArgs(_Loader(loader)), BNAdaptationInitArgs(_Loader(loader))]
    )
    # Upstream has the graphs drawn, which takes two more traces and changes no byte.
    controller, _ = create_compressed_model(model, nncf_config, dump_graphs=False)
    return controller


def export_onnx(controller: Any, path: Path) -> None:
    """Bake the masks into the weights and write the model to ``path``, whole or not at all.

    :raises KitError: NNCF has no ``sparsify_params`` (the patch is not applied), or writing fails.
    """
    # One algorithm alone has its own controller, several have one that holds theirs.
    for child in getattr(controller, "child_ctrls", [controller]):
        if type(child).__name__ != "MagnitudeSparsityController":
            continue
        if not hasattr(child, "sparsify_params"):
            import nncf

            raise KitError(
                "This NNCF has no sparsify_params, so the pruned weights would not be zero in the file.",
                where=str(Path(nncf.__file__).parent),
                hint="Run it on the patched tree: build/src/registry first on PYTHONPATH (make setup).",
            )
        child.sparsify_params()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replace_file(path) as part:
            controller.export_model(str(part))
    except (OSError, RuntimeError) as error:
        # torch's writer reports a full disk as a RuntimeError; any other of its errors is no user's.
        writing = ("no space left", "file write failed", "errno")
        if isinstance(error, RuntimeError) and not any(word in str(error).lower() for word in writing):
            raise
        raise KitError(
            f"The ONNX file cannot be written: {getattr(error, 'strerror', '') or error}.",
            where=str(path),
            hint="Make the folder writable and free disk space.",
        ) from None


def make_onnx(
    args: Arguments,
    nncf_config: Any,
    shape: BertShape,
    config: Any,
    features: Any,
    trained: Optional[Trained] = None,
) -> Path:
    """Draw, compress and export one variant, calibrated on ``features``; return the file.

    :param trained: the weights to put in the drawn ones' place; its tensors are released.

    :raises KitError: there are too few features, or the file cannot be written.
    """
    path = args.name_onnx(name_precision(nncf_config))
    assert path is not None
    loader = make_calibration_loader(features, read_calibration_samples(nncf_config), args)
    report_step("drawing weights")
    model = draw_model(args, config)
    if trained is not None:
        _algorithm(nncf_config, _PRUNING)["sparsity_init"] = trained.sparsity
        if is_quantized(nncf_config):
            # Around zero, half of the levels of what GELU gives would be for values that it never gives.
            _algorithm(nncf_config, _QUANTIZATION).setdefault("preset", "mixed")
        model.load_state_dict(trained.state, strict=False)  # a buffer alone is not in it
        trained.state.clear()
    elif args.gen_hybrid_sparse_model:
        _algorithm(nncf_config, _PRUNING)["sparsity_init"] = shape.unstructured_sparsity
    more = ", inserting quantizers, calibrating activation ranges" if is_quantized(nncf_config) else ""
    report_step(f"pruning{more}")
    controller = compress_model(model, nncf_config, loader)
    report_step("baking masks in, exporting ONNX")
    export_onnx(controller, path)
    if trained is not None and is_quantized(nncf_config):
        refine_quantizers(path)
    return path
