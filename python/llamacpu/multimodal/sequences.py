"""Sequences of ids with pictures: where they may be cut, and pictures for ids that have lost theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llamacpu.engine.pictures import FIRST_PICTURE_ID, CrossStates, Embeddings, MixedTokens, Piece

__all__ = ["followed_by", "has_pictures", "restored", "text_ids", "whole_from", "whole_until", "without_parts"]


def has_pictures(tokens: Sequence[int]) -> bool:
    """Whether some of the ids stand for pictures."""
    return isinstance(tokens, MixedTokens) and bool(tokens.pieces)


def followed_by(tokens: Sequence[int], more: Sequence[int]) -> Sequence[int]:
    """The ids with others after them."""
    mixed = isinstance(tokens, MixedTokens) or isinstance(more, MixedTokens)
    return MixedTokens([tokens, more]) if mixed else [*tokens, *more]


def text_ids(tokens: Iterable[int]) -> list[int]:
    """The ids that are tokens of the vocabulary."""
    return [token for token in tokens if token < FIRST_PICTURE_ID]


def whole_until(tokens: Sequence[int], end: int) -> int:
    """The first place from `end` on where a step may end: rows that see each other belong into one step."""
    inside = _around(tokens, end)
    return end if inside is None else inside[1]


def whole_from(tokens: Sequence[int], start: int) -> int:
    """The last place up to `start` where a step may begin."""
    inside = _around(tokens, start)
    return start if inside is None else inside[0]


def _around(tokens: Sequence[int], place: int) -> tuple[int, int] | None:
    for first, piece in tokens.pieces if isinstance(tokens, MixedTokens) else ():
        if isinstance(piece, Embeddings) and piece.bidirectional and first < place < first + len(piece):
            return first, first + len(piece)
    return None


def restored(ids: Sequence[int], pieces: Iterable[Piece]) -> Sequence[int]:
    """The ids with the pictures that some of them stand for, taken from these.

    Where only a part of a picture's rows is left, that part; ids of pictures that are not among these are left out, and
    so are parts of pictures whose rows see each other.
    """
    if not any(one >= FIRST_PICTURE_ID for one in ids):
        return list(ids)
    known: dict[int, tuple[Piece, int]] = {}
    piece: Piece | None
    for each in pieces:
        for row, one in enumerate(each.ids):
            known.setdefault(one, (each, row))
    parts: list[int | Piece] = []
    place = 0
    while place < len(ids):
        one = ids[place]
        if one < FIRST_PICTURE_ID:
            parts.append(one)
            place += 1
            continue
        found = known.get(one)
        piece, row = found if found is not None else (None, 0)
        count = 1
        while piece is not None and row + count < len(piece) and _at(ids, place + count) == piece.ids[row + count]:
            count += 1
        place += count
        if isinstance(piece, CrossStates) or (piece is not None and count == len(piece)):
            parts.append(piece)
        elif piece is not None and not piece.bidirectional:
            parts.append(piece.part(row, row + count))
    return MixedTokens(parts)


def _at(ids: Sequence[int], place: int) -> int | None:
    return ids[place] if place < len(ids) else None


def without_parts(tokens: MixedTokens, keep: int, start: int) -> MixedTokens:
    """The first `keep` ids and those from `start` on, without pictures of which the cuts would leave a part."""
    for first, piece in tokens.pieces:
        if first < keep < first + len(piece):
            keep = first
        if first < start < first + len(piece):
            start = first + len(piece)
    return tokens[:keep] + tokens[start:]
