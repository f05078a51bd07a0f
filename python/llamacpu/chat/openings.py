"""The openings of tool calls without a tag: brackets, fenced blocks, recipients, and a name above an object."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

# Text that begins like a call but has not become one within this many characters is plain text.
_DECIDED = 100
_KEYS = tuple(
    f'"{key}"'
    for key in ("name", "type", "function", "parameters", "arguments", "id", "tool_name", "tool_call_id", "tool_calls")
)
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\s()\[\]{},\"'=:]*")
_FENCE = re.compile(r"(?:```|~~~)(json|JSON|tool_calls?|tool_code|)\s*(?=[^\sA-Za-z_])")
_FENCE_BEGUN = re.compile(r"`{1,2}|~{1,2}|(?:```|~~~)[A-Za-z_]{0,10}\s{0,100}")
_CODE_LINE = r"```tool_code[ \t]{0,20}\r?"
_CODE_NAME = r"\n\s{0,100}[^\s()\[\]{},\"'=:*;`]"
_CODE = re.compile(rf"{_CODE_LINE}{_CODE_NAME}{{1,64}}\(")
_CODE_BEGUN = re.compile(rf"`{{1,2}}|```[a-z_]{{0,9}}|{_CODE_LINE}(\n\s{{0,100}}|{_CODE_NAME}{{1,64}})?")
_RECIPIENT = re.compile(r">>>([^\s>]{1,64})\n")
_RECIPIENT_BEGUN = re.compile(r">{1,3}|>>>[^\s>]{1,64}")


def begins_call(text: str, start: int) -> bool | None:
    """Whether the bracket at `start` may begin a call without a tag; None if that is still undecided."""
    begun = text[start : start + _DECIDED]
    open_ended = len(text) - start < _DECIDED
    place = _SPACE.match(begun, 1).end()  # type: ignore[union-attr]
    if begun[0] == "[":
        if place < len(begun) and begun[place] == "{":
            place = _SPACE.match(begun, place + 1).end()  # type: ignore[union-attr]
        else:
            end = _NAME.match(begun, place).end()  # type: ignore[union-attr]
            if end == len(begun):
                return None if open_ended else False
            return end > place and begun[end] == "("
    if place == len(begun):
        return None if open_ended else False
    if begun.startswith(_KEYS, place):
        return True
    return None if open_ended and any(key.startswith(begun[place:]) for key in _KEYS) else False


def begins_fence(text: str, start: int) -> int | bool | None:
    """The position of the bracket that may begin a call in the fenced block at `start`.

    False if there is none, None if that is still undecided.
    """
    found = _FENCE.match(text, start)
    if found is None:
        undecided = len(text) - start < _DECIDED and _FENCE_BEGUN.fullmatch(text, start)
        return None if undecided else False
    if text[found.end()] not in "{[":
        return False
    begins = begins_call(text, found.end())
    return found.end() if begins else begins


def begins_code(text: str, start: int) -> bool | None:
    """Whether a fenced block of calls in Python begins at `start` (Gemma); None if that is still undecided."""
    if _CODE.match(text, start):
        return True
    return None if _CODE_BEGUN.fullmatch(text, start) else False


def recipient_at(text: str, start: int, names: Collection[str]) -> str | bool | None:
    """The function addressed by ``>>>f`` and a line break at `start` ("all" means the reader).

    False if there is none, None if that is still undecided.
    """
    found = _RECIPIENT.match(text, start)
    if found is not None:
        return found[1] if found[1] == "all" or found[1] in names else False
    return None if _RECIPIENT_BEGUN.fullmatch(text, start) else False


def is_undecided(text: str, place: int) -> bool:
    """Whether the text ends before showing what kind of list begins at `place`."""
    return text[place] == "[" and _SPACE.match(text, place + 1).end() == len(text)  # type: ignore[union-attr]


def begins_named(text: str, names: Collection[str], final: bool) -> str | bool | None:
    """The function named on the first line with an object below it (GLM 4); False if there is none, None to wait."""
    if not names:
        return False
    name, line_end, below = text.partition("\n")
    name, below = name.strip(), below.lstrip()
    if line_end and name in names:
        return (name if below.startswith("{") else False) if below or final else None
    return None if not final and not line_end and any(known.startswith(name) for known in names) else False


def begins_line(text: str, names: Collection[str]) -> str | bool | None:
    """Like `begins_named`, but only for openings that match `Opening.of_line`."""
    openings = [(name, opening) for name in names if (opening := Opening.of_line(name)) is not None]
    for name, opening in openings:
        if re.match(opening.opens, text):
            return name
    return None if any(re.fullmatch(opening.begun, text) for _, opening in openings) else False


# White space in the openings below.
_BLANK = r"[ \t\r\n]{0,20}"
_FENCE_LINE = r"```(?:json|tool_calls?|tool_code)?[ \t]{0,10}\r?"
FENCE_OPENING = rf"{_FENCE_LINE}\n{_BLANK}"
FENCED_NAME = rf'\{{{_BLANK}"name"{_BLANK}:{_BLANK}'
FENCED_LIST = rf"\[{_BLANK}"
LINE_END = r"[ \t]{0,10}\r?\n" + _BLANK
CODE_OPENING = r"```tool_code[ \t]{0,10}\r?\n" + _BLANK
PYTHON_NAME = re.compile(r"(?!.*\.call$)[^\s()\[\]{},\"'=:*;`]+")
_LINE = re.compile(r"[^\s\[\]{}\"'<>`]+")
_ADDRESS = re.compile(r"[^\s>]{1,64}")


class Opening:
    """The unambiguous beginning of calls of certain functions.

    first   its first character
    opens   regular expression that matches the opening
    begun   regular expression whose full match is text that may become the opening
    leads   whether it occurs only at the beginning of an answer or after another call

    Both regular expressions are written so that they work on text and on bytes.
    """

    def __init__(self, first: str, opens: str, begun: str, leads: bool = False) -> None:
        self.first: str = first
        self.opens: str = opens
        self.begun: str = begun
        self.leads: bool = leads

    @classmethod
    def of_fences(cls, names: Iterable[str]) -> Opening | None:
        """A fenced block of JSON that begins with the name of a function."""
        written = [json.dumps(name, ensure_ascii=False) for name in names]
        if not written:
            return None
        head = rf"{FENCE_OPENING}(?:{FENCED_LIST})?"
        parts = ["\\{", _BLANK, *'"name"', _BLANK, ":", _BLANK]
        named = "|".join(_nested([*parts, *map(re.escape, name)]) for name in written)
        fence = rf"`{{1,2}}|```[a-z_]{{0,10}}|{_FENCE_LINE}"
        return cls("`", f"{head}{FENCED_NAME}(?:{'|'.join(map(re.escape, written))})", f"(?:{fence}|{head}(?:{named}))")

    @classmethod
    def of_code(cls, names: Iterable[str]) -> Opening | None:
        """A fenced block that begins with a call in Python notation."""
        written = [f"{name}(" for name in names if PYTHON_NAME.fullmatch(name)]
        if not written:
            return None
        named = "|".join(_nested(map(re.escape, name)) for name in written)
        begun = rf"`{{1,2}}|{_nested('```tool_code')}|```tool_code[ \t]{{0,10}}\r?|{CODE_OPENING}(?:{named})"
        return cls("`", f"{CODE_OPENING}(?:{'|'.join(map(re.escape, written))})", f"(?:{begun})")

    @classmethod
    def of_line(cls, name: str) -> Opening | None:
        """The name of a function on a line of its own, above an object."""
        if not _LINE.fullmatch(name):
            return None
        written = re.escape(name)
        begun = rf"(?:{_nested(map(re.escape, name))}|{written}[ \t]{{0,10}}\r?|{written}{LINE_END})"
        return cls(name[0], rf"{written}{LINE_END}\{{", begun, leads=True)

    @classmethod
    def of_recipients(cls, names: Iterable[str]) -> Opening | None:
        """``>>>`` and the name of a function on a line of their own."""
        lines = [f">>>{name}\n" for name in names if _ADDRESS.fullmatch(name)]
        if not lines:
            return None
        return cls(">", "|".join(map(re.escape, lines)), "|".join(_nested(map(re.escape, line)) for line in lines))


def _nested(parts: Iterable[str]) -> str:
    """A regular expression that matches any number of leading parts of a sequence, including none."""
    found = ""
    for part in reversed([*parts]):
        found = f"(?:{part}{found})?"
    return found
