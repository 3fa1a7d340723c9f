"""Checks of a model folder: transformers can read its checkpoint and tokenizer, and reads them as meant."""

import contextlib
import re
from pathlib import Path
from typing import Any, Dict, List

from ..core import child, files, paths
from ..core.errors import KitError
from ..core.files import Stamp
from .bert_config import READER
from .variants import BertShape

CHECKPOINTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""A folder's weights are read from the first of these that is there (``current_checkpoints.patch``)."""

RANDOM = "random"
"""``--weights random``: weights are drawn, and no checkpoint is read."""

TRAINED = ".weights.json"
"""Beside an ONNX file of trained weights: what a provenance has of them, but where they are from."""

TRAINING = "training.json"
"""In a folder that the training program has made: its report."""

TRAINING_SCORES = {
    "teacher": "dense model",
    "cut": "cut, not trained",
    "pruned": "cut and pruned at once, not trained",
    "result": "trained",
}
"""What a training's report has exact match and F1 of, in order, and what that is called."""

ORIGIN = "eval_weights.txt"
"""Beside the results of upstream's script: one line that says where the weights are from."""

_SUMS = paths.BUILD / "cache" / "checkpoints.json"
_LARGE = 100 << 20
"""Bytes that may take a second to read."""

_OTHERS = ("*.safetensors", "*.bin", "*.h5", "*.msgpack", "*.ckpt*", "*.gguf", "*.onnx")

_OBJECTS = (
    *("added_tokens.json", "config.json", "special_tokens_map.json"),
    *("tokenizer_config.json", "tokenizer.json"),
)
_VOCABULARY = "vocab.txt"

TOKENIZER = (
    *(_VOCABULARY, "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
"""The files of a tokenizer; one of the first two has its words."""

_SPECIAL = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "cls", "sep", "pad", "mask")}
"""A BERT tokenizer's special words, by the keys that may name others instead."""

_BERTS = re.compile(
    "(|Conv|Distil|Mobile|Retri|Squeeze)BertTokenizer(Fast)?|(Electra|LayoutLM|Lxmert)Tokenizer(Fast)?"
)
"""transformers' fast tokenizers that read a vocab.txt and have these special words."""


def find_checkpoint(folder: Path) -> Path:
    """:raises KitError: ``folder`` has no file of :data:`CHECKPOINTS`, or a git-lfs pointer in its place."""
    for name in CHECKPOINTS:
        if (folder / name).is_file():
            files.check_no_pointer(folder / name)
            return folder / name
    if not folder.is_dir():
        what = "The model folder is no folder." if folder.exists() else "The model folder does not exist."
        raise KitError(what, where=str(folder), hint="Name the folder that holds the model's checkpoint.")
    others = sorted({path.name for pattern in _OTHERS for path in folder.glob(pattern)})
    problem = "weights, but none under a name that is read" if others else "no weights"
    raise KitError(
        f"The model folder holds {problem}.",
        where=f"{folder}: {', '.join(others[:3])}" if others else str(folder),
        hint=(
            f"Put the model's checkpoint there ({', '.join(CHECKPOINTS)}), or have weights drawn:"
            " WEIGHTS=random, which is --weights random in a launch file."
        ),
    )


def list_checkpoint(folder: Path) -> List[Path]:
    """Return the files of a folder's weights: one, or those that an index lists; errors as above.

    :raises KitError: there are none, the index is broken, or a file is not there or a git-lfs pointer.
    """
    path = find_checkpoint(folder)
    if path.suffix != ".json":
        return [path]
    content = files.read_json(path)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places:
        raise KitError(
            "The checkpoint's index has no weight_map, which says where its tensors are.",
            where=str(path),
            hint="Give the index as transformers' save_pretrained writes it.",
        )
    found = [path.parent / str(name) for name in sorted(set(map(str, places.values())))]
    for file in found:
        if file.name not in places.values() or not file.is_file():
            raise KitError(
                "The checkpoint's index names a file that is not in its folder.",
                where=f"{path}: {file.name}",
                hint="Put all of the checkpoint's files there.",
            )
        files.check_no_pointer(file)
    return found


def digest_checkpoint(folder: Path) -> str:
    """Return the sha256 of a folder's weights; of several files, that of their names' and sums' list."""
    found = list_checkpoint(folder)
    sums = list(map(_digest_once, found))
    if len(found) == 1:
        return sums[0]
    return files.digest_value([[path.name, digest] for path, digest in zip(found, sums)])


def _digest_once(path: Path) -> str:
    """Return the sha256 of a file, read once while its place, number, size and times are these."""
    status, place = path.stat(), str(path.resolve())
    state = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    stamp = Stamp.read(_SUMS)
    known: Dict[str, Any] = stamp.made if stamp else {}
    if place not in known or known[place][0] != state:
        if status.st_size > _LARGE:
            child.report_step(f"checksum of {path.name}")
        known[place] = [state, files.digest_file(path)]
        there = {name: found for name, found in known.items() if Path(name).is_file()}
        with contextlib.suppress(OSError):  # it is read again then
            Stamp(None, there).write(_SUMS)
    return str(known[place][1])


def check_tokenizer(folder: Path, shape: BertShape, tokens: int) -> None:
    """Check the tokenizer's files, and that it fits the model and features of ``tokens`` tokens.

    :raises KitError: a file is broken, a word has no row in the model or is there twice, a special word is
        missing, or the tokenizer's inputs are shorter than features.
    """
    objects = {name: _object(folder / name) for name in _OBJECTS if (folder / name).exists()}
    config = objects.get("tokenizer_config.json", {})
    _check_length(config, folder, tokens)
    source = folder / ("tokenizer.json" if "tokenizer.json" in objects else _VOCABULARY)
    if source.name in objects:
        words = _tokenizer_words(objects[source.name])
    else:
        words = _words(source) if source.exists() else {}
    added = objects.get("added_tokens.json", {})
    words.update((word, number) for word, number in added.items() if isinstance(number, int))
    last = max(words.items(), key=lambda item: item[1], default=None)
    if last is not None and last[1] >= shape.vocab_size:
        raise make_too_many_error(last[1] + 1, shape.vocab_size, f"{source}: {files.show_value(last[0])}")
    special = _special(objects, folder, source)
    lacking = [f"{word} ({key})" for key, word in special.items() if words and word not in words]
    if lacking:
        raise KitError(
            f"The vocabulary lacks words that the tokenizer cannot do without: {', '.join(lacking)}.",
            where=str(source),
            hint="Give the model's own vocabulary, or name its words in tokenizer_config.json.",
        )


def _special(objects: Dict[str, Dict[str, Any]], folder: Path, source: Path) -> Dict[str, str]:
    """Return the special words by key: BERT's by default; for other tokenizers, those that a file names."""
    name, key = "tokenizer_config.json", "tokenizer_class"
    if objects.get(name, {}).get(key) is None:
        name = "config.json"
    kind = objects.get(name, {}).get(key) or "BertTokenizer"
    berts = _BERTS.fullmatch(str(kind))
    if not berts and source.name == _VOCABULARY:
        raise KitError(
            f"A tokenizer of the class {kind} is not made from a vocab.txt, or has no fast form.",
            where=f"{folder / name}: {key} = {files.show_value(kind)}",
            hint="Put its tokenizer.json there, as save_pretrained writes it, or correct the class.",
        )
    named = {**objects.get("tokenizer_config.json", {}), **objects.get("special_tokens_map.json", {})}
    found = {key: named.get(key, word if berts else None) for key, word in _SPECIAL.items()}
    words = {key: word.get("content") if isinstance(word, dict) else word for key, word in found.items()}
    return {key: str(word) for key, word in words.items() if word is not None}


def make_too_many_error(words: int, rows: int, where: str) -> KitError:
    """Return the error for a tokenizer with words that have no row in the model's word embedding."""
    return KitError(
        f"The tokenizer has {words:,} words, the model only {rows:,}.",
        where=f"{where}; vocab_size of the model config",
        hint="Use the tokenizer that belongs to the model, or correct vocab_size in its config.json.",
    )


def _object(path: Path) -> Dict[str, Any]:
    content = files.read_json(path, unique=True, others=READER)
    if not isinstance(content, dict):
        raise KitError(
            "The file is not a JSON object.",
            where=str(path),
            hint="Give the tokenizer's files as transformers' save_pretrained writes them.",
        )
    return content


def _check_length(config: Dict[str, Any], folder: Path, tokens: int) -> None:
    key = "model_max_length" if "model_max_length" in config else "max_len"
    longest = config.get(key)
    if longest is None:
        return
    where = f"{folder / 'tokenizer_config.json'}: {key} = {files.show_value(longest)}"
    if not isinstance(longest, (int, float)) or isinstance(longest, bool):
        raise KitError("The tokenizer's longest input is no number.", where=where, hint=f"Correct {key}.")
    if longest < tokens:
        raise make_too_short_error(longest, tokens, where)


def make_too_short_error(longest: float, tokens: int, where: str) -> KitError:
    """Return the error for a tokenizer whose inputs are shorter than features."""
    return KitError(
        f"The tokenizer makes inputs of at most {longest:g} tokens; a feature has {tokens}.",
        where=where,
        hint="Use a smaller --max_seq_length (for trees with the same sample_size in the NNCF config),\n"
        "or correct the tokenizer's model_max_length.",
    )


def _words(path: Path) -> Dict[str, int]:
    """Return the words of a vocab.txt with their numbers, counted by line; an empty line is no word."""

    def fail(problem: str, hint: str, lines: str = "") -> KitError:
        return KitError(f"The vocabulary {problem}", where=f"{path}{lines}", hint=hint)

    try:
        files.check_no_pointer(path)
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise fail(f"is not UTF-8 text (byte {error.start}).", "Save it as UTF-8.") from None
    except OSError as error:
        raise fail(f"cannot be read: {error.strerror}.", "Make it readable.") from None
    if lines[0].startswith(files.BYTE_ORDER_MARK):
        problem = "begins with a byte order mark, which would be part of its first word."
        raise fail(problem, "Save it as UTF-8 without a byte order mark.")
    words: Dict[str, int] = {}
    for number, word in enumerate(lines):
        if word and words.setdefault(word, number) != number:
            raise fail(  # transformers takes the later
                f"has the word {files.show_value(word)} twice, and one word has one number.",
                "Give the earlier a name that is in no text, [unused1] say: then no number changes.",
                f", lines {words[word] + 1} and {number + 1}",
            )
    if not words:
        raise fail("is empty.", "Give the model's own vocab.txt.")
    return words


def _tokenizer_words(content: Dict[str, Any]) -> Dict[str, int]:
    """Return the words in a tokenizer.json with their numbers; none where it has another form."""
    model, added = content.get("model"), content.get("added_tokens")
    vocabulary: Any = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, list) and all(isinstance(pair, list) for pair in vocabulary):
        # A unigram model's: pairs of a word and its score.
        vocabulary = {str(pair[0]): number for number, pair in enumerate(vocabulary) if pair}
    found = dict(vocabulary) if isinstance(vocabulary, dict) else {}
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict):
            found[str(token.get("content"))] = token.get("id")
    return {str(word): number for word, number in found.items() if isinstance(number, int)}
