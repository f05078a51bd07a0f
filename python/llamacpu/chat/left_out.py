"""Removes texts that do not belong to an answer, such as control tokens, while it arrives in pieces."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from llamacpu.chat.marks import unfinished

__all__ = ["LeftOut", "any_of"]


def any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """A pattern that matches any of the texts, the longest first; without texts it matches nothing."""
    return _pattern(tuple(texts))


@lru_cache(maxsize=64)
def _pattern(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or r"(?!)")


class LeftOut:
    """Removes the given texts from text that arrives in pieces."""

    def __init__(self, texts: Collection[str]) -> None:
        self._texts, self._pattern, self._held = tuple(texts), any_of(texts), ""

    def without(self, text: str, final: bool) -> str:
        """The part of the text so far that is certain to stay; an end that may become one of the texts is held back."""
        held = self._held + text
        sure = len(held) if final else len(held) - unfinished(held, self._texts)
        position, kept = 0, ""
        for found in self._pattern.finditer(held):
            if found.start() >= sure:
                break
            kept += held[position : found.start()]
            position = found.end()
        sure = max(sure, position)
        self._held = held[sure:]
        return kept + held[position:sure]
