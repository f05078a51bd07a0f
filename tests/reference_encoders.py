"""WordPiece and Unigram by definition: slow, short, and independent of the native code."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def word_piece_words(text: str, lowercase: bool, strip_accents: bool) -> list[str]:
    """The words of a text, as llama.cpp finds them."""
    words = [""]
    for character in text:
        if strip_accents:
            character = unicodedata.normalize("NFD", character)[0]
        kind = unicodedata.category(character)
        # Python's isspace() has four separators of ASCII besides.
        if character.isspace() and not "\x1c" <= character <= "\x1f":
            words.append("")
            continue
        if character == "\ufffd" or kind in ("Cc", "Cf", "Co") or (strip_accents and kind[0] == "M"):
            continue
        alone = kind[0] == "P" or (kind[0] == "S" and character.isascii())
        alone = alone or any(first <= ord(character) <= last for first, last in _CHINESE)
        if lowercase:
            character = character.lower()[0]
        if alone:
            words += [character, ""]
        else:
            words[-1] += character
    return [word for word in words if word]


def encode_word_pieces(
    text: str, tokens: Sequence[str], unknown: int, lowercase: bool = True, strip_accents: bool = True
) -> list[int]:
    """Of every word the longest token it begins with, then of the rest, and so on; or the unknown token for all."""
    ids = {token: id for id, token in enumerate(tokens)}
    found: list[int] = []
    for word in word_piece_words(text, lowercase, strip_accents):
        rest, pieces = "▁" + word, list[int]()
        while rest:
            length = next((length for length in range(len(rest), 0, -1) if rest[:length] in ids), 0)
            if length == 0:
                pieces = [unknown]
                break
            pieces.append(ids[rest[:length]])
            rest = rest[length:]
        found += pieces
    return found


def normalized(text: str, replaced: Mapping[str, str], prefix: bool, merged: bool) -> str:
    """What a Unigram vocabulary sees of a text: the longest beginning is replaced, again and again, then spaces."""
    out, at = "", 0
    while at < len(text):
        key = max((key for key in replaced if text.startswith(key, at)), key=len, default="")
        out += replaced[key] if key else text[at]
        at += len(key) or 1
    if merged:
        return "".join("▁" + word for word in out.split(" ") if word)
    marked = out.replace(" ", "▁")
    words = marked.lstrip("▁")
    return marked[: len(marked) - len(words)] + "▁" + words if prefix and words else marked


def encode_unigrams(
    text: str, tokens: Sequence[str], scores: Sequence[float], unknown: int, bytes_of: Mapping[int, int] | None = None
) -> list[int]:
    """The tokens of the highest sum of scores. `text` is normalized; `bytes_of` has the tokens of bytes."""
    ids = {token: id for id, token in enumerate(tokens) if token}
    penalty = min(scores) - 10
    best: list[tuple[float, list[int | str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways: list[tuple[float, list[int | str]]] = []
        for start in range(end):
            score, path = best[start]
            part = text[start:end]
            if part in ids:
                ways.append((score + scores[ids[part]], [*path, ids[part]]))
            elif end == start + 1:
                ways.append((score + penalty, [*path, part]))
        # Of equals the first: it has the longest last token.
        best.append(max(ways, key=lambda way: way[0]))
    found: list[int] = []
    was_unknown = False
    for part in best[-1][1]:
        if isinstance(part, int):
            found.append(part)
        elif bytes_of is not None:
            found += [bytes_of[byte] for byte in part.encode()]
        elif not was_unknown:
            found.append(unknown)
        was_unknown = isinstance(part, str)
    return found
