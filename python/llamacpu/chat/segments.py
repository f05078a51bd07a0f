"""Prompts as segments for the tokenizer: where control tokens are parsed, and where they are plain text."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from llamacpu.chat.traced import Traced


class Segment(NamedTuple):
    """A segment of a prompt; `special` says whether the tokenizer parses control tokens in it."""

    text: str
    special: bool


@lru_cache(maxsize=8)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    # Longest first, as tokenizers match them.
    ordered = sorted((token for token in tokens if token), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def cut(text: str, control_tokens: Collection[str]) -> list[Segment]:
    """Split a traced `text` into segments whose concatenation is the text.

    The text is split only at the template's own control tokens, where a tokenizer splits anyway, so if the data has no
    control tokens, the ids are those of the whole text. A control token belongs to the template if its first character
    does: in ``'<|' + role + '|>'`` the template means a token.
    """
    plain = "".join((text,))
    if not isinstance(text, Traced):
        return [Segment(plain, True)] if plain else []
    segments: list[Segment] = []
    begin = end = 0  # the text before `begin` is done; the span between two control tokens begins at `end`
    hostile = False
    pattern = _pattern(frozenset(control_tokens))
    position = 0

    def close(stop: int) -> None:
        nonlocal begin
        if hostile:
            if begin < end:
                segments.append(Segment(plain[begin:end], True))
            segments.append(Segment(plain[end:stop], False))
            begin = stop

    while match := pattern.search(plain, position):
        start, position = match.span()
        if text.origin[start]:
            hostile = True
            # The end of this token may begin one of the template's own.
            own = text.origin.find(0, start, position)
            position = own if own > 0 else position
        else:
            close(start)
            hostile, end = False, position
    close(len(plain))
    if begin < len(plain):
        segments.append(Segment(plain[begin:], True))
    return segments
