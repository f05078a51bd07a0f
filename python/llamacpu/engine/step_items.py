"""The items of a step as the native model takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamacpu.engine.interfaces import CancelToken, SessionLike, TokenIds
from llamacpu.engine.pictures import CrossStates, Embeddings, MixedTokens
from llamacpu.engine.session import Session

if TYPE_CHECKING:
    from llamacpu import _native

__all__ = ["item_of"]


def item_of(session: SessionLike, ids: TokenIds, cancel: CancelToken | None) -> _native._Item:
    """The native session, the ids that continue it, and the pictures that some of them stand for."""
    if not isinstance(session, Session):
        raise TypeError(f"an item of the step is a {type(session).__name__}; expected a session that the model made")
    tokens = _joined(ids)
    native = session.before_step(tokens, cancel) if session.adapters else session._native
    if not isinstance(tokens, MixedTokens):
        return native, tokens
    return native, tokens.ids, tokens.native_pictures()


def _joined(ids: Any) -> TokenIds:
    """The ids, or the parts that a list of parts has."""
    if isinstance(ids, list | tuple) and any(isinstance(part, MixedTokens | Embeddings | CrossStates) for part in ids):
        return MixedTokens(ids)
    found: TokenIds = ids
    return found
