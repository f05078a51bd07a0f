"""The time to import the package and to open a file with a vocabulary the size of Llama 3's.

The file has 128256 tokens and 280147 merges, as many as Llama 3, made of random letters. The reader of the `gguf`
package opens the same file for comparison.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from llamacpu.gguf.file import GGUFFile

TOKENS, MERGES = 128256, 280147
TENSORS = 291  # of an 8B model


def strings(random: np.random.Generator, count: int, pattern: str) -> bytes:
    """Return a GGUF array of `count` distinct strings of lower-case letters and digits."""
    letters = random.integers(97, 123, (count, 4), dtype=np.uint8).tobytes().decode()
    texts = (pattern.format(letters[4 * i : 4 * i + 4], i) for i in range(count))
    return struct.pack("<IIQ", 9, 8, count) + b"".join(struct.pack("<Q", len(t)) + t.encode() for t in texts)


@pytest.fixture(scope="session")
def large_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    pairs = {
        "general.architecture": struct.pack("<IQ", 8, 5) + b"llama",
        "tokenizer.ggml.tokens": strings(random, TOKENS, "{}{}"),
        "tokenizer.ggml.token_type": struct.pack("<IIQ", 9, 5, TOKENS) + np.ones(TOKENS, "<i4").tobytes(),
        "tokenizer.ggml.merges": strings(random, MERGES, "{} {}"),
    }
    head = b"GGUF" + struct.pack("<IQQ", 3, TENSORS, len(pairs))
    for key, value in pairs.items():
        head += struct.pack("<Q", len(key)) + key.encode() + value
    for number in range(TENSORS):
        name = f"blk.{number}.attn_norm.weight".encode()
        head += struct.pack("<Q", len(name)) + name + struct.pack("<IqIQ", 1, 8, 0, 32 * number)
    path = tmp_path_factory.mktemp("open") / "vocabulary.gguf"
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(32 * TENSORS))
    return path


def test_open(benchmark: Any, large_vocabulary: Path) -> None:
    def open_and_close() -> int:
        with GGUFFile(large_vocabulary) as file:
            return len(file.tensors)

    assert benchmark(open_and_close) == TENSORS


def test_open_in_a_new_process(benchmark: Any, large_vocabulary: Path) -> None:
    """Includes importing NumPy and the package, but not starting Python itself."""
    code = (
        "import sys, time; start = time.perf_counter(); import llamacpu;"
        "llamacpu.GGUFFile(sys.argv[1]); print(time.perf_counter() - start)"
    )
    benchmark.extra_info["seconds inside"] = [
        float(subprocess.run([sys.executable, "-c", code, large_vocabulary], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    print("\nimport and open in a new process:", min(benchmark.extra_info["seconds inside"]), "s")
    benchmark.pedantic(
        lambda: subprocess.run([sys.executable, "-c", code, large_vocabulary], check=True, capture_output=True),
        rounds=5,
    )


def test_import(benchmark: Any) -> None:
    code = "import time; start = time.perf_counter(); import llamacpu; print(time.perf_counter() - start)"

    def inside() -> float:
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    print("\nimport llamacpu:", min(inside() for _ in range(5)), "s")
    benchmark.pedantic(inside, rounds=5)


def test_open_with_the_gguf_package(benchmark: Any, large_vocabulary: Path) -> None:
    start = time.perf_counter()
    reader = benchmark.pedantic(lambda: gguf.GGUFReader(large_vocabulary), rounds=1)
    print("\ngguf.GGUFReader:", time.perf_counter() - start, "s")
    assert len(reader.tensors) == TENSORS
