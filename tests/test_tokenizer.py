"""The tokenizer as Python sees it: special tokens, defaults, decoding, and files that are wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacpu import GGUFError, GGUFFile, LlamaCpuError, ModelError, Tokenizer, _native
from raw_gguf import F64, I64, array, gguf_bytes, pair, text
from tiny_tokenizers import byte_letters
from vocabulary_files import (
    BYTE,
    BYTE_TOKENS,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    bpe,
    load,
    spm,
    vocabulary_pairs,
)

PIECES = {"▁": -1.0, "a": -2.0, "b": -3.0, "▁a": -4.0, "▁ab": -3.5, "ab": -5.0, "</": -9.0}


def shown(tokenizer: Tokenizer, text: str, **options: bool) -> list[str]:
    return [tokenizer.id_to_piece(id) for id in tokenizer.encode(text, add_special=False, **options)]


def test_a_space_is_put_first_and_after_every_special_token(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path, PIECES)
    assert shown(tokenizer, "ab</s>ab</s> a", parse_special=True) == ["▁ab", "</s>", "▁ab", "</s>", "▁", "▁a"]
    assert shown(tokenizer, "</s>", parse_special=True) == ["</s>"]
    assert shown(tokenizer, "ab", space_prefix=False) == ["ab"]
    assert shown(tokenizer, "") == []
    assert tokenizer.encode("") == [1]
    without = spm(tmp_path, PIECES, add_space_prefix=False)
    assert shown(without, "ab</s>ab", parse_special=True) == ["ab", "</s>", "ab"]
    assert without.decode(without.encode(" ab"), skip_special=True) == " ab"


def test_special_tokens_in_text_are_text_unless_asked_for(tmp_path: Path) -> None:
    special = [("<|eot_id|>", CONTROL), ("<tool>", USER_DEFINED), ("<nothing>", UNKNOWN), ("<off>", UNUSED)]
    tokenizer = bpe(tmp_path, ["a b"], special)
    text = "ab<|eot_id|>ab<tool><nothing><off>"
    plain = tokenizer.encode(text)
    assert tokenizer.token_to_id("<tool>") in plain
    assert not {tokenizer.token_to_id(name) for name in ("<|eot_id|>", "<nothing>", "<off>")} & set(plain)
    parsed = shown(tokenizer, text, parse_special=True)
    assert parsed[:5] == ["ab", "<|eot_id|>", "ab", "<tool>", "<nothing>"]
    assert tokenizer.decode(plain) == text
    assert tokenizer.decode(tokenizer.encode(text, parse_special=True)) == text
    hidden = tokenizer.decode(tokenizer.encode(text, parse_special=True), skip_special=True)
    assert hidden == "abab<tool><off>"


def test_begin_and_end_are_added_when_the_file_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert spm(tmp_path, PIECES).encode("ab")[0] == 1
    assert spm(tmp_path, PIECES, add_bos_token=False).encode("ab")[0] != 1
    both = spm(tmp_path, PIECES, add_eos_token=True)
    assert both.encode("ab") == [1, both.token_to_id("▁ab"), 2]
    assert both.encode("ab", add_special=False) == [both.token_to_id("▁ab")]
    with caplog.at_level(logging.WARNING, "llamacpu"):
        assert both.encode("<s>ab", parse_special=True)[:2] == [1, 1]
    assert "BOS" in caplog.text
    llama3 = bpe(tmp_path, [], [("<b>", CONTROL)], pre="llama-bpe", bos_token_id=256)
    assert (llama3.add_bos, llama3.encode("a")) == (True, [256, byte_letters().index("a")])
    assert not bpe(tmp_path, [], [("<b>", CONTROL)], bos_token_id=256).add_bos


def test_defaults_of_missing_keys(tmp_path: Path) -> None:
    pieces = spm(tmp_path, PIECES)
    assert (pieces.bos, pieces.eos, pieces.unk, pieces.eot) == (1, 2, 0, None)
    assert (pieces.add_bos, pieces.add_eos, pieces.eog) == (True, False, {2})
    pairs = bpe(tmp_path, [])
    assert (pairs.bos, pairs.eos, pairs.unk, pairs.eot) == (11, 11, None, None)
    assert (pairs.add_bos, pairs.add_eos) == (False, False)
    # The default id is a comma here, or any other text: no reason to stop.
    assert pairs.eog == frozenset()
    tiny = load(tmp_path, vocabulary_pairs("llama", ["a"], scores=[0.0]))
    assert (tiny.vocab_size, tiny.bos, tiny.eos, tiny.unk, tiny.add_bos) == (1, None, None, 0, False)


def test_ends_of_generation(tmp_path: Path) -> None:
    names = ["<|eom_id|>", "<|end_of_text|>", "<|eot_id|>", "<x>", "<|fim_pad|>", "<|file_sep|>"]
    llama3 = bpe(tmp_path, [], [(name, CONTROL) for name in names], eos_token_id=257)
    assert {llama3.id_to_piece(id) for id in llama3.eog} == set(names) - {"<x>"}
    assert llama3.eot == llama3.token_to_id("<|eot_id|>")
    assert llama3.fim == {"padding": llama3.token_to_id("<|fim_pad|>"), "separator": llama3.token_to_id("<|file_sep|>")}
    llama4 = bpe(tmp_path, [], [("<|end_of_text|>", CONTROL), ("<|eom|>", CONTROL), ("<|eot|>", CONTROL)])
    assert llama4.eog == {256, 257, 258}
    assert llama4.eot == 258
    given = bpe(
        tmp_path, [], [("<a>", CONTROL), ("<b>", CONTROL), ("<c>", CONTROL)], eot_token_id=256, eom_token_id=258
    )
    assert (given.eot, given.eog) == (256, {256, 258})
    marks = ["<|start|>", "<|message|>", "<|eom|>", "<|eot|>"]
    for named in ({}, {"eom_token_id": 258}):
        # An answer goes on behind the end of a message, which stays a control token.
        muse = bpe(tmp_path, [], [(mark, CONTROL) for mark in marks], **named)
        assert muse.eog == {259}
        assert muse.encode("<|eom|>", parse_special=True, add_special=False) == [258]
        assert len(muse.encode("<|eom|>", add_special=False)) == len("<|eom|>")


def test_an_ending_is_a_control_token_whatever_the_file_says(tmp_path: Path) -> None:
    tokenizer = bpe(tmp_path, [], [("<|im_end|>", NORMAL)])
    assert tokenizer.encode("<|im_end|>", parse_special=True) == [256]
    assert 256 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.decode([256], skip_special=True) == ""


def test_phi_3_drops_white_space_after_special_tokens(tmp_path: Path) -> None:
    keys = vocabulary_pairs(
        "llama",
        ["<unk>", "<s>", "</s>", "▁", "a", "▁a", "<|user|>", *BYTE_TOKENS],
        [UNKNOWN, CONTROL, CONTROL, NORMAL, NORMAL, NORMAL, CONTROL, *[BYTE] * 256],
    )
    named = [pair("general.name", b"\x08\x00\x00\x00" + text("Phi-3 mini")), *keys]
    user, a = 6, 5
    assert load(tmp_path, named).encode("<|user|> \n a<s>  a", False, True) == [user, a, 1, 3, 3, a]
    assert load(tmp_path, keys).encode("<|user|> a", False, True) == [user, 3, a]


def test_decoding_a_text_and_its_continuation(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path, PIECES)
    ids = tokenizer.encode("ab a")
    assert tokenizer.decode(ids, skip_special=True) == "ab a"
    assert tokenizer.decode(ids) == "<s>ab a"
    assert tokenizer.decode_bytes(ids, skip_special=True) == b" ab a"
    assert tokenizer.decode(iter(ids[1:])) == "ab a"
    assert tokenizer.decode(np.array(ids[1:], np.int32)) == "ab a"
    assert tokenizer.decode([]) == ""
    stream = tokenizer.stream(skip_special=True)
    assert "".join(map(stream.push, ids)) + stream.flush() == " ab a"


def test_kinds_of_tokens_decode_in_their_way(tmp_path: Path) -> None:
    special = [("▁lit▁", USER_DEFINED), ("<c>", CONTROL), ("x", UNUSED)]
    tokenizer = spm(tmp_path, PIECES, special)
    ids = [tokenizer.token_to_id(name) for name in ("▁lit▁", "<c>", "x", "<0x41>", "▁a")]
    assert tokenizer.decode_bytes([id for id in ids if id is not None]) == "▁lit▁<c>A a".encode()
    assert tokenizer.token_to_id("nothing") is None


@given(st.lists(st.integers(0, 265), max_size=40), st.booleans())
def test_a_stream_says_what_the_whole_says(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], skip: bool
) -> None:
    tokenizer = spm(tmp_path_factory.getbasetemp(), PIECES)
    ids += [byte + 3 for byte in "a🦙é".encode()]
    whole = tokenizer.decode_bytes(ids, skip).decode("utf-8", "replace")
    stream = tokenizer.stream(skip)
    said = ""
    for number, id in enumerate(ids):
        said += stream.push(id)
        so_far = tokenizer.decode_bytes(ids[: number + 1], skip).decode("utf-8", "replace")
        # What is held back is the beginning of one character, which alone would be shown as one U+FFFD.
        assert so_far in (said, said + "\ufffd")
    assert said + stream.flush() == whole
    assert stream.push(3 + ord("a")) == "a"
    assert stream.push(3 + 0xF0) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_broken_texts_in_a_vocabulary_are_tolerated(tmp_path: Path) -> None:
    tokens = [*byte_letters(), b"\xff\xfe", "", "a b", b"\xc3"]
    tokenizer = load(tmp_path, vocabulary_pairs("gpt2", tokens, merges=[b"\xff a", "a b"], pre="gpt-2"))
    assert tokenizer.decode_bytes([256, 257, 258, 259]) == b"\xff\xfea b\xc3"
    assert tokenizer.id_to_piece(256) == "\ufffd\ufffd"
    assert tokenizer.decode(tokenizer.encode("a b ab ÿ")) == "a b ab ÿ"


def test_numbers_may_have_any_type(tmp_path: Path) -> None:
    pairs = vocabulary_pairs("llama", ["<unk>", "<s>", "</s>", "▁", "a", "▁a"])
    pairs += [pair("tokenizer.ggml.scores", array(F64, [0, 0, 0, -1, -2, -3]))]
    pairs += [pair("tokenizer.ggml.token_type", array(I64, [2, 3, 3, 1, 1, 77]))]
    assert load(tmp_path, pairs).encode("a") == [1, 5]


def test_a_missing_word_rule_is_logged_and_an_unknown_one_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = vocabulary_pairs("gpt2", byte_letters(), merges=[])
    with caplog.at_level(logging.WARNING, "llamacpu"):
        assert load(tmp_path, pairs).decode(load(tmp_path, pairs).encode("a 1")) == "a 1"
    assert "tokenizer.ggml.pre" in caplog.text
    with pytest.raises(ModelError, match=r"someone.*llama-bpe"):
        bpe(tmp_path, [], pre="someone")


@pytest.mark.parametrize(
    ("pairs", "error", "words"),
    [
        (vocabulary_pairs("rwkv", ["a"]), ModelError, "rwkv.*'bert'"),
        (vocabulary_pairs("llama", ["a"])[1:], ModelError, "tokenizer.ggml.model"),
        (vocabulary_pairs("llama", ["a"])[:1], ModelError, "tokenizer.ggml.tokens"),
        (vocabulary_pairs("llama", []), GGUFError, "no tokens"),
        (vocabulary_pairs("llama", ["a", "b"], scores=[0.0]), GGUFError, "1 scores"),
        (vocabulary_pairs("llama", ["a", "b"], scores=[0.0] * 3), GGUFError, "3 scores"),
        (vocabulary_pairs("llama", ["a", "b"], scores=[0.0, float("nan")]), GGUFError, "token 1"),
        (vocabulary_pairs("llama", ["a", "b"], kinds=[1]), GGUFError, "1 token types"),
        (vocabulary_pairs("llama", ["a"], scores=None, token_type="x"), GGUFError, "token_type"),
        (vocabulary_pairs("gpt2", ["a"], pre="gpt-2"), ModelError, "merges"),
        (vocabulary_pairs("gpt2", ["a"], merges=["ab"], pre="gpt-2"), GGUFError, "merge 0"),
        (vocabulary_pairs("gpt2", ["a"], merges=["a b", " a"], pre="gpt-2"), GGUFError, "merge 1"),
        (vocabulary_pairs("gpt2", ["a"], merges=["a "], pre="gpt-2"), GGUFError, "merge 0"),
    ],
)
def test_contradictions_are_errors(tmp_path: Path, pairs: list[bytes], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load(tmp_path, pairs)


@pytest.mark.parametrize("wrong", [300, 2**31, 2**32 - 2, 2**32 - 1])
def test_special_ids_outside_of_the_vocabulary_are_ignored(
    tmp_path: Path, wrong: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llamacpu"):
        tokenizer = bpe(tmp_path, [], [("<b>", CONTROL)], bos_token_id=256, eos_token_id=wrong, eot_token_id=wrong)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.eot) == (256, None, None)
    assert wrong not in tokenizer.eog
    # All ones is how converters write "none".
    told = [
        record.message for record in caplog.records if "outside" in record.message or "it is ignored" in record.message
    ]
    assert len(told) == (0 if wrong == 2**32 - 1 else 2)
    assert all("257 tokens" in line for line in told)


def test_a_vocabulary_of_glm_has_no_bos_unless_the_file_names_one(tmp_path: Path) -> None:
    assert bpe(tmp_path, [], pre="gpt-2").bos == 11
    assert bpe(tmp_path, [], pre="glm4").bos is None
    assert bpe(tmp_path, [], pre="glm4", bos_token_id=3).bos == 3


def test_tokens_for_filling_in_are_control_tokens_whatever_the_file_says(tmp_path: Path) -> None:
    names = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|user_defined|>"]
    tokenizer = bpe(tmp_path, [], [(name, USER_DEFINED) for name in names])
    assert set(tokenizer.fim.values()) == {256, 257, 258}
    text = "".join(names)
    assert set(tokenizer.encode(text, add_special=False)) & {256, 257, 258, 259} == {259}
    assert tokenizer.encode(text, add_special=False, parse_special=True) == [256, 257, 258, 259]
    assert tokenizer.decode([256, 259], skip_special=True) == names[-1]


def test_a_closed_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(vocabulary_pairs("llama", ["a"])))
    with GGUFFile(tmp_path / "a.gguf") as file:
        pass
    with pytest.raises(GGUFError, match="closed"):
        Tokenizer(file)


def test_a_character_without_any_token_is_an_error(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, vocabulary_pairs("llama", ["▁", "a"], unknown_token_id=0))
    assert tokenizer.encode("ab", add_special=False) == [0, 1, 0]
    with pytest.raises(ModelError, match="no token for"):
        _native.Tokenizer.sentence_piece((text("a"), 1), None, None, None, True, None).encode("b", False, False)


def test_wrong_arguments(tmp_path: Path) -> None:
    tokenizer = spm(tmp_path, PIECES)
    for id in (-1, tokenizer.vocab_size, 2**40):
        for call in (tokenizer.id_to_piece, tokenizer.stream().push, lambda id: tokenizer.decode([id])):
            with pytest.raises(ValueError, match="no token"):
                call(id)
    with pytest.raises(ValueError, match="too long"):
        tokenizer.encode(b"a" * (2**26 + 1))
    with pytest.raises(TypeError, match="str or bytes"):
        tokenizer.encode(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"half of a surrogate pair, '\\ud800', at character 2") as caught:
        tokenizer.encode("ab\ud800")
    assert type(caught.value) is ValueError


@given(st.binary(max_size=80), st.integers(0, 90), st.integers(0, 12) | st.integers(0, 2**64 - 1))
def test_any_bytes_index_or_fail(data: bytes, start: int, count: int) -> None:
    at, offsets = start, []
    while at <= len(data) and len(offsets) < min(count, 100):
        offsets.append(at)
        at += 8 + int.from_bytes(data[at : at + 8], "little") if at + 8 <= len(data) else len(data) + 1
    if at <= len(data) and len(offsets) == count:
        found, end = _native.index_strings(data, start, count)
        assert (found.tolist(), end) == ([*offsets, at], at)
    else:
        with pytest.raises(GGUFError):
            _native.index_strings(data, start, count)


@given(st.binary(max_size=200), st.integers(0, 9), st.integers(0, 9))
def test_any_bytes_make_a_tokenizer_or_fail(data: bytes, tokens: int, merges: int) -> None:
    strings = b"".join(text(data[at : at + 3]) for at in range(0, len(data), 3)) + data
    try:
        pieces = _native.Tokenizer.sentence_piece((strings, tokens), None, None, None, True, None)
        pieces.decode(pieces.encode(data, True, True), True, True)
    except LlamaCpuError:
        pass
    try:
        pairs = _native.Tokenizer.byte_pair((strings, tokens), None, (strings, merges), "gpt-2", None)
        pairs.decode(pairs.encode(data, True, True), True, True)
    except LlamaCpuError:
        pass
