"""The time to open the vocabulary of Llama 3, to build its tokenizer, and to encode and decode a megabyte.

The file is the published vocabulary if the reference outputs are available, else one of the same size: 128256 tokens
and 280147 merges of letters. The reader of the `gguf` package opens the same file for comparison.
"""

from __future__ import annotations

import itertools
import os
import string
import struct
import time
from pathlib import Path
from typing import Any

import gguf
import pytest

from llamacpu import GGUFFile, Tokenizer

TOKENS, MERGES, SPECIAL = 128256, 280147, 256
GOLDEN = Path(os.environ.get("LLAMACPU_GOLDEN", Path(__file__).resolve().parents[2] / "shared" / "golden"))


def strings(texts: list[str]) -> bytes:
    """Return a GGUF array of strings."""
    raw = [text.encode() for text in texts]
    return struct.pack("<IIQ", 9, 8, len(raw)) + b"".join(struct.pack("<Q", len(text)) + text for text in raw)


def made_up() -> bytes:
    """Return a file whose tokens are words of up to four letters, with the merges of every split into two."""
    letters = [
        chr(code) for code in (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100), *range(0x100, 0x144))
    ]
    words = (
        "".join(word) for size in (2, 3, 4) for word in itertools.product(string.ascii_lowercase + "Ġ", repeat=size)
    )
    tokens = letters + list(itertools.islice(words, TOKENS - SPECIAL - len(letters)))
    halves = (f"{text[:at]} {text[at:]}" for text in tokens[len(letters) :] for at in range(1, len(text)))
    merges = list(itertools.islice(halves, MERGES))
    kinds = [1] * len(tokens) + [3] * SPECIAL
    tokens += [f"<|special_{number}|>" for number in range(SPECIAL)]
    pairs = {
        "general.architecture": struct.pack("<IQ", 8, 5) + b"llama",
        "tokenizer.ggml.model": struct.pack("<IQ", 8, 4) + b"gpt2",
        "tokenizer.ggml.pre": struct.pack("<IQ", 8, 9) + b"llama-bpe",
        "tokenizer.ggml.tokens": strings(tokens),
        "tokenizer.ggml.token_type": struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds),
        "tokenizer.ggml.merges": strings(merges),
        "tokenizer.ggml.bos_token_id": struct.pack("<II", 4, TOKENS - SPECIAL),
    }
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    return head + b"".join(struct.pack("<Q", len(key)) + key.encode() + value for key, value in pairs.items())


@pytest.fixture(scope="session")
def llama3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    published = GOLDEN / "vocab" / "llama-bpe.gguf"
    if published.is_file():
        return published
    path = tmp_path_factory.mktemp("vocabulary") / "llama3.gguf"
    path.write_bytes(made_up())
    return path


@pytest.fixture(scope="session")
def tokenizer(llama3: Path) -> Tokenizer:
    with GGUFFile(llama3) as file:
        return Tokenizer(file)


@pytest.fixture(scope="session")
def prose() -> str:
    """A megabyte of Python source: words, names, punctuation and indentation."""
    source = Path(gguf.__file__).with_name("constants.py").read_text(encoding="utf-8")
    return (source * (1 + 1_000_000 // len(source)))[:1_000_000]


def test_header(benchmark: Any, llama3: Path) -> None:
    def header() -> int:
        with GGUFFile(llama3) as file:
            return len(file.metadata)

    assert benchmark(header) > 0


def test_tokenizer_after_the_header(benchmark: Any, llama3: Path) -> None:
    with GGUFFile(llama3) as file:
        tokenizer = benchmark(lambda: Tokenizer(file))
    assert tokenizer.vocab_size == TOKENS
    if benchmark.stats:
        print(f"\ntokenizer of {TOKENS} tokens, {MERGES} merges: {1000 * benchmark.stats.stats.median:.1f} ms")


def test_gguf_reader(benchmark: Any, llama3: Path) -> None:
    start = time.perf_counter()
    benchmark.pedantic(lambda: gguf.GGUFReader(llama3), rounds=1)
    print(f"\ngguf.GGUFReader, header only: {1000 * (time.perf_counter() - start):.0f} ms")


def test_encode_a_megabyte(benchmark: Any, tokenizer: Tokenizer, prose: str) -> None:
    assert tokenizer.decode(benchmark(lambda: tokenizer.encode(prose, add_special=False))) == prose


@pytest.mark.parametrize("unit", ["a", " ", "!"])
def test_encode_a_megabyte_without_words(benchmark: Any, tokenizer: Tokenizer, unit: str) -> None:
    text = unit * 1_000_000
    ids = benchmark.pedantic(lambda: tokenizer.encode(text, add_special=False), rounds=3)
    assert tokenizer.decode(ids) == text


def test_decode_a_megabyte(benchmark: Any, tokenizer: Tokenizer, prose: str) -> None:
    ids = tokenizer.encode(prose, add_special=False)
    assert benchmark(lambda: tokenizer.decode(ids)) == prose


def test_stream_a_megabyte(benchmark: Any, tokenizer: Tokenizer, prose: str) -> None:
    """One call per token, as in generation."""
    ids = tokenizer.encode(prose, add_special=False)

    def stream() -> str:
        decoder = tokenizer.stream()
        return "".join(map(decoder.push, ids)) + decoder.flush()

    assert benchmark.pedantic(stream, rounds=3) == prose
