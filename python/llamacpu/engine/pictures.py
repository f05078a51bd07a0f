"""Pictures as the engine takes them: rows of embeddings between tokens, states for cross-attention, and their encoder.

The contract with the layers above. A picture is encoded once (`PictureEncoder.encode`), and what comes out is put into
the sequence of a session in one of two forms, which depends on the model (`PictureConfig.cross`):

- `Embeddings`: every row takes the place of a token's embedding and one position (Llama 4, Gemma 3, LLaVA ...).
- `CrossStates`: the picture takes the one position of its placeholder token, and some layers of the model attend to the
  states (Llama 3.2 Vision).

`MixedTokens` is a sequence of ids that carries both. It behaves like a list of ids: placeholders of pictures are ids
of `FIRST_PICTURE_ID` and above, derived from the digest of the picture, so that comparing ids compares pictures. The
same ids appear in `Session.tokens`, and in saved sessions. Slices keep their pictures. `Model.step` and
`Session.forward` take a `MixedTokens` wherever they take ids, and a list of parts (lists of ids, `Embeddings`,
`CrossStates`), too. A session keeps the embeddings that it may need again, and the keys and values of cross-attention
once, shared with its forks, until it is truncated to before the picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, overload

from llamacpu.vision.config import PictureConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu import _native
    from llamacpu.engine.interfaces import CancelToken

__all__ = [
    "FIRST_PICTURE_ID",
    "CrossStates",
    "Embeddings",
    "EncodeProgress",
    "MixedTokens",
    "PictureConfig",
    "PictureEmbedding",
    "PictureEncoderLike",
    "Piece",
    "picture_ids",
]

FIRST_PICTURE_ID = 1 << 31
"""The lowest id that stands for a row of a picture; ids of tokens are below it."""
_IDS_IN_DIGEST = 8

EncodeProgress: TypeAlias = Callable[[int, int], None]
"""(layers that are done, all layers), called before the first layer and after each"""


def picture_ids(digest: bytes, first: int, end: int) -> list[int]:
    """The ids of rows `first` to `end` of the picture with this digest: 31 bits each of SHA-256."""
    found: list[int] = []
    for block in range(first // _IDS_IN_DIGEST, -(-end // _IDS_IN_DIGEST)):
        mixed = hashlib.sha256(digest + block.to_bytes(8, "little")).digest()
        found += [int.from_bytes(mixed[4 * at : 4 * at + 4], "little") | FIRST_PICTURE_ID for at in range(8)]
    skipped = first // _IDS_IN_DIGEST * _IDS_IN_DIGEST
    return found[first - skipped : end - skipped]


def _table(name: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    import numpy

    found = numpy.ascontiguousarray(rows, dtype=numpy.float32)
    if found.ndim != 2 or 0 in found.shape:
        raise ValueError(f"the {name} have the shape {numpy.shape(rows)}; expected rows x width, and at least one row")
    return found


class Embeddings:
    """Rows that take the place of token embeddings, one position each.

    rows           float32[rows, width], width = embedding_length * (1 + picture_layers) of `Model.config`: embeddings,
                   and what is added behind the first layers; must not be changed afterwards
    digest         tells the picture and everything that its rows depend on (encoder, size, tiles) from all others
    bidirectional  whether the rows see each other in both directions (`PictureConfig.bidirectional`); they then belong
                   into one step, as a whole
    first          number of the first row, if these are some of the rows of the digest's picture
    grid           (height, width) of the picture in rows, which models need that tell its rows and columns apart
                   (`config.rope_sections`: Qwen2-VL, Qwen3-VL)
    """

    def __init__(
        self,
        rows: NDArray[np.float32],
        digest: bytes,
        bidirectional: bool = False,
        first: int = 0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        self.rows: NDArray[np.float32] = _table("embeddings", rows)
        self.digest: bytes = digest
        self.bidirectional: bool = bidirectional
        self.first: int = first
        self.grid: tuple[int, int] | None = grid
        self._whole = True
        self.ids: list[int] = picture_ids(digest, first, first + len(self.rows))
        """the ids that stand for the rows"""

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, start: int, end: int) -> Embeddings:
        """Rows `start` to `end`, with the ids that they have in the whole."""
        part = Embeddings(self.rows[start:end], self.digest, self.bidirectional, self.first + start, self.grid)
        part._whole = self._whole and not self.bidirectional
        return part


class CrossStates:
    """What the cross-attention layers of a model attend to, from the position of the picture's placeholder on.

    states  float32[states, width], width = `Model.config.embedding_length`
    digest  as for `Embeddings`
    token   id of the placeholder (`<|image|>`), whose embedding enters the first layer

    A token sees the states of the last picture before it; pictures whose placeholders are next to each other are seen
    together by what follows. Tokens before the first picture pass the cross-attention layers unchanged.
    """

    def __init__(self, states: NDArray[np.float32], digest: bytes, token: int) -> None:
        self.states: NDArray[np.float32] = _table("states", states)
        self.digest: bytes = digest
        self.token: int = token
        self.ids: list[int] = picture_ids(digest, 0, 1)

    def __len__(self) -> int:
        return 1


Piece: TypeAlias = "Embeddings | CrossStates"
"""What stands at some positions of a sequence instead of tokens."""


class MixedTokens(Sequence[int]):
    """A sequence of ids, some of which stand for rows of pictures that it carries.

    parts  in order: ids, sequences of ids, `Embeddings`, `CrossStates`, and other `MixedTokens`
    """

    def __init__(self, parts: Iterable[int | Sequence[int] | Piece] = ()) -> None:
        self._ids: list[int] = []
        self._pieces: list[tuple[int, Piece]] = []
        for part in parts:
            if isinstance(part, Embeddings | CrossStates):
                self._pieces.append((len(self._ids), part))
                self._ids += part.ids
            elif isinstance(part, MixedTokens):
                self._pieces += [(len(self._ids) + start, piece) for start, piece in part._pieces]
                self._ids += part._ids
            elif hasattr(part, "__index__"):
                self._ids.append(part.__index__())
            else:
                self._ids += part

    @property
    def ids(self) -> list[int]:
        """A copy of the ids alone."""
        return list(self._ids)

    @property
    def pieces(self) -> list[tuple[int, Piece]]:
        """The pictures: (index of the first row, rows or states)."""
        return list(self._pieces)

    def native_pictures(self) -> list[_native._Picture]:
        """The pictures in the form of the native step.

        Raises ValueError for a part of a picture whose rows see each other.
        """
        found: list[_native._Picture] = []
        for start, piece in self._pieces:
            if isinstance(piece, CrossStates):
                found.append((start, piece.states, False, piece.token, None))
                continue
            if not piece._whole:
                raise ValueError(
                    f"{len(piece)} rows are a part of a picture whose rows see each other; expected all of its rows in "
                    "one step"
                )
            grid = None if piece.grid is None else (piece.first, *piece.grid)
            found.append((start, piece.rows, piece.bidirectional, None, grid))
        return found

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> MixedTokens: ...
    def __getitem__(self, index: int | slice) -> int | MixedTokens:
        if not isinstance(index, slice):
            return self._ids[index]
        start, end, step = index.indices(len(self._ids))
        if step != 1:
            raise ValueError(f"a slice of tokens and pictures with step {step}; expected consecutive ones")
        cut = MixedTokens()
        cut._ids = self._ids[start:end]
        for first, piece in self._pieces:
            low, high = max(first, start), min(first + len(piece), end)
            if low < high:
                kept = piece if high - low == len(piece) else _part(piece, low - first, high - first)
                cut._pieces.append((low - start, kept))
        return cut

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids)

    def __add__(self, other: Sequence[int]) -> MixedTokens:
        return MixedTokens([self, other])

    def __radd__(self, other: Sequence[int]) -> MixedTokens:
        return MixedTokens([other, self])

    def __eq__(self, other: object) -> bool:
        if isinstance(other, MixedTokens):
            return self._ids == other._ids
        return self._ids == other if isinstance(other, list) else NotImplemented

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # equal to a list, which has none either

    def __repr__(self) -> str:
        return f"<MixedTokens: {len(self._ids)}, {len(self._pieces)} pictures>"


def _part(piece: Piece, start: int, end: int) -> Piece:
    return piece.part(start, end) if isinstance(piece, Embeddings) else piece


@dataclass(frozen=True, kw_only=True)
class PictureEmbedding:
    """What an encoder makes of a picture."""

    rows: NDArray[np.float32]
    """float32[tiles x rows of a tile, width], tile after tile, each row by row; for `CrossStates` if `cross`"""
    tiles: int
    """number of tiles"""
    cross: bool
    """whether the rows are states for cross-attention"""


class PictureEncoderLike(Protocol):
    """A vision encoder: documented in `PictureEncoder`."""

    @property
    def kind(self) -> str: ...
    @property
    def config(self) -> PictureConfig: ...
    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that tell encoders apart: a part of the digest of a picture."""

    def encode(
        self,
        pixels: NDArray[np.float32],
        *,
        grid: tuple[int, int] | None = None,
        aspect_ratio_id: int | None = None,
        cancel: CancelToken | None = None,
        on_progress: EncodeProgress | None = None,
    ) -> PictureEmbedding:
        """Encode the tiles of one picture.

        pixels           float32[tiles, height, width, 3], normalized as `llamacpu.pictures.PictureSettings` says
        grid             (rows, columns) of the tiles, for encoders that arrange them
        aspect_ratio_id  number of the arrangement of the tiles (Llama 3.2 Vision: 1 to 8 for 1x1 1x2 1x3 1x4 2x1 2x2
                         3x1 4x1, height x width); `pixels` then has that many tiles, without those added as padding

        Raises ValueError for pixels of another shape or values that are not finite, `Cancelled`, MemoryError.
        """

    def close(self) -> None: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *error: Any) -> None: ...
