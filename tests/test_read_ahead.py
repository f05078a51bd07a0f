"""What is read before a first step needs it, and in which order."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacpu import Model
from llamacpu.engine import read_ahead
from llamacpu.engine.read_ahead import ReadAhead, ranges_in_order
from llamacpu.gguf.header import Tensor

NAMES = [
    "token_embd.weight", "output.weight", "output_norm.weight", "blk.0.attn_q.weight", "blk.0.ffn_up.weight",
    "blk.1.attn_q.weight", "blk.10.attn_q.weight", "blk.2.ffn_gate_exps.weight", "blk.2.ffn_down.7.weight",
]  # fmt: skip
advised = pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no such call")


def table(sizes: list[tuple[str, int, int]]) -> list[Tensor]:
    """Tensors one after the other in their files: name, file, bytes."""
    ends: dict[int, int] = {}
    found = []
    for name, file, size in sizes:
        start = -(-ends.get(file, 1000) // 32) * 32
        ends[file] = start + size
        found.append(Tensor(name, 0, "F32", (size // 4,), start, size, file))
    return found


@given(
    st.permutations(NAMES), st.lists(st.tuples(st.integers(0, 1), st.integers(4096, 20_000)), min_size=9, max_size=9)
)
@settings(deadline=None, max_examples=40)
def test_everything_but_experts_once_and_in_the_order_of_use(names: list[str], places: list[tuple[int, int]]) -> None:
    tensors = table([(name, *place) for name, place in zip(names, places, strict=True)])
    ranges = ranges_in_order(tensors)
    wanted = [tensor for tensor in tensors if "exps" not in tensor.name and "down.7" not in tensor.name]
    first = {}
    for tensor in wanted:
        holding = [
            number
            for number, (file, offset, length) in enumerate(ranges)
            if file == tensor.file and offset <= tensor.offset and tensor.offset + tensor.nbytes <= offset + length
        ]
        assert len(holding) == 1, tensor
        first[tensor.name] = holding[0], tensor.offset
    layers = ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "blk.10.attn_q.weight", "output.weight"]
    numbers = [first[name][0] for name in [*layers, "token_embd.weight"]]
    assert numbers == sorted(numbers)
    # Nothing but padding beside them.
    padding = sum(length for _, _, length in ranges) - sum(tensor.nbytes for tensor in wanted)
    assert 0 <= padding < 32 * len(wanted)


def test_a_shared_embedding_is_read_where_it_is_multiplied() -> None:
    tensors = table([("token_embd.weight", 0, 5000), ("blk.0.attn_q.weight", 0, 10_000)])
    assert [offset for _, offset, _ in ranges_in_order(tensors)] == [tensors[1].offset, tensors[0].offset]


@advised
def test_all_of_every_range_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        path.write_bytes(bytes(1000))
    asked: list[tuple[str, int, int]] = []

    def note(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, start, length))

    monkeypatch.setattr(os, "posix_fadvise", note)
    monkeypatch.setattr(read_ahead, "_WORTHWHILE", 1)
    monkeypatch.setattr(read_ahead, "_PIECE", 300)
    ReadAhead(paths, [(1, 100, 700), (0, 0, 50)]).join()
    assert asked == [("two", 100, 300), ("two", 400, 300), ("two", 700, 100), ("one", 0, 50)]
    # Hints: a file that is gone, or a system that refuses, is no error.
    ReadAhead([tmp_path / "gone"], [(0, 0, 50)]).join()
    before = threading.active_count()
    monkeypatch.undo()
    ReadAhead(paths, [(0, 0, 50)])
    assert threading.active_count() == before


@advised
def test_closing_a_model_ends_it(tiny_model: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, closed, calls = threading.Event(), threading.Event(), []

    def wait(*given: int) -> None:
        calls.append(given)
        begun.set()
        closed.wait()

    monkeypatch.setattr(os, "posix_fadvise", wait)
    monkeypatch.setattr(read_ahead, "_WORTHWHILE", 1)
    monkeypatch.setattr(read_ahead, "_PIECE", 1000)
    with Model(tiny_model("gqa"), threads=1) as model:  # type: ignore[operator]
        begun.wait()
        ahead = model._read_ahead
    closed.set()
    ahead.join()
    assert len(calls) == 1
