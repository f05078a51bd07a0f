"""Texts as grammars write them: in quotes, in regular expressions, and the strings of a schema in an element."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from llamacpu.constraints.schema_keywords import ENFORCED_FORMATS

__all__ = ["as_regex", "element_text", "quoted", "slashed"]

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


def element_text(schema: Mapping[str, Any]) -> str | None:
    """A terminal for the strings of a schema inside an element; None where that cannot be expressed.

    An element contains no tag, and line breaks at its beginning and end belong to its own tags.
    """
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None:
        plain = all("<" not in choice and choice.strip("\n") == choice and choice for choice in choices)
        return " | ".join(map(quoted, choices)) if plain else None
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not _TEXT_LIMITS & set(schema):
        return "/[^<]*/"
    parts = [f"/[^<]{{{least},{'' if most is None else most}}}/", "~/\\n(.|\\n)*/", "~/(.|\\n)*\\n/"]
    name = schema.get("format")
    if name in ENFORCED_FORMATS:
        if name not in _FORMATS:
            return None
        parts.append(f"/{_FORMATS[name]}/")
    if "pattern" in schema:
        pattern = _whole(schema["pattern"])
        if pattern is None:
            return None
        parts.append(f"/{slashed(pattern)}/")
    return " & ".join(parts)


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
