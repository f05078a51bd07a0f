"""Where memory is short there is a MemoryError, never a dead process or a wrong result; with more it goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llamacpu
from tiny_models import Shape

HERE = Path(__file__).parent
NAMES = (
    "encode", "encode_one_word", "decode", "tokenizer", "sessions", "forward", "hidden", "embed", "load", "load_a_copy",
    "prepare", "restore", "generate", "grammar", "saving", "sampling",
)  # fmt: skip
MODELS = {
    "packed": ("Q4_K", Shape(width=512, heads=8, kv_heads=4, layers=3, feed_forward=2048, tokenizer="bpe", tied=True)),
    "plain": ("F16", Shape(width=256, heads=8, kv_heads=4, feed_forward=1024, tokenizer="spm")),
    "experts": ("Q8_0", Shape(width=256, kv_heads=2, experts=4, experts_used=2, feed_forward=512)),
}
EVERY = ("forward", "load", "sessions", "prepare")


@pytest.fixture(scope="module")
def child() -> Iterator[subprocess.Popen[str]]:
    """The process whose forks do everything: what it imports is imported once."""
    package = str(Path(llamacpu.__file__).parent.parent)
    started = subprocess.Popen(
        [sys.executable, HERE / "short_memory_child.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # With one arena the heap has nothing in hand that the sweep does not know of.
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, str(HERE)]), "MALLOC_ARENA_MAX": "1"},
    )
    with started:
        yield started


@pytest.mark.skipif(sys.platform != "linux", reason="the sweep limits the address space and reads /proc")
@pytest.mark.parametrize(
    ("model", "name"),
    [("packed", name) for name in NAMES]
    + [("plain", name) for name in (*EVERY, "encode", "encode_one_word", "decode", "tokenizer")]
    + [("experts", name) for name in EVERY],
)
def test_sweep(
    model: str, name: str, tiny_model: Callable[..., Path], tmp_path: Path, child: subprocess.Popen[str]
) -> None:
    kind, shape = MODELS[model]
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps([name, str(tiny_model(shape, kind)), str(tmp_path)]) + "\n")
    child.stdin.flush()
    result = json.loads(child.stdout.readline())
    assert result["wrong"] == [], result
    # The system refuses threads in its own words.
    typed = {"done", "MemoryError"} | ({"LlamaCpuError"} if name.startswith("load") else set())
    assert result["outcomes"].keys() <= typed, result
    assert result["outcomes"].get("done"), result
