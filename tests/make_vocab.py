"""Make ``launch/sample/model/vocab.txt``, the WordPiece vocabulary of the sample, from the sample's own text.

The method is that of the ``tokenizers`` library's WordPiece trainer: start from single characters and merge
the most frequent pair of neighbouring pieces until the vocabulary is full.  The trainer itself cannot be
used, because version 0.10.3 walks hash maps with a random seed: twenty runs over this text gave twenty
different files.  Here a tie goes to the pair that sorts first, so every run gives the same bytes.  Text is
normalised and split by the library's BERT classes, and so exactly as it is when the sample is tokenized.

Run ``python -m tests.make_vocab`` to write the file, with ``--check`` to compare it.
"""

import argparse
import heapq
import json
import string
from collections import Counter, defaultdict
from itertools import zip_longest
from pathlib import Path
from typing import Counter as CounterType
from typing import DefaultDict, List, Optional, Sequence, Set, Tuple

from launch.core import paths
from launch.core.errors import KitError, exit_with_message

TEXTS = (paths.SAMPLE / "train.json", paths.SAMPLE / "validation.json")
"""The files whose contexts and questions the vocabulary is made from."""

VOCABULARY = paths.SAMPLE / "model" / "vocab.txt"
"""The file that is written or, with ``--check``, compared."""

SIZE = 2048
"""Pieces in the vocabulary: enough for most of the sample's words, too few for all of them."""

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""BERT's special pieces; [PAD] is number 0, as ``pad_token_id`` in config.json says."""

ALPHABET = string.ascii_lowercase + string.digits + string.punctuation
"""Characters that have a piece even if the sample lacks them, so that other English text tokenizes too."""

CONTINUATION = "##"
"""Mark of a piece that continues a word."""

Pair = Tuple[str, str]


def _pieces_of(word: str) -> List[str]:
    return [word[0], *(CONTINUATION + character for character in word[1:])]


def _merged(pair: Pair) -> str:
    return pair[0] + pair[1][len(CONTINUATION) :]


def _merge_in(pieces: Sequence[str], pair: Pair) -> List[str]:
    result: List[str] = []
    index = 0
    while index < len(pieces):
        if tuple(pieces[index : index + 2]) == pair:
            result.append(_merged(pair))
            index += 2
        else:
            result.append(pieces[index])
            index += 1
    return result


def count_words(texts: Sequence[Path] = TEXTS) -> CounterType[str]:
    """Return how often each word occurs in the contexts and questions, as BERT's pre-tokenizer splits them.

    A context counts once, however many questions are asked about it.
    """
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    passages: Set[str] = set()
    for path in texts:
        for row in json.loads(path.read_text(encoding="utf-8"))["data"]:
            passages.update((row["context"], row["question"]))
    return Counter(
        word
        for passage in passages
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(passage))
    )


def learn_pieces(counts: CounterType[str], size: int = SIZE) -> List[str]:
    """Return a vocabulary of at most ``size`` pieces: special pieces, characters, then merged pieces.

    It depends on nothing but the arguments: not on the order of ``counts`` and not on hash seeds.
    """
    characters = sorted(set(ALPHABET).union(*counts))
    # A dict is an ordered set here.
    vocabulary = dict.fromkeys(
        [*SPECIAL_PIECES, *characters, *(CONTINUATION + character for character in characters)]
    )
    words = {word: _pieces_of(word) for word in sorted(counts)}
    pair_counts: CounterType[Pair] = Counter()
    words_with: DefaultDict[Pair, Set[str]] = defaultdict(set)
    for word, pieces in words.items():
        for pair in zip(pieces, pieces[1:]):
            pair_counts[pair] += counts[word]
            words_with[pair].add(word)
    queue = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(queue)
    while queue and len(vocabulary) < size:
        negative_count, best = heapq.heappop(queue)
        if -negative_count != pair_counts[best]:
            continue  # The count has changed since; the queue holds the pair with its new count too.
        vocabulary[_merged(best)] = None
        changed: Set[Pair] = set()
        for word in words_with.pop(best):
            old = words[word]
            new = words[word] = _merge_in(old, best)
            for pair in zip(old, old[1:]):
                pair_counts[pair] -= counts[word]
                changed.add(pair)
            for pair in zip(new, new[1:]):
                pair_counts[pair] += counts[word]
                words_with[pair].add(word)
                changed.add(pair)
        for pair in changed:
            if pair_counts[pair] > 0:
                heapq.heappush(queue, (-pair_counts[pair], pair))
    return list(vocabulary)


def vocabulary_bytes() -> bytes:
    """Return what ``model/vocab.txt`` has to hold: one piece a line, UTF-8."""
    return "".join(piece + "\n" for piece in learn_pieces(count_words())).encode("utf-8")


def check(path: Path) -> None:
    """Compare the vocabulary at ``path`` with the one that the sample's text gives.

    :raises KitError: they differ, or there is no such file.
    """
    hint = "Run `python -m tests.make_vocab` and commit the file together with the text."
    if not path.is_file():
        raise KitError("The sample has no vocabulary.", where=str(path), hint=hint)
    found, expected = path.read_bytes(), vocabulary_bytes()
    if found != expected:
        lines = zip_longest(found.split(b"\n"), expected.split(b"\n"))
        line = next(number for number, (have, want) in enumerate(lines, 1) if have != want)
        raise KitError(
            "The vocabulary is not the one that the sample's text gives.",
            where=f"{path}, first difference in line {line}",
            hint=hint,
        )


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Write or check the vocabulary; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.make_vocab",
        description="Make model/vocab.txt, the sample's WordPiece vocabulary, from the sample's own text.",
    )
    parser.add_argument("--check", action="store_true", help="compare with model/vocab.txt and write nothing")
    if parser.parse_args(arguments).check:
        check(VOCABULARY)
        print(f"{VOCABULARY}: up to date")
    else:
        content = vocabulary_bytes()
        VOCABULARY.parent.mkdir(exist_ok=True)
        VOCABULARY.write_bytes(content)
        print(f"{VOCABULARY}: {len(content.splitlines())} pieces")
    return 0


if __name__ == "__main__":
    exit_with_message(main)
