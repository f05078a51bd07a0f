"""Texts as grammars write them: in quotes, in regular expressions, and the strings of a schema in an element."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llamacpu.constraints.schema_keywords import ENFORCED_FORMATS

__all__ = ["as_regex", "closed_text", "quoted", "slashed"]

_TEXT_LIMITS = frozenset(("format", "maxLength", "minLength", "pattern"))
# Formats in an element, as in RFC 3339 and RFC 4122.
# February 29, which does not exist in every year, is left out.
_DATE = (
    r"[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    r"|02-(0[1-9]|1[0-9]|2[0-8]))"
)
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_FORMATS = {
    "date": _DATE,
    "date-time": rf"{_DATE}T{_TIME}",
    "email": r"[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*@[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)+",
    "ipv4": rf"{_BYTE}(\.{_BYTE}){{3}}",
    "time": _TIME,
    "uuid": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
}


def closed_text(
    schema: Mapping[str, Any],
    closing: str,
    never: Iterable[str] = (),
    wrapped: bool = False,
    mark: Callable[[str], str] | None = None,
) -> tuple[str, str] | None:
    """A terminal for a string of a schema and the tag that closes it; None where that cannot be expressed.

    The string contains neither the closing tag nor any of the texts in `never`. A control token in the closing tag,
    which no text contains, is no part of the terminal: it and what follows are the second text, "" otherwise.
    wrapped: a line break at its beginning and one at its end belong to the tags; both may be left out.
    mark: writes a text for a grammar, with the control tokens in it; without it, there are none
    """
    end, rest = _split(closing, mark)
    never = [text for text in never if not _split(text, mark)[1]] + ([] if rest else [closing])
    line = "\\n?" if wrapped else ""
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        plain = all(not any(text in choice for text in never) for choice in choices)
        if not plain or (wrapped and any(choice.strip("\n") != choice or not choice for choice in choices)):
            return None
        forms = [quoted(choice + end) for choice in choices]
        forms += [quoted(f"\n{choice}\n{end}") for choice in choices if wrapped]
        # A terminal cannot be empty.
        return None if '""' in forms else (" | ".join(forms), rest)
    tail = as_regex(end)
    parts = [f"/{_without(never)}{tail}/"]
    if not _TEXT_LIMITS & set(schema):
        return " & ".join(parts), rest
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    parts.append(f"/{line}({_of_length(least, most, wrapped)}){line}{tail}/")
    name = schema.get("format")
    if name in ENFORCED_FORMATS:
        if name not in _FORMATS:
            return None
        parts.append(f"/({slashed(_FORMATS[name])}){tail}/")
    if "pattern" in schema:
        pattern = _whole(schema["pattern"])
        if pattern is None:
            return None
        parts.append(f"/({slashed(pattern)}){tail}/")
    return " & ".join(parts), rest


def _split(text: str, mark: Callable[[str], str] | None) -> tuple[str, str]:
    """The text before the first control token, and the rest as a grammar writes it; "" if there is no such token."""
    written = quoted(text) if mark is None else mark(text)
    if written == quoted(text):
        return text, ""
    before, token, after = written.partition("<[")
    return (json.loads(before) if before.strip() else ""), token + after


def _without(tags: Sequence[str]) -> str:
    """An expression for texts that contain none of the tags, each of which has its only "<" at its beginning.

    Such a text consists of other letters and of beginnings of tags that do not go on as tags do. This is a smaller
    automaton, which is built faster, than the complement of an expression for texts with a tag.
    """
    if not tags:
        return "(.|\\n)*"
    going_on: dict[str, set[str]] = {}
    for tag in tags:
        for length in range(1, len(tag)):
            going_on.setdefault(tag[:length], set()).add(tag[length])
    begun = "|".join(map(as_regex, going_on))
    ended = "|".join(
        f"{as_regex(text)}[^<{''.join(map(_in_class, sorted(letters)))}]" for text, letters in going_on.items()
    )
    return f"([^<]|({begun})*({ended}))*({begun})*"


def _in_class(letter: str) -> str:
    return f"\\{letter}" if letter in '\\/]^-[&~|"' else letter


def _of_length(least: int, most: int | None, wrapped: bool) -> str:
    """An expression for texts of some length, which begin and end with no line break if they are wrapped in two."""
    if not wrapped:
        return f"(.|\\n){{{least},{'' if most is None else most}}}"
    options = [
        text for length, text in enumerate(("", "[^\\n]")) if least <= length <= (length if most is None else most)
    ]
    if most is None or most >= 2:
        options.append(f"[^\\n](.|\\n){{{max(0, least - 2)},{'' if most is None else most - 2}}}[^\\n]")
    return "|".join(options)


def _whole(pattern: str) -> str | None:
    """Turn an expression that is searched for in a text into one for the whole text; None if that is uncertain."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", pattern, flags=re.DOTALL)
    inner = plain.removeprefix("^").removesuffix("$")
    if "|" in inner or "^" in inner or "$" in inner or "(?" in inner or re.search(r"\\[bBAzZ]", pattern):
        return None
    before = "" if plain.startswith("^") else "(.|\\n)*"
    after = "" if plain.endswith("$") else "(.|\\n)*"
    body = pattern[1:] if plain.startswith("^") else pattern
    return f"{before}({body[:-1] if plain.endswith('$') else body}){after}"


def as_regex(text: str) -> str:
    """Escape a text for a regular expression of a grammar."""
    return slashed(re.escape(text))


def slashed(expression: str) -> str:
    """Escape a regular expression for a grammar, where it is between slashes and on one line."""
    return expression.replace("/", "\\/").replace("\\\n", "\\n").replace("\n", "\\n")


def quoted(text: str) -> str:
    """Quote a text for a grammar."""
    return json.dumps(text, ensure_ascii=False)
