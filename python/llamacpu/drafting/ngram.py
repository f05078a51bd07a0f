"""Proposals from the text itself: what followed an earlier occurrence of its last tokens may follow again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.drafting.draft import MOST_TOKENS, Draft, Drafter

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, SessionLike

# A longer match is no better evidence than one of this length.
_LONGEST_MATCH = 32
# How many earlier places of the same n-gram are compared, newest first.
_PLACES = 16


class NGramIndex:
    """Every place of every n-gram in a growing text; the cost of a lookup does not depend on the text's length."""

    def __init__(self, text: Sequence[int], size: int) -> None:
        """text: ids; what is appended later is indexed by the next lookup. size: tokens of an n-gram."""
        self._text = text
        self._size = size
        # n-gram -> end of its newest place; end of a place -> end of the place before it. Both ends are exclusive.
        self._newest: dict[tuple[int, ...], int] = {}
        self._before: dict[int, int] = {}
        self._end = 0

    def longest_match(self) -> tuple[int, int] | None:
        """(end of the earlier place, length) of the longest match with the end of the text, the newest if several.

        Looks only at the newest places of the last n-gram, and at no more tokens than a long match needs. None if the
        last n-gram has not occurred before.
        """
        self._catch_up()
        text, end = self._text, len(self._text)
        if end <= self._size:
            return None
        place = self._before.get(end)
        best: tuple[int, int] | None = None
        for _ in range(_PLACES):
            if place is None:
                break
            length = self._size
            limit = min(place, _LONGEST_MATCH)
            while length < limit and text[place - length - 1] == text[end - length - 1]:
                length += 1
            if best is None or length > best[1]:
                best = place, length
                if length >= _LONGEST_MATCH:
                    break
            place = self._before.get(place)
        return best

    def _catch_up(self) -> None:
        text, size, newest, before = self._text, self._size, self._newest, self._before
        for end in range(max(self._end + 1, size), len(text) + 1):
            gram = tuple(text[end - size : end])
            known = newest.get(gram)
            if known is not None:
                before[end] = known
            newest[gram] = end
        self._end = len(text)


class NGramDraft(Draft):
    """Proposes what followed the longest earlier match of the text's last tokens (prompt lookup).

    min_match: tokens that must agree. Short matches are often wrong, which the adaptive rule notices: then it proposes
    one token or none. Drafting helps where answers repeat text: quoting, summarizing, editing, code, tables.
    """

    free = True

    def __init__(self, min_match: int = 1, max_tokens: int = MOST_TOKENS, adaptive: bool = True) -> None:
        super().__init__(max_tokens, adaptive)
        if not 1 <= min_match <= _LONGEST_MATCH:
            raise ValueError(f"min_match is {min_match}; expected 1 to {_LONGEST_MATCH}")
        self.min_match = min_match

    def __repr__(self) -> str:
        """The arguments that it was made with."""
        return f"NGramDraft(min_match={self.min_match}, max_tokens={self.max_tokens}, adaptive={self.adaptive})"

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`."""
        return NGramDrafter(text, self.min_match)


class NGramDrafter(Drafter):
    """The proposals for one text."""

    free = True

    def __init__(self, text: list[int], min_match: int) -> None:
        self._text = text
        self._index = NGramIndex(text, min_match)
        # The end of the earlier place that matched, and the length of the match, when the text had `_length` tokens.
        self._place = 0
        self._match = 0
        self._length = 0

    def strength(self) -> int | None:
        """Length of the longest match; None if there is none."""
        self._follow()
        return self._match or None

    def propose(self, count: int) -> Sequence[int]:
        """The tokens after the match; where they reach the end of the text, they repeat."""
        self._follow()
        if not self._match:
            return []
        # `_place` is before the end of the text: there is at least one token.
        tokens = self._text[self._place : self._place + count]
        period = len(tokens)
        while len(tokens) < count:
            tokens.append(tokens[-period])
        return tokens

    def _follow(self) -> None:
        """Move the match on to the end of the text: one that still holds grows, otherwise a new one is looked up."""
        text = self._text
        while self._length < len(text) and self._match and text[self._place] == text[self._length]:
            self._place += 1
            self._match += 1
            self._length += 1
        if self._length < len(text):
            self._length = len(text)
            found = self._index.longest_match()
            self._place, self._match = found or (0, 0)
