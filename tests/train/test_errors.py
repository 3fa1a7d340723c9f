"""What the training program says of memory that is too small, and which of several processes says it."""

from pathlib import Path
from typing import Any

import pytest

from launch.core.errors import EXIT_USER_ERROR, KitError
from launch.train import program
from launch.train.arguments import Request, parse_arguments
from launch.train.errors import OwnError, explain_memory, explain_writing

WORDS = [
    *("--variant", "90pc_sparse-08_head-2048_ffnn", "--model_name_or_path", "a", "--train_file", "b"),
    *("--validation_file", "c", "--output_dir", "d"),
]


def read(*words: str) -> Request:
    return parse_arguments([*WORDS, *words])


def hint_of(error: Exception, *words: str) -> str:
    with pytest.raises(OwnError, match="memory is too small") as found, explain_memory(read(*words)):
        raise error
    return found.value.hint


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at CPUAllocator] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_too_little_memory_is_told_with_what_helps(error: Exception) -> None:
    hint = hint_of(error)
    for option in ("gradient_accumulation_steps", "gradient_checkpointing", "eval_batch_size"):
        assert f"--{option}" in hint
    hint = hint_of(
        error, "--gradient_accumulation_steps=16", "--gradient_checkpointing", "--eval_batch_size=1"
    )
    assert hint == "One of these: lower --max_seq_length."


def test_not_all_that_has_to_do_with_memory_is_too_little_of_it() -> None:
    with pytest.raises(RuntimeError, match="illegal"), explain_memory(read()):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_what_one_process_has_alone_it_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(error: Exception) -> Any:
        def start(_: Request) -> None:
            raise error

        return start

    monkeypatch.setenv("LOCAL_RANK", "1")
    for name in ("TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(program, "Run", fail(KitError("A question has no answer.")))
    assert program._main(WORDS) == EXIT_USER_ERROR
    monkeypatch.setattr(program, "Run", fail(MemoryError()))
    with pytest.raises(OwnError):
        program._main(WORDS)
    with pytest.raises(OwnError, match="cannot be written"), explain_writing(tmp_path / "file"):
        (tmp_path / "no" / "file").write_text("")
