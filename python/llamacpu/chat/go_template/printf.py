"""The printf of templates: Go's fmt.Sprintf for the verbs with one clear meaning for strings, numbers and booleans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llamacpu.chat.go_template.values import display, float_text, kind_of
from llamacpu.chat.traced import Traced, concatenate, has_data

__all__ = ["formatted"]

_VERB = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d{1,4})?(?:\.(?P<precision>\d{1,3})?)?(?P<verb>.)", re.DOTALL)
_KNOWN = "%v %s %q %d %x %X %o %b %c %U %t %f %F %e %E %g %G %%"


def formatted(form: str, values: Sequence[Any]) -> str:
    """The format string with its verbs replaced.

    Raises TypeError or ValueError where Go would write an error into the text.
    """
    parts: list[str] = []
    place = used = 0
    for match in _VERB.finditer(form):
        if form.find("%", place, match.start()) >= 0:
            break
        parts.append(form[place : match.start()])
        place = match.end()
        if match["verb"] == "%":
            parts.append("%")
            continue
        if used == len(values):
            raise ValueError(f"printf has no value for {match[0]}")
        value = values[used]
        used += 1
        text = _padded(_one(value, match), match, isinstance(value, (int, float)) and not isinstance(value, bool))
        parts.append(Traced(text) if has_data(value) and not has_data(text) else text)
    rest = form[place:]
    if "%" in rest:
        raise ValueError(f"printf does not know {rest[rest.index('%') :][:10]!r}; expected one of {_KNOWN}")
    if used < len(values):
        raise ValueError(f"printf has {len(values)} values for {used} verbs")
    return concatenate([*parts, rest])


def _one(value: Any, match: re.Match[str]) -> str:
    verb, flags = str(match["verb"]), str(match["flags"])
    precision = None if "." not in match[0] else int(match["precision"] or 0)
    number = isinstance(value, int) and not isinstance(value, bool)
    if verb == "v" and "#" not in flags and precision is None:
        return _signed(display(value), value, flags)
    if verb == "s" and (isinstance(value, str) or (isinstance(value, (list, dict)) and precision is None)):
        if not isinstance(value, str) and not all(isinstance(one, str) for one in value):
            raise TypeError("printf writes a list with %s that holds more than texts; expected %v")
        text = display(value)
        return text if precision is None else text[:precision]
    if verb == "q" and isinstance(value, str) and "#" not in flags:
        return _quoted(value if precision is None else value[:precision])
    if verb == "t" and isinstance(value, bool):
        return display(value)
    if verb == "x" and isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").hex()
    if verb == "X" and isinstance(value, str):
        return value.encode("utf-8", "surrogatepass").hex().upper()
    if number and verb in "dxXob":
        digits = format(abs(value), verb)
        digits = digits if precision is None else digits.rjust(precision, "0")
        before = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
        return _signed(("-" if value < 0 else "") + before + digits, value, flags)
    if number and verb == "c" and 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000:
        return chr(value)
    if number and verb == "U":
        return f"U+{value:04X}"
    if isinstance(value, float) and verb in "fFeEgG" and "#" not in flags:
        return _signed(_float(value, verb, precision), value, flags)
    if verb not in "vsqtxXdobcUfFeEgG":
        raise ValueError(f"printf does not know %{verb}; expected one of {_KNOWN}")
    raise TypeError(f"printf writes {kind_of(value)} with {match[0]}; that is not supported")


def _float(value: float, verb: str, precision: int | None) -> str:
    if verb in "gG":
        text = float_text(value) if precision is None else _general(value, precision)
        return text.upper() if verb == "G" else text
    return format(value, f".{6 if precision is None else precision}{verb}")


def _general(value: float, precision: int) -> str:
    return format(value, f".{precision}g")


def _signed(text: str, value: Any, flags: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not text.startswith("-"):
        return ("+" if "+" in flags else " " if " " in flags else "") + text
    return text


def _padded(text: str, match: re.Match[str], number: bool) -> str:
    width = int(match["width"] or 0)
    if "-" in match["flags"]:
        return text.ljust(width)
    if "0" in match["flags"]:
        if number and text[:1] in "+- ":
            return text[0] + text[1:].rjust(width - 1, "0")
        return text.rjust(width, "0")
    return text.rjust(width)


def _quoted(text: str) -> str:
    """A quoted string with Go's escapes, which for printable text are those of JSON."""
    if text.isprintable():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        return concatenate(['"', escaped, '"'])
    names = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    parts = []
    for character in "".join((text,)):
        code = ord(character)
        if character in names:
            parts.append(names[character])
        elif character in '"\\':
            parts.append("\\" + character)
        elif character.isprintable():
            parts.append(character)
        else:
            parts.append(f"\\x{code:02x}" if code < 128 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}")
    quoted = '"' + "".join(parts) + '"'
    return Traced(quoted) if has_data(text) else quoted
