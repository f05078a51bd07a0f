"""Tokenizing by definition: slow, short, and independent of the native code."""

from __future__ import annotations

import itertools
import re
import unicodedata

from tiny_tokenizers import byte_letters

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?[L]+| ?[N]+| ?[^\sLN]+|\s+(?!\S)|\s+"
_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nLN]?[L]+|[N]{DIGITS}| ?[^\sLN]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# Per name: the expressions, with L and N for the classes of letters and digits.
EXPRESSIONS = {
    "gpt-2": [_GPT2],
    "llama-bpe": [_LLAMA3.replace("DIGITS", "1,3")],
    "dbrx": [_LLAMA3.replace("DIGITS", "1,3")],
    "qwen2": [_LLAMA3.replace("DIGITS", "1")],
    "smollm": ["[N]", _GPT2],
}


def _stand_in(character: str) -> str:
    """An ASCII character that the expressions treat in the same way."""
    if character.isascii():
        return character
    if character in "\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" or "\u2000" <= character <= "\u200a":
        return "\t"
    kind = unicodedata.category(character)[0]
    return {"L": "Q", "N": "7"}.get(kind, "#")


def words(pre: str, text: str) -> list[str]:
    """The words of `text` under the rule `pre`."""
    pieces = [text]
    for expression in EXPRESSIONS[pre]:
        ascii_expression = expression.replace("L", "A-Za-z").replace("[N]", "[0-9]").replace("N", "0-9")
        # Contractions are the only other place where capitals stand for themselves, and there are none in them.
        cut = []
        for piece in pieces:
            image = "".join(map(_stand_in, piece))
            at = 0
            for match in re.finditer(ascii_expression, image, re.ASCII):
                cut += [piece[at : match.start()], piece[match.start() : match.end()]]
                at = match.end()
            cut.append(piece[at:])
        pieces = [piece for piece in cut if piece]
    return pieces


def merge_word(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Joins the pair of the lowest rank, the leftmost of equals, until there is none."""
    while True:
        pairs = [(ranks[pair], at) for at, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
        if not pairs:
            return symbols
        at = min(pairs)[1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


def encode_byte_pairs(text: str, tokens: list[str], merges: list[str], pre: str) -> list[int]:
    """Byte-level BPE; every byte has a token."""
    ids = {token: id for id, token in enumerate(tokens)}
    ranks: dict[tuple[str, str], int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge.split(" ")
        ranks.setdefault((left, right), rank)
    letters = byte_letters()
    found: list[int] = []
    for word in words(pre, text):
        symbols = [letters[byte] for byte in word.encode()]
        if pre == "llama-bpe" and "".join(symbols) in ids:
            found.append(ids["".join(symbols)])
            continue
        for symbol in merge_word(symbols, ranks):
            found += [ids[symbol]] if symbol in ids else [ids[letter] for letter in symbol]
    return found


def encode_pieces(text: str, tokens: list[str], scores: list[float], unknown: int) -> list[int]:
    """SentencePiece: joins the neighbours that make the token of the highest score; a space is put first."""
    ids = {token: id for id, token in enumerate(tokens)}
    symbols = list((" " + text).replace(" ", "▁")) if text else []
    while True:
        joined = [(-scores[ids[a + b]], at) for at, (a, b) in enumerate(itertools.pairwise(symbols)) if a + b in ids]
        if not joined:
            break
        at = min(joined)[1]
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    found: list[int] = []
    for symbol in symbols:
        raw = [ids.get(f"<0x{byte:02X}>") for byte in symbol.encode()]
        if symbol in ids:
            found.append(ids[symbol])
        elif None in raw:
            found.append(unknown)
        else:
            found += [id for id in raw if id is not None]
    return found
