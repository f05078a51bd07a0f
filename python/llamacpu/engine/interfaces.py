"""Models and sessions as the layers above see them: types, and the Protocols that those layers are written against.

Generation, drafting, tasks and saved sessions work with anything that behaves like these: programs wrap models and
sessions, and tests substitute their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, overload

from llamacpu import _native
from llamacpu.store.manifests import Preset

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.families.config import Config
    from llamacpu.gguf.metadata import Metadata
    from llamacpu.text.tokenizer import Tokenizer

__all__ = [
    "PAGE_TOKENS",
    "CancelToken",
    "KVType",
    "LentKeys",
    "Load",
    "LoadProgress",
    "Logits",
    "ModelLike",
    "SavedPicture",
    "SessionLike",
    "StepOutput",
    "TokenIds",
    "preset_of",
]

CancelToken: TypeAlias = _native.CancelToken
LentKeys: TypeAlias = _native.Session
"""Keys and values of a session, for a drafter to see."""
PAGE_TOKENS: int = _native.PAGE_TOKENS
"""Tokens in a page of keys and values."""
Logits = Literal["last", "all", "none"]
"""Which rows of logits a step returns: of the last token, of every token, or none."""
Load = Literal["map", "copy"]
"""How the bytes of a model file get into memory: mapped, so that they are read as needed, or read all at once."""
KVType = Literal["f32", "f16", "q8_0"]
"""How keys and values are stored: exactly, in half the memory, or in about a quarter."""
TokenIds = Sequence[int]
SavedPicture: TypeAlias = tuple[int, int, bool, int | None, tuple[int, int, int] | None, int]
"""What a saved session knows of a picture: index of its first token, number of tokens, whether its rows see each other,
the id of its placeholder if cross-attention sees it, number of its first row and height and width in rows if they are
known, number of states of cross-attention."""
LoadProgress = Callable[[int, int], None]
"""(bytes of weights that are ready, bytes of all weights)"""


class StepOutput(NamedTuple):
    """What `Model.step_hidden` returns for one item."""

    logits: NDArray[np.float32] | None
    """as `Model.step` returns them"""
    hidden: NDArray[np.float32]
    """float32[layers, tokens, width], in the order of the layers that were asked for"""


class ModelLike(Protocol):
    """A model: documented in `llamacpu.Model`, except for the two methods for saved sessions."""

    @property
    def path(self) -> os.PathLike[str]: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def config(self) -> Config: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def context_length(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    def prepare(self, on_load: LoadProgress | None = None, cancel: CancelToken | None = None) -> None: ...
    def session(self, context: int | None = None, kv_type: KVType = "f16") -> SessionLike: ...
    @overload
    def step(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        logits: Literal["last", "all"] = "last",
        cancel: CancelToken | None = None,
    ) -> list[NDArray[np.float32]]: ...
    @overload
    def step(
        self, items: Iterable[tuple[SessionLike, TokenIds]], logits: Literal["none"], cancel: CancelToken | None = None
    ) -> list[None]: ...
    @overload
    def step(
        self, items: Iterable[tuple[SessionLike, TokenIds]], logits: Logits, cancel: CancelToken | None = None
    ) -> list[NDArray[np.float32]] | list[None]: ...
    def step_hidden(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        layers: Sequence[int] = (-1,),
        logits: Logits = "none",
        cancel: CancelToken | None = None,
    ) -> list[StepOutput]: ...
    def classify(self, states: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def page_bytes(self, kv_type: KVType) -> int:
        """Bytes of a page of keys and values, all layers together."""

    def cross_page_bytes(self, kv_type: KVType) -> int:
        """Bytes of a page of what cross-attention sees; 0 for models without."""

    def restore(
        self,
        context: int,
        kv_type: KVType,
        tokens: TokenIds,
        pages: Iterable[bytes],
        *,
        pictures: Sequence[SavedPicture] = (),
    ) -> SessionLike:
        """A session that holds these tokens, with their keys and values in pages as `SessionLike.page` gives them, and
        pictures as `SessionLike.saved_pictures` does.

        Raises ValueError for tokens and pages that do not match.
        """


def preset_of(model: object) -> Preset:
    """The settings that came with a model opened by name; empty for a file, and for an object that wraps a model."""
    found = getattr(model, "preset", None)
    return found if isinstance(found, Preset) else Preset()


class SessionLike(Protocol):
    """A session: documented in `llamacpu.Session`, except for `page`."""

    @property
    def model(self) -> ModelLike: ...
    @property
    def context(self) -> int: ...
    @property
    def position(self) -> int: ...
    @property
    def tokens(self) -> list[int]: ...
    @property
    def kv_type(self) -> KVType: ...
    @property
    def nbytes(self) -> int: ...
    @overload
    def forward(
        self, ids: TokenIds, logits: Literal["last", "all"] = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def forward(self, ids: TokenIds, logits: Literal["none"], cancel: CancelToken | None = None) -> None: ...
    def fork(self) -> SessionLike: ...
    def lend(self) -> LentKeys:
        """The keys and values so far, for a drafter to see; let go of them before the next step, which would copy."""

    def truncate(self, tokens: int) -> None: ...
    def set_first_part(self, tokens: int) -> None: ...
    def page(self, index: int) -> bytes:
        """The keys and values of a page of tokens, in the layout with the number `_native.PAGE_LAYOUT`; then the states
        of recurrent layers, then pages of what cross-attention sees."""

    def saved_pictures(self) -> list[SavedPicture]:
        """What is known of the pictures among the tokens."""
