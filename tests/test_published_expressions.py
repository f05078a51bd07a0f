"""Byte-level BPE under the expressions that models publish: the ids are those of the `tokenizers` library."""

from __future__ import annotations

import random

import pytest
from tokenizers import Regex
from tokenizers import Tokenizer as Oracle
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

from tiny_tokenizers import byte_letters
from vocabulary_files import native_pairs

CJK = r"[\x{4E00}-\x{9FA5}\x{3040}-\x{309F}\x{30A0}-\x{30FF}]+"
PUNCTUATION = r"[\p{P}!-/:-@\[-`{-~]"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
JAIS_2 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|"
    r"\s{1,2}(?!\S)|\s{1}"
)
KIMI_UPPER, KIMI_LOWER = (letters[:-1] + r"&&[^\p{Han}]]" for letters in (UPPER, LOWER))
KIMI_K2 = (
    rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}*{KIMI_LOWER}+{CONTRACTIONS}?|"
    rf"[^\r\n\p{{L}}\p{{N}}]?{KIMI_UPPER}+{KIMI_LOWER}*{CONTRACTIONS}?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
AFMOE = (
    r"[\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{F900}-\x{FAFF}\x{3040}-\x{309F}\x{30A0}-\x{30FF}\x{FF65}-\x{FF9F}"
    r"\x{2F00}-\x{2FDF}\x{E40}-\x{E7F}\x{E80}-\x{EFF}\x{1780}-\x{17FF}\x{1000}-\x{109F}\x{AA60}-\x{AA7F}"
    r"\x{A9E0}-\x{A9FF}\x{AC00}-\x{D7AF}\x{1100}-\x{11FF}]+"
)
EXAONE_MOE = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)
MARKED_WORD = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"""
DEEPSEEK_V3 = MARKED_WORD + r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPARK = MARKED_WORD + r" ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+"
SENTINELS = ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )"]

# As the models publish them, look-ahead and all.
EXPRESSIONS = {
    "gpt-2": [GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [LLAMA3.replace("{1,3}", "")],
    "gpt-4o": [GPT4O],
    "llama4": [GPT4O],
    "tekken": [GPT4O.replace(CONTRACTIONS + "?", "").replace(r"\p{N}{1,3}", r"\p{N}")],
    "smollm": [r"\p{N}", GPT2],
    "deepseek-v3": [r"\p{N}{1,3}", CJK, DEEPSEEK_V3],
    "jais-2": [JAIS_2],
    "superbpe": [r"\p{N}+", r"(?=(\d{3})+(?!\d))"],
    "tiny_aya": [r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O],
    "kimi-k2": [KIMI_K2],
    "chameleon": [*SENTINELS, r"\p{N}", PUNCTUATION, GPT2],
    "afmoe": [r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))", AFMOE, DEEPSEEK_V3],
    "exaone-moe": [EXAONE_MOE],
    "spark2_5": [r"\p{N}{1,3}", CJK, SPARK, r"\p{N}"],
}
PIECES = [
    *"abcST' \n\r\t19!./éЖж日かーǅʰ\u00a0\u2028\u3000²🦙\u001c½٣_ย한", " ", "  ", "e\u0301", "'s", "'LL", "12345",
    "      ", "<sentinel:1>", "IMGIMGABZ",
]  # fmt: skip


def some_text(draws: random.Random, longest: int) -> str:
    return "".join(draws.choices(PIECES, k=draws.randrange(longest)))


def vocabulary(draws: random.Random) -> tuple[list[str], list[tuple[str, str]]]:
    """(tokens, merges): random ones of the bytes and of what was merged, and ones that occur in such texts."""
    tokens = sorted(byte_letters())
    known = set(tokens)
    merges: list[tuple[str, str]] = []

    def merge(left: str, right: str) -> None:
        if left + right not in known:
            known.add(left + right)
            merges.append((left, right))
            tokens.append(left + right)

    # The first tokens are what "a", "b", ... and the bytes of the other characters become.
    for _ in range(200):
        merge(draws.choice(tokens), draws.choice(tokens))
    written = "".join(byte_letters()[byte] for byte in some_text(draws, 4000).encode())
    for left, right in zip(written[::3], written[1::3], strict=False):
        merge(left, right)
    return tokens, merges


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_ids_are_those_of_the_tokenizers_library(name: str) -> None:
    draws = random.Random(name)
    cuts = [Split(Regex(expression), "isolated") for expression in EXPRESSIONS[name]]
    for _ in range(4):
        tokens, merges = vocabulary(draws)
        whole_words = name in ("llama-bpe", "tekken")
        oracle = Oracle(BPE({token: id for id, token in enumerate(tokens)}, merges, ignore_merges=whole_words))
        oracle.pre_tokenizer = Sequence([*cuts, ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer = native_pairs(tokens, [" ".join(pair) for pair in merges], name)
        for longest in (20, 60, 2000):
            text = some_text(draws, longest)
            if name == "tiny_aya":
                # At \b, the engine of the library counts these among the characters of words, unlike Unicode.
                text = text.replace("²", "").replace("½", "")
            # U+001C is white space for Python, but not for Unicode.
            joined = "".join(letter for letter in text if letter == "\x1c" or not letter.isspace())
            for sample in (text, joined):
                assert tokenizer.encode(sample, False, True) == oracle.encode(sample).ids, repr(sample)
