"""Vocabularies whose merges are of characters (Gemma 4): against the definition and the `tokenizers` library."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Oracle
from tokenizers.models import BPE
from tokenizers.normalizers import Replace

from llamacpu import _native
from raw_gguf import text as string
from reference_tokenizer import merge_word
from thorough import examples
from vocabulary_files import BYTE, BYTE_TOKENS, CONTROL, NORMAL, load, vocabulary_pairs

LETTERS = [*"ab▁\n", "é", "日"]
samples = st.text(st.sampled_from("aaabb  \n\né日🦙\u3000\tA"), max_size=60)


@st.composite
def merge_lists(draw: st.DrawFn) -> list[str]:
    symbols = list(LETTERS)
    merges = []
    for _ in range(draw(st.integers(0, 20))):
        left, right = draw(st.sampled_from(symbols)), draw(st.sampled_from(symbols))
        merges.append(f"{left} {right}")
        symbols.append(left + right)
    return merges


def native(tokens: list[str], merges: list[str], pre: str, white_space: str = "kept") -> _native.Tokenizer:
    first, second = b"".join(map(string, tokens)), b"".join(map(string, merges))
    return _native.Tokenizer.byte_pair((first, len(tokens)), None, (second, len(merges)), pre, None, white_space)  # type: ignore[arg-type]


def by_definition(words: list[str], tokens: list[str], merges: list[str], whole_lines: bool) -> list[int]:
    ids = {token: id for id, token in enumerate(tokens)}
    ranks: dict[tuple[str, str], int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        ranks.setdefault((left, right), rank)
    found: list[int] = []
    for word in words:
        if whole_lines and not word.strip("\n") and word in ids:
            found.append(ids[word])
            continue
        for symbol in merge_word(list(word), ranks):
            found += [ids[symbol]] if symbol in ids else [ids[BYTE_TOKENS[byte]] for byte in symbol.encode()]
    return found


@given(merge_lists(), samples, st.sampled_from(["gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"]))
@settings(max_examples=examples(300), deadline=None)
def test_characters_are_merged_by_rank(merges: list[str], text: str, pre: str) -> None:
    tokens = list(dict.fromkeys([*BYTE_TOKENS, *LETTERS, "\n\n", *(merge.replace(" ", "") for merge in merges)]))
    tokenizer = native(tokens, merges, pre)
    if pre == "whitespace":
        words = [word for word in re.split(r"(\S+)", text) if word]
        assert tokenizer.encode(text, False, True) == by_definition(words, tokens, merges, False)
        words = re.findall(r"\S+", text.lower())
        dropped = native(tokens, merges, pre, "dropped, lowercase")
        assert dropped.encode(text, False, True) == by_definition(words, tokens, merges, False)
        return
    words = re.findall("[^\n]+|\n+", text.replace(" ", "▁"))
    ids = tokenizer.encode(text, False, True)
    assert ids == by_definition(words, tokens, merges, True)


@given(merge_lists(), samples)
@settings(max_examples=examples(200), deadline=None)
def test_lines_have_the_ids_of_the_tokenizers_library(merges: list[str], text: str) -> None:
    tokens = list(dict.fromkeys([*BYTE_TOKENS, *LETTERS, *(merge.replace(" ", "") for merge in merges)]))
    pairs = list(dict.fromkeys((merge.split(" ")[0], merge.split(" ")[1]) for merge in merges))
    oracle = Oracle(BPE({token: id for id, token in enumerate(tokens)}, pairs, byte_fallback=True))
    oracle.normalizer = Replace(" ", "▁")
    text = text.replace("\n", "")
    tokenizer = native(tokens, [" ".join(pair) for pair in pairs], "gemma4")
    assert tokenizer.encode(text, False, True) == oracle.encode(text, add_special_tokens=False).ids


def test_a_file_of_gemma_4(tmp_path: Path) -> None:
    tokens = ["<pad>", "<eos>", "<bos>", *BYTE_TOKENS, "▁", "a", "b", "▁a", "\n", "\n\n"]
    kinds = [CONTROL] * 3 + [BYTE] * 256 + [NORMAL] * 6
    # The file denies what the model needs, and its word rule follows from its kind.
    keys = {"bos_token_id": 2, "eos_token_id": 1, "add_bos_token": False}
    for model, pre in (("gemma4", {}), ("gpt2", {"pre": "gemma4"})):
        tokenizer = load(tmp_path, vocabulary_pairs(model, tokens, kinds, merges=["▁ a"], **keys, **pre))
        ids = tokenizer.encode("b a\n\né")
        assert [tokens[id] for id in ids] == ["<bos>", "b", "▁a", "\n\n", "<0xC3>", "<0xA9>"]
        assert tokenizer.decode(ids, skip_special=True) == "b a\n\né"
        assert tokenizer.decode(tokenizer.encode(" a"), skip_special=True) == " a"


def test_a_file_of_words_between_white_space(tmp_path: Path) -> None:
    tokens = [*BYTE_TOKENS, "a", "b", "ab", "A"]
    kinds = [BYTE] * 256 + [NORMAL] * 4
    pairs = vocabulary_pairs("whitespace", tokens, kinds, merges=["a b"])
    assert load(tmp_path, pairs).encode(" ab\u3000A\nb", add_special=False) == [258, 259, 257]
    lower = vocabulary_pairs("whitespace", tokens, kinds, merges=["a b"], **{"normalizer.lowercase": True})
    assert load(tmp_path, lower).encode("A\nb", add_special=False) == [256, 257]


@pytest.mark.parametrize("unit", ["a", "\n", " ", "é", "🦙", " a"])
def test_a_megabyte_is_tokenized(unit: str) -> None:
    tokenizer = native([*BYTE_TOKENS, *LETTERS, "aa", "aaaa", "▁a"], ["a a", "aa aa", "▁ a"], "gemma4")
    text = unit * (1_000_000 // len(unit.encode()))
    assert 0 < len(tokenizer.encode(text, False, True)) <= 1_000_000
