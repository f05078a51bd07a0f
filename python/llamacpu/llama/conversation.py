"""The conversation of a `Llama`: its session, the stored logits, the cache of states, and whether it is in use."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import numpy.typing as npt

from llamacpu import log
from llamacpu.engine.interfaces import preset_of
from llamacpu.errors import LlamaCpuError
from llamacpu.generation.context_window import shared_length
from llamacpu.llama.logits import KeptLogits
from llamacpu.llama.state import LlamaState
from llamacpu.locks import ProcessLock
from llamacpu.store.manifests import Preset

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import KVType
    from llamacpu.engine.session import Session
    from llamacpu.generation import GenerationResult
    from llamacpu.llama.caches import BaseLlamaCache
    from llamacpu.llama.sampling import Samplers
    from llamacpu.model import Model

__all__ = ["Conversation", "loader_of"]


class LoadsStates(Protocol):
    """What a conversation belongs to: a `Llama`, whose method a program may have replaced."""

    def load_state(self, state: LlamaState) -> None:
        """Return to a saved conversation."""


def loader_of(owner: LoadsStates) -> Callable[[LlamaState], None]:
    """A function that calls `load_state` of an object if it is still alive, without keeping it alive."""
    reference = weakref.ref(owner)

    def load(state: LlamaState) -> None:
        found = reference()
        if found is not None:
            found.load_state(state)

    return load


class Conversation:
    """A model, the session that is continued from call to call, and the state that belongs to it.

    model        the model; None if only the vocabulary was opened
    context      maximum number of tokens of the conversation; None for the model's training context
    logits_all   whether the logits of all tokens are stored, not only of the last one
    cache        stores the states of completions, or None
    last_result  the result of the last completion
    restore      loads states from the cache instead of `load_state`, or None
    """

    def __init__(
        self,
        model: Model | None,
        samplers: Samplers,
        vocab_size: int,
        *,
        context: int | None = None,
        kv_type: KVType = "f16",
        logits_all: bool = False,
    ) -> None:
        self.logits_all = logits_all
        self.kv_type = kv_type
        self.cache: BaseLlamaCache | None = None
        self.last_result: GenerationResult | None = None
        self.restore: Callable[[LlamaState], None] | None = None
        self.kept: KeptLogits = KeptLogits(vocab_size)
        self._model = model
        self._samplers = samplers
        self._vocab_size = vocab_size
        self._session: Session | None = None
        self._lock = ProcessLock()
        self._leased: Session | None = None
        if model is not None:
            self._session = model.session(context=context, kv_type=kv_type)

    @property
    def model(self) -> Model:
        """The model. Raises LlamaCpuError if there is none, or once it is closed."""
        if self._model is None:
            raise LlamaCpuError("the model is closed, or was opened with vocab_only=True: only the tokenizer is there")
        return self._model

    @property
    def preset(self) -> Preset:
        """The settings that came with the model's name."""
        return preset_of(self._model)

    @property
    def session(self) -> Session:
        """The session. Raises LlamaCpuError if there is no model, or once it is closed."""
        if self._session is None:
            self.model.session()
        assert self._session is not None
        return self._session

    @property
    def vocab_size(self) -> int:
        """The number of logits per token, or without a model the number of the tokenizer's tokens."""
        return self._vocab_size if self._model is None else self._model.vocab_size

    @property
    def closed(self) -> bool:
        """Whether there is no model, or it has been closed."""
        return self._model is None

    def close(self) -> None:
        """Free the memory."""
        if self._model is not None:
            self._model.close()
            self._model = self._session = self._leased = None
            self.kept = KeptLogits(self._vocab_size)

    def n_ctx(self) -> int:
        """Return the maximum number of tokens of prompt and answer together."""
        return self.session.context

    # --- Step by step ---

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens of the conversation."""
        return np.array(self.session.tokens, dtype=np.intc)

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits that `eval` kept, float32[rows, vocabulary]: of all tokens with `logits_all`, else of the last."""
        return self.kept.rows

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens of the conversation."""
        return deque(self.session.tokens, maxlen=self.n_ctx())

    @property
    def eval_logits(self) -> deque[list[float]]:
        """`scores` as lists."""
        return deque(self.scores.tolist(), maxlen=self.n_ctx() if self.logits_all else 1)

    def reset(self) -> None:
        """Discard the conversation."""
        self.truncate(0)

    def truncate(self, count: int) -> None:
        """Discard all but the first `count` tokens."""
        self.session.truncate(count)
        self.kept.truncate(count if self.logits_all else 0)

    def eval(self, tokens: Sequence[int]) -> npt.NDArray[np.single]:
        """Append tokens to the conversation and return the logits of the last one, float32[vocabulary].

        With no tokens nothing happens, and the stored logits of the previous token are returned; empty if there are
        none.
        """
        if len(tokens) > 0 and self.logits_all:
            self.kept.append(self.session.forward(list(tokens), logits="all"))
        elif len(tokens) > 0:
            self.kept.replace(self.session.forward(list(tokens))[np.newaxis])
        return self.scores[-1] if len(self.kept) else np.zeros(0, dtype=np.single)

    # --- States ---

    def save_state(self) -> LlamaState:
        """Return a snapshot of the conversation; it costs next to nothing."""
        tokens = self.input_ids
        seed = self._samplers.seed
        return LlamaState(tokens, self.scores.copy(), len(tokens), seed=seed, session=self.session.fork())

    def load_state(self, state: LlamaState) -> None:
        """Return to a saved conversation. Raises SessionError for one with another model.

        The conversation keeps its storage type of keys and values: those of another type are computed again.
        """
        session = state.session_for(self.model, self.n_ctx(), self.kv_type)
        if session is not None:
            self._session = cast("Session", session)
        else:
            self.reset()
            if state.n_tokens:
                self.session.forward(state.input_ids[: state.n_tokens].tolist(), logits="none")
        self.kept.replace(state.scores.copy())
        self._samplers.seed = state.seed

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Store the states of completions in `cache`, and start each completion from the best match.

        `llamacpu.llama.caches` has a cache in memory and one on disk. None turns caching off.
        """
        self.cache = cache

    # --- Completions ---

    def lease(self, prompt: Sequence[int]) -> Session:
        """The session for a completion: this conversation's, or a new one while that is in use."""
        with self._lock:
            if self._leased is not None:
                return self.model.session(context=self.n_ctx(), kv_type=self.kv_type)
            self._leased = self.session
        try:
            self._restore(prompt)
        except BaseException:
            self._leased = None
            raise
        self.kept.truncate(0)
        self._leased = self.session
        return self._leased

    def give_back(self, session: Session, result: GenerationResult | None) -> None:
        """Return a leased session after its completion, and store its state in the cache."""
        self.last_result = result
        if session is not self._leased:
            return
        try:
            # While it was in use, another state may have been loaded.
            if self.cache is not None and session.tokens and session is self._session:
                self.cache[session.tokens] = self.save_state()
        except OSError as error:
            log.warning("the state could not be kept in the cache: %s", error)
        finally:
            self._leased = None

    def _restore(self, prompt: Sequence[int]) -> None:
        """Load the cached state with the longest common prefix with a prompt, if longer than the session's."""
        if self.cache is None:
            return
        try:
            known = shared_length(self.session.tokens, prompt)
            state = self.cache.best_for(self.model, prompt, known, self.kv_type)
            if state is not None:
                seed = self._samplers.seed
                (self.restore or self.load_state)(state)
                # The new text gets other random choices than the cached one.
                self._samplers.seed = seed
        except LlamaCpuError as error:  # its model is closed, it does not fit, or it is damaged
            log.warning("a state of the cache cannot be used: %s", error)
