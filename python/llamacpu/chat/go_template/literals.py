"""String, character and number literals in Go's notation."""

from __future__ import annotations

import re

from llamacpu.chat.go_template.lexer import Token
from llamacpu.chat.go_template.source import Source

__all__ = ["character_of", "number_of", "text_of"]

_ESCAPE = re.compile(
    r"\\(?:(?P<one>[abfnrtv\\'\"])|x(?P<byte>[0-9a-fA-F]{2})|(?P<octal>[0-7]{3})|u(?P<short>[0-9a-fA-F]{4})"
    r"|U(?P<long>[0-9a-fA-F]{8})|(?P<wrong>.?))",
    re.DOTALL,
)
_ONE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LARGEST = 1 << 63


def text_of(source: Source, token: Token) -> str:
    """The value of a string literal in quotes or backquotes. Raises GoTemplateError if it is not valid."""
    if token.kind == "raw":
        return token.text[1:-1].replace("\r", "")
    return _unescaped(source, token, token.text[1:-1], '"')


def character_of(source: Source, token: Token) -> int:
    """The code point of a character literal in single quotes. Raises GoTemplateError if it is not valid."""
    found = _unescaped(source, token, token.text[1:-1], "'")
    if len(found) != 1:
        raise source.error(token.place, f"{token.text:.40} is not one character")
    return ord(found)


def number_of(source: Source, token: Token) -> int | float:
    """The value of a number literal: a signed 64-bit integer or a float. Raises GoTemplateError for anything else."""
    text = token.text.replace("_", "") if re.fullmatch(r"[^_]+(_[^_]+)*", token.text) else token.text
    value: int | float
    if _INTEGER.fullmatch(text) and len(text) < 80:
        digits = text.lstrip("+-").lower()
        base = {"0x": 16, "0b": 2, "0o": 8}.get(digits[:2], 8 if digits.startswith("0") else 10)
        value = int(digits[2:] if digits[1:2] in ("x", "b", "o") else digits, base)
        value = -value if text.startswith("-") else value
        if -_LARGEST <= value < _LARGEST:
            return value
    elif _FLOAT.fullmatch(text) and len(text) < 80:
        value = float(text)
        if abs(value) != float("inf"):
            return value
    raise source.error(token.place, f"{token.text:.40} is no number that a template can have")


def _unescaped(source: Source, token: Token, text: str, quote: str) -> str:
    parts: list[bytes] = []
    place = 0
    for match in _ESCAPE.finditer(text):
        parts.append(text[place : match.start()].encode("utf-8", "surrogatepass"))
        place = match.end()
        one, number = match["one"], match["short"] or match["long"]
        if match["wrong"] is not None or (one in ('"', "'") and one != quote):
            raise source.error(token.place + 1 + match.start(), f"there is no escape {match[0]}")
        if one:
            parts.append(_ONE.get(one, one).encode())
        elif number:
            value = int(number, 16)
            if value > 0x10FFFF or 0xD800 <= value < 0xE000:
                raise source.error(token.place + 1 + match.start(), f"{match[0]} is no character")
            parts.append(chr(value).encode())
        else:
            byte = int(match["byte"] or "0", 16) if match["byte"] else int(match["octal"], 8)
            if byte > 255:
                raise source.error(token.place + 1 + match.start(), f"{match[0]} is no byte")
            parts.append(chr(byte).encode() if quote == "'" else bytes((byte,)))
    parts.append(text[place:].encode("utf-8", "surrogatepass"))
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise source.error(token.place, "the text is not UTF-8") from None
