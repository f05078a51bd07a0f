"""Merging against its definition: random small vocabularies, random text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacpu import GGUFFile, Tokenizer
from reference_tokenizer import EXPRESSIONS, encode_byte_pairs, encode_pieces
from thorough import examples
from tiny_tokenizers import bpe_vocabulary, byte_letters
from vocabulary_files import BYTE_TOKENS, native_pairs, native_pieces

GOLDEN = ["llama-spm", "llama-bpe", "qwen2", "gpt-2", "phi-3"]

# Few letters make many merges; the rest is what the word rules distinguish.
texts = st.text(st.sampled_from("aaabbc  '\n\t\r19!,é\u0301日\u3000\u00a0\u2028²sStTL🦙"), max_size=60)
lines = st.text(max_size=40)


@st.composite
def merge_lists(draw: st.DrawFn) -> list[str]:
    """Merges of symbols that bytes or other merges make; some of them can never apply."""
    symbols = [byte_letters()[byte] for byte in "abc '\n19é🦙".encode()]
    merges = []
    for _ in range(draw(st.integers(0, 25))):
        left, right = draw(st.sampled_from(symbols)), draw(st.sampled_from(symbols))
        merges.append(f"{left} {right}")
        symbols.append(left + right)
    return merges


@given(merge_lists(), st.lists(texts | lines, min_size=1, max_size=4), st.sampled_from(sorted(EXPRESSIONS)), st.data())
@settings(max_examples=examples(300), deadline=None)
def test_byte_pairs_are_merged_by_rank(merges: list[str], samples: list[str], pre: str, data: st.DataObject) -> None:
    made = list(dict.fromkeys(merge.replace(" ", "") for merge in merges))
    # A symbol that merging passes through need not be a token.
    kept = data.draw(st.lists(st.sampled_from(made), unique=True)) if made else []
    tokens = [*byte_letters(), *kept]
    tokenizer = native_pairs(tokens, merges, pre)
    for sample in samples:
        assert tokenizer.encode(sample, False, True) == encode_byte_pairs(sample, tokens, merges, pre)


pieces = st.text(st.sampled_from("ab▁é日"), min_size=1, max_size=4)


@given(
    st.lists(pieces, unique=True, max_size=25),
    st.lists(
        st.sampled_from([-3.0, -2.5, -1.0, -0.0, 0.0, 4.0, float("inf"), float("-inf")]), min_size=25, max_size=25
    ),
    st.booleans(),
    st.lists(st.text(st.sampled_from("aab  é日🦙\n"), max_size=70), min_size=1, max_size=4),
)
@settings(max_examples=examples(300), deadline=None)
def test_pieces_are_merged_by_score(made: list[str], scores: list[float], with_bytes: bool, samples: list[str]) -> None:
    tokens = ["<unk>", *(BYTE_TOKENS if with_bytes else []), *made]
    values = [0.0] * (len(tokens) - len(made)) + scores[: len(made)]
    tokenizer = native_pieces(tokens, values, 0)
    for sample in samples:
        expected = encode_pieces(sample, tokens, values, 0)
        assert tokenizer.encode(sample, False, True) == expected


@given(st.text(max_size=200) | st.text(st.sampled_from("the play. 1\n ")), st.sampled_from(sorted(EXPRESSIONS)))
@settings(max_examples=examples(200), deadline=None)
def test_byte_level_text_comes_back(text: str, pre: str) -> None:
    tokens, merges = bpe_vocabulary()
    tokenizer = native_pairs([token for token, _ in tokens], merges, pre)
    ids = tokenizer.encode(text, False, True)
    assert tokenizer.decode(ids, True, True).decode() == text


@given(st.binary(max_size=200))
def test_broken_utf8_comes_back(data: bytes) -> None:
    tokens, merges = bpe_vocabulary()
    pairs = native_pairs([token for token, _ in tokens], merges, "llama-bpe")
    assert pairs.decode(pairs.encode(data, False, True), True, True) == data
    scores = native_pieces(BYTE_TOKENS, [0.0] * 256, None)
    # A space is written as U+2581, whose three bytes stand for themselves here.
    assert len(scores.encode(data, False, False)) == len(data.replace(b" ", "▁".encode()))


@pytest.mark.parametrize("name", ["llama-bpe", "gpt-2", "deepseek-llm", "deepseek-v3", "gpt-4o", "default", "viking"])
@pytest.mark.parametrize("unit", ["a", " ", "\n", "!", "A", "1", " a", "\u3000", "日", "'", "\t\n"])
def test_a_very_long_run_is_tokenized(name: str, unit: str) -> None:
    tokens, merges = bpe_vocabulary()
    tokenizer = native_pairs([token for token, _ in tokens], merges, name)
    text = unit * 300_000
    assert tokenizer.decode(tokenizer.encode(text, False, True), True, True).decode() == text


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_are_those_of_the_reference(golden: Path, name: str) -> None:
    with GGUFFile(golden / "vocab" / f"{name}.gguf") as file:
        tokenizer = Tokenizer(file)
    rows = json.loads((golden / "vocab" / f"{name}.json").read_text(encoding="utf-8"))
    assert rows
    for row in rows:
        assert tokenizer.encode(row["text"], add_special=False, parse_special=True) == row["ids"]
        assert tokenizer.encode(row["text"], add_special=False) == row["plain"]
        assert tokenizer.decode_bytes(row["ids"]).decode("utf-8", "replace") == row["back"]
        assert tokenizer.decode(row["ids"]) == row["text"]
        assert tokenizer.decode(tokenizer.encode(row["text"]), skip_special=True) == row["text"]
