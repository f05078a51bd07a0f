"""Prompts as pieces for the tokenizer: where control tokens are meant, and where they are only text."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

from llamacpu.chat.traced import Traced


class Segment(NamedTuple):
    """A piece of a prompt; `special` says whether the tokenizer parses control tokens in it."""

    text: str
    special: bool


@lru_cache(maxsize=8)
def _pattern(tokens: frozenset[str]) -> re.Pattern[str]:
    # Longest first, as tokenizers match them.
    ordered = sorted((token for token in tokens if token), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, ordered)) or r"(?!)")


def cut(text: str, control_tokens: Collection[str]) -> list[Segment]:
    """Pieces of a traced `text`, which together are the text.

    The text is cut only at the template's own control tokens, where a tokenizer cuts anyway, so without control tokens
    in the data the ids are those of the whole text. A control token is the template's if its first character is: in
    ``'<|' + role + '|>'`` the template means a token.
    """
    plain = "".join((text,))
    if not isinstance(text, Traced):
        return [Segment(plain, True)] if plain else []
    segments: list[Segment] = []
    begin = end = 0  # what lies before `begin` is done; the stretch between two control tokens begins at `end`
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
            # The token's tail may begin a token of the template's own.
            own = text.origin.find(0, start, position)
            position = own if own > 0 else position
        else:
            close(start)
            hostile, end = False, position
    close(len(plain))
    if begin < len(plain):
        segments.append(Segment(plain[begin:], True))
    return segments
