"""Saved states of a `Llama`, with llama-cpp-python's interface."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from llamacpu.engine import saved_sessions, session_format
from llamacpu.engine.adapter_set import adapters_of, default_fingerprint, fingerprint_of
from llamacpu.errors import GGUFError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import KVType, ModelLike, SessionLike

__all__ = ["LlamaState"]


class LlamaState:
    """A snapshot of a conversation: its tokens, their keys and values, the stored logits, and the seed.

    input_ids         the tokens, intc[n_tokens]
    scores            the logits, float32[rows, vocabulary]
    n_tokens          number of tokens
    llama_state       tokens, keys and values as bytes (see `llamacpu.engine.session_format`), made on demand
    llama_state_size  memory used by the state, in bytes
    seed              seed of the random choices, None for none
    session           the conversation itself, if the state comes from this process; None after pickling

    Keys and values are shared with the `Llama` until one of the two continues. A pickled state contains them.
    """

    def __init__(
        self,
        input_ids: npt.NDArray[np.intc],
        scores: npt.NDArray[np.single],
        n_tokens: int,
        llama_state: bytes = b"",
        llama_state_size: int | None = None,
        seed: int | None = None,
        *,
        session: SessionLike | None = None,
    ) -> None:
        self.input_ids = input_ids
        self.scores = scores
        self.n_tokens = n_tokens
        self.session = session
        self.seed = seed
        self._bytes = llama_state
        self._size = llama_state_size

    @property
    def llama_state(self) -> bytes:
        """The saved session as bytes; empty for a state of tokens alone."""
        if not self._bytes and self.session is not None:
            file = io.BytesIO()
            saved_sessions.write(self.session, file)
            return file.getvalue()
        return self._bytes

    @property
    def llama_state_size(self) -> int:
        """The memory used by the state, in bytes."""
        if self._size is None:
            held = self.session.nbytes if self.session is not None else len(self._bytes)
            self._size = held + self.input_ids.nbytes + self.scores.nbytes
        return self._size

    @property
    def kv_type(self) -> KVType | None:
        """The storage type of its keys and values; None for a state of tokens alone."""
        if self.session is not None:
            return self.session.kv_type
        return session_format.read_header(io.BytesIO(self._bytes), "the state").kv_type if self._bytes else None

    def is_of(self, model: ModelLike) -> bool:
        """Whether the state belongs to this model or another one of the same file; true for a state of tokens alone."""
        if self.session is not None and self.session.model is model:
            return adapters_of(self.session).key == adapters_of(model).key
        if self.session is not None:
            try:
                return fingerprint_of(self.session.model, adapters_of(self.session)) == default_fingerprint(model)
            except GGUFError:  # the model is closed, which makes its states unusable
                return False
        return not self._bytes or session_format.read_header(
            io.BytesIO(self._bytes)
        ).fingerprint.hex() == default_fingerprint(model)

    def session_for(self, model: ModelLike, context: int, kv_type: KVType | None = None) -> SessionLike | None:
        """A session of the model that continues from this state.

        None for a state of tokens alone, and for one whose keys and values are not stored as `kv_type`: the caller then
        computes its tokens again. Raises SessionError for a state of another model, ContextOverflow if it does not fit.
        """
        own = self.session is not None and self.session.model is model and self.is_of(model)
        if self.session is not None and own and self.session.context == context:
            return self.session.fork() if kv_type in (None, self.session.kv_type) else None
        if self.is_of(model) and self.kv_type != (kv_type or self.kv_type):
            return None
        saved = self.llama_state
        return saved_sessions.read(model, io.BytesIO(saved), context, "the state") if saved else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None, "_bytes": self.llama_state}
