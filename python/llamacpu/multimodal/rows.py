"""Embeddings and states of pictures that are computed when a step needs them.

A prompt is built, counted and compared with what a session or a cache holds before anything is encoded: the ids of a
picture follow from its digest alone. A picture that a session has seen is therefore never encoded again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

from llamacpu.engine.pictures import CrossStates, Embeddings, MixedTokens, picture_ids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.engine.pictures import EncodeProgress

__all__ = ["DelayedEmbeddings", "DelayedStates", "PictureProgress", "RowSource", "compute"]

PictureProgress: TypeAlias = Callable[[float, int], None]
"""(pictures that are encoded, with the fraction of the one in work; pictures to encode): called after every layer of
the encoder, and when a picture is done, with a whole number."""


class RowSource(Protocol):
    """A picture that can be encoded."""

    @property
    def digest(self) -> bytes: ...
    def rows(self, cancel: CancelToken | None = None, on_progress: EncodeProgress | None = None) -> NDArray[np.float32]:
        """All rows of the picture, float32[rows, width]: from the cache, or encoded now."""


class DelayedEmbeddings(Embeddings):
    """Rows `first` to `first + count` of a picture, as `Embeddings`."""

    def __init__(
        self,
        source: RowSource,
        first: int,
        count: int,
        bidirectional: bool,
        grid: tuple[int, int] | None = None,
        whole: bool = True,
    ) -> None:
        self.source: RowSource = source
        self.digest: bytes = source.digest
        self.bidirectional: bool = bidirectional
        self.first: int = first
        self.count: int = count
        self.grid: tuple[int, int] | None = grid
        self._whole = whole
        self.ids: list[int] = picture_ids(self.digest, first, first + count)

    @property
    def rows(self) -> NDArray[np.float32]:  # type: ignore[override]
        """float32[rows, width]; encodes the picture if it is not cached."""
        return self.source.rows()[self.first : self.first + self.count]

    def __len__(self) -> int:
        return self.count

    def part(self, start: int, end: int) -> DelayedEmbeddings:
        """Rows `start` to `end`, with the ids that they have in the whole."""
        whole = self._whole and not self.bidirectional
        return DelayedEmbeddings(self.source, self.first + start, end - start, self.bidirectional, self.grid, whole)


class DelayedStates(CrossStates):
    """The states of a picture, as `CrossStates`."""

    def __init__(self, source: RowSource, token: int) -> None:
        self.source: RowSource = source
        self.digest: bytes = source.digest
        self.token: int = token
        self.ids: list[int] = picture_ids(self.digest, 0, 1)

    @property
    def states(self) -> NDArray[np.float32]:  # type: ignore[override]
        """float32[states, width]; encodes the picture if it is not cached."""
        return self.source.rows()


def compute(tokens: object, cancel: CancelToken | None = None, on_picture: PictureProgress | None = None) -> None:
    """Encode the pictures in a `MixedTokens` now, so that the step with them need not; anything else is left alone.

    Raises `Cancelled`, PictureError for a damaged picture, MemoryError.
    """
    if not isinstance(tokens, MixedTokens):
        return
    delayed = (piece for _, piece in tokens.pieces if isinstance(piece, DelayedEmbeddings | DelayedStates))
    sources = list({piece.digest: piece.source for piece in delayed}.values())
    for number, source in enumerate(sources):

        def report(done: int, every: int, number: int = number) -> None:
            if on_picture is not None and done < every:
                on_picture(number + done / every, len(sources))

        source.rows(cancel, report)
        if on_picture is not None:
            on_picture(number + 1, len(sources))
