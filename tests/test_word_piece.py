"""WordPiece vocabularies: against the definition, against the `tokenizers` library, and files of them."""

# ruff: noqa: RUF001 (letters that look like others)

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Oracle
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import WordPieceTrainer

from llamacpu import GGUFError, ModelError, _native
from raw_gguf import text as string
from reference_encoders import encode_word_pieces
from thorough import examples
from vocabulary_files import CONTROL, NORMAL, load, vocabulary_pairs

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog; it's 12345 unaffable embeddings, naïve café élan!",
    "Ein Wörterbuch für Straßen und Übergänge, 你好世界 日本語 かな, Привет мир, γειά σου κόσμε",
    "don't can't o'clock x=1+2 <tag> $5 `code` a_b c-d e.g. state-of-the-art http://example.org/~me",
]
samples = st.text(
    st.sampled_from(
        "the quickfoxTHEé ÉàüßİıǅΣς你世かПр12345.,;!?'\"-_$+<=>^`|~«»…\t\n\r\u0301\u00a0\u3000\u200b\ufeff\0\ufffd🦙"
    ),
    max_size=80,
) | st.text(max_size=60)


def trained(lowercase: bool, strip_accents: bool | None) -> tuple[Oracle, list[str]]:
    """A tokenizer of the library, and its vocabulary as converters write it."""
    oracle = Oracle(WordPiece(unk_token="[UNK]", max_input_chars_per_word=10**6))
    oracle.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    oracle.pre_tokenizer = BertPreTokenizer()
    oracle.train_from_iterator(
        CORPUS * 3, WordPieceTrainer(vocab_size=220, special_tokens=SPECIAL, show_progress=False)
    )
    texts = [""] * oracle.get_vocab_size()
    for text, id in oracle.get_vocab().items():
        texts[id] = text if text in SPECIAL else text[2:] if text.startswith("##") else "▁" + text
    return oracle, texts


def native(texts: list[str], lowercase: bool = True, strip_accents: bool = True) -> _native.Tokenizer:
    buffer = b"".join(map(string, texts))
    return _native.Tokenizer.word_piece((buffer, len(texts)), None, 1, lowercase, strip_accents)


UNCASED, CASED = trained(True, None), trained(False, False)


def differs(character: str) -> bool:
    """Where llama.cpp and the library part: Hangul, spacing marks, rare line ends, and characters after Unicode 3.2."""
    kinds = {unicodedata.category(part) for part in unicodedata.normalize("NFD", character)}
    is_new = unicodedata.ucd_3_2_0.category(character) == "Cn"
    return is_new or character in "\x0b\x0c\x85" or "가" <= character <= "힣" or bool(kinds & {"Mc", "Me", "Cs"})


@given(samples)
@settings(max_examples=examples(400), deadline=None)
def test_ids_are_those_of_the_tokenizers_library(text: str) -> None:
    text = "".join(character for character in text if not differs(character))
    for (oracle, texts), lowercase in ((UNCASED, True), (CASED, False)):
        expected = oracle.encode(text, add_special_tokens=False).ids
        assert native(texts, lowercase, lowercase).encode(text, False, True) == expected


pieces = st.text(st.sampled_from("▁ab é你!"), min_size=1, max_size=5)


@given(st.lists(pieces, unique=True, max_size=25), samples, st.booleans(), st.booleans())
@settings(max_examples=examples(400), deadline=None)
def test_ids_are_those_of_the_definition(made: list[str], text: str, lowercase: bool, strip_accents: bool) -> None:
    texts = [*SPECIAL, "▁a", "▁b", "a", "b", *made]
    texts = list(dict.fromkeys(texts))
    # What Python's tables do not know yet, others may.
    text = "".join(character for character in text if unicodedata.category(character) != "Cn")
    for sample in (text, "abé b你a!b aab " + text):
        expected = encode_word_pieces(sample, texts, 1, lowercase, strip_accents)
        assert native(texts, lowercase, strip_accents).encode(sample, False, True) == expected


def test_where_llama_cpp_and_the_library_part() -> None:
    """Files are used with llama.cpp: its ids count."""
    texts = [*SPECIAL, "▁a", "a", "▁\u1100", "▁\u0915"]
    tokenizer = native(texts)
    assert tokenizer.encode("가", False, True) == [7]  # the library keeps all letters of the syllable
    assert tokenizer.encode("\u0915\u093e", False, True) == [8]  # and the vowel sign
    for line_end in "\x0b\x0c\x85":
        assert tokenizer.encode(f"a{line_end}a", False, True) == [5, 5]  # and drops these line ends
    assert tokenizer.encode("a" * 101, False, True) == [5] + [6] * 100  # and takes 100 characters at most


def test_text_is_framed_and_comes_back(tmp_path: Path) -> None:
    _, texts = UNCASED
    kinds = [CONTROL] * 5 + [NORMAL] * (len(texts) - 5)
    keys = {"unknown_token_id": 1, "seperator_token_id": 3, "padding_token_id": 0, "mask_token_id": 4}
    for name in ("bos_token_id", "cls_token_id"):
        # The flags of models that write text mean nothing here, as in llama.cpp.
        more = {name: 2, "add_bos_token": False, "add_eos_token": False}
        tokenizer = load(tmp_path, vocabulary_pairs("bert", texts, kinds, **keys, **more))
        ids = tokenizer.encode("The quick Brown fox")
        assert (ids[0], ids[-1]) == (2, 3)
        assert ids[1:-1] == tokenizer.encode("The quick Brown fox", add_special=False)
        assert tokenizer.decode(ids, skip_special=True) == "the quick brown fox"
        assert tokenizer.decode_bytes(ids[1:-1]) == b" the quick brown fox"
        assert tokenizer.encode("") == [2, 3]
        assert (tokenizer.bos, tokenizer.sep, tokenizer.eos, tokenizer.unk) == (2, 3, None, 1)
    # Names of control tokens are text, unless a program says otherwise.
    assert 4 not in tokenizer.encode("a [MASK]")
    assert tokenizer.encode("a [MASK]", parse_special=True)[-2] == 4


def test_the_file_says_whether_letters_stay(tmp_path: Path) -> None:
    texts = [*SPECIAL, "▁a", "▁A", "▁é", "▁E", "▁É", "▁e"]
    lower, accents = "normalizer.lowercase", "normalizer.strip_accents"

    def ids(text: str, **keys: bool) -> list[int]:
        named = {key.replace("_", ".", 1): value for key, value in keys.items()}
        return load(tmp_path, vocabulary_pairs("bert", texts, unknown_token_id=1, **named)).encode(text, False)

    assert (lower, accents) == ("normalizer.lowercase", "normalizer.strip_accents")
    assert ids("A É") == [5, 10]
    assert ids("A É", normalizer_lowercase=False) == [6, 9]
    assert ids("A É", normalizer_lowercase=False, normalizer_strip_accents=True) == [6, 8]
    assert ids("A É", normalizer_strip_accents=False) == [5, 7]


def test_ids_that_the_file_does_not_name(tmp_path: Path) -> None:
    texts = [f"▁{number}" for number in range(100)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = load(tmp_path, vocabulary_pairs("bert", texts))
    assert tokenizer.encode("7 x") == [101, 7, 100, 102]
    # A vocabulary without these ids frames nothing, and has nothing for what it does not know.
    small = load(tmp_path, vocabulary_pairs("bert", ["▁a", "b"]))
    assert small.encode("a ab") == [0, 0, 1]
    with pytest.raises(ModelError, match="no tokens for"):
        small.encode("xyz")


@pytest.mark.parametrize("unit", ["a", "é", "你", "!", " ", "\n", "\u0301", "\0", "ab", "x"])
def test_a_megabyte_is_tokenized(unit: str) -> None:
    texts = [*SPECIAL, "▁a", "a", "b", "aa", "▁aaaa", "a" * 500, "▁你", "▁!"]
    text = unit * (1_000_000 // len(unit.encode()))
    ids = native(texts).encode(text, False, True)
    assert len(ids) <= 1_000_000
    assert native(texts).encode(text.encode()[:-1] + b"\xff", False, True)[:1] == ids[:1]


@given(st.binary(max_size=200), st.integers(0, 12), st.none() | st.integers(0, 3))
def test_any_bytes_make_a_tokenizer_or_fail(data: bytes, tokens: int, unknown: int | None) -> None:
    strings = b"".join(string(data[at : at + 3]) for at in range(0, len(data), 3)) + data
    try:
        tokenizer = _native.Tokenizer.word_piece((strings, tokens), None, unknown, True, True)
        tokenizer.decode(tokenizer.encode(data, True, True), True, True)
    except (ModelError, GGUFError, ValueError):
        pass


def test_a_very_long_token_is_refused() -> None:
    with pytest.raises(ModelError, match="513 bytes"):
        native([*SPECIAL, "▁" + "a" * 510])
