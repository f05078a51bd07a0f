"""References inside a schema: names as steps of a JSON pointer, and the schema that such a pointer names."""

from __future__ import annotations

from string import ascii_letters, digits
from typing import Any

_PLAIN = frozenset(ascii_letters + digits + "-._~$")


def pointer(name: str) -> str:
    """A name as a step of a JSON pointer in a reference (RFC 6901, sections 3 and 6)."""
    escaped = name.replace("~", "~0").replace("/", "~1")
    return "".join(letter if letter in _PLAIN else _percent(letter) for letter in escaped)


def written(reference: str) -> str:
    """A local reference in `pointer`'s form: a name may contain what no URI can (RFC 3986), often unescaped."""
    if not reference.startswith("#/"):
        return reference
    return "#/" + "/".join(pointer(_name(step)) for step in reference[2:].split("/"))


def _name(step: str) -> str:
    from urllib.parse import unquote

    return unquote(step).replace("~1", "/").replace("~0", "~")


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def resolved(root: dict[str, Any], reference: str) -> Any:
    """The schema that a local reference names; None if there is none."""
    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = _name(step)
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found
