"""The states of a `Llama`, as llama-cpp-python has them."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from llamacpu.engine import saved_sessions
from llamacpu.errors import ContextOverflow, SessionError
from llamacpu.generation.context_window import shared_length

if TYPE_CHECKING:
    import threading

    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import KVType
    from llamacpu.engine.session import Session
    from llamacpu.generation import GenerationResult
    from llamacpu.llama.caches import BaseLlamaCache
    from llamacpu.llama.logits import KeptLogits
    from llamacpu.model import Model

__all__ = ["LlamaState"]

log = logging.getLogger("llamacpu")


class LlamaState:
    """A conversation at one moment: its tokens, their keys and values, the logits that were kept, and the seed.

    input_ids         the tokens, intc[n_tokens]
    scores            the logits, float32[rows, vocabulary]
    n_tokens          number of tokens
    llama_state       tokens, keys and values as bytes (see `llamacpu.engine.saved_sessions`); made when asked for
    llama_state_size  bytes that the state holds on to
    seed              of the random choices, None for none
    session           the conversation itself, if the state comes from this process; None after pickling

    Keys and values are shared with the `Llama` until one of the two goes on. A pickled state has them in it.
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
        session: Session | None = None,
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
        """The saved session; empty where there are tokens alone."""
        if not self._bytes and self.session is not None:
            file = io.BytesIO()
            saved_sessions.write(self.session, file)
            return file.getvalue()
        return self._bytes

    @property
    def llama_state_size(self) -> int:
        """Bytes that the state holds on to."""
        if self._size is None:
            held = self.session.nbytes if self.session is not None else len(self._bytes)
            self._size = held + self.input_ids.nbytes + self.scores.nbytes
        return self._size

    def session_for(self, model: Model, context: int) -> Session | None:
        """A session of the model that goes on from here, or None for a state of tokens alone.

        SessionError if the state is one of another model, ContextOverflow if it does not fit.
        """
        if self.session is not None and self.session.model is model and self.session.context == context:
            return self.session.fork()
        saved = self.llama_state
        return cast("Session", saved_sessions.read(model, io.BytesIO(saved), context, "the state")) if saved else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "session": None, "_bytes": self.llama_state}


class StateMethods:
    """What `Llama` inherits: its states, and who uses its session."""

    if TYPE_CHECKING:
        cache: BaseLlamaCache | None
        last_result: GenerationResult | None
        _kept: KeptLogits
        _kv_type: KVType
        _leased: Session | None
        _lock: threading.Lock
        _seed: int | None
        _session: Session

        @property
        def model(self) -> Model: ...
        @property
        def session(self) -> Session: ...
        @property
        def input_ids(self) -> npt.NDArray[np.intc]: ...
        @property
        def scores(self) -> npt.NDArray[np.single]: ...
        def n_ctx(self) -> int: ...
        def reset(self) -> None: ...

    def save_state(self) -> LlamaState:
        """The conversation as it is now; it costs next to nothing."""
        tokens = self.input_ids
        return LlamaState(tokens, self.scores.copy(), len(tokens), seed=self._seed, session=self.session.fork())

    def load_state(self, state: LlamaState) -> None:
        """Go back to a saved conversation. SessionError for one with another model."""
        session = state.session_for(self.model, self.n_ctx())
        if session is not None:
            self._session = session
        else:
            self.reset()
            if state.n_tokens:
                self.session.forward(state.input_ids[: state.n_tokens].tolist(), logits="none")
        self._kept.replace(state.scores.copy())
        self._seed = state.seed

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Keep the states of completions in `cache`, and begin each from the best of them.

        `llamacpu.llama.caches` has one in memory and one on disk.
        """
        self.cache = cache

    def _lease(self, prompt: Sequence[int]) -> Session:
        """The session for a completion: the own one, or another while that is in use."""
        with self._lock:
            if self._leased is not None:
                return self.model.session(context=self.n_ctx(), kv_type=self._kv_type)
            self._leased = self.session
        try:
            self._restore(prompt)
        except BaseException:
            self._leased = None
            raise
        self._kept.truncate(0)
        self._leased = self.session
        return self._leased

    def _restore(self, prompt: Sequence[int]) -> None:
        """Load the state of the cache that shares the most with a prompt, if it is more than the session does."""
        if self.cache is None:
            return
        try:
            state = self.cache.best_for(self.model, prompt, shared_length(self.session.tokens, prompt))
            if state is not None:
                self.load_state(state)
        except (ContextOverflow, SessionError) as error:
            log.warning("a state of the cache cannot be used: %s", error)

    def _give_back(self, session: Session, result: GenerationResult | None) -> None:
        self.last_result = result
        if session is not self._leased:
            return
        try:
            # While it was in use, somebody may have gone on with another state.
            if self.cache is not None and session.tokens and session is self._session:
                self.cache[session.tokens] = self.save_state()
        except OSError as error:
            log.warning("the state could not be kept in the cache: %s", error)
        finally:
            self._leased = None
