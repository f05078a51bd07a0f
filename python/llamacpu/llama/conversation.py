"""The conversation of a `Llama`: its session, the logits that were kept, the cache of states, and who uses it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

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

__all__ = ["Conversation"]


class Conversation:
    """A model, the session that is continued from call to call, and what is known of it.

    model        None where there is a vocabulary only
    context      the most tokens of the conversation; None for what the model was trained for
    logits_all   whether the logits of all tokens are kept, not of the last one only
    cache        keeps the states of completions, or None
    last_result  how the last completion went
    restore      loads the states of the cache in place of `load_state`, or None
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
        """The model; LlamaCpuError where there is none (any more)."""
        if self._model is None:
            raise LlamaCpuError("the model is closed, or was opened with vocab_only=True: only the tokenizer is there")
        return self._model

    @property
    def preset(self) -> Preset:
        """The settings that came with the model's name."""
        return preset_of(self._model)

    @property
    def session(self) -> Session:
        """The session; LlamaCpuError where there is none (any more)."""
        if self._session is None:
            self.model.session()
        assert self._session is not None
        return self._session

    @property
    def vocab_size(self) -> int:
        """Number of logits, of the tokenizer's tokens where there is no model."""
        return self._vocab_size if self._model is None else self._model.vocab_size

    @property
    def closed(self) -> bool:
        """Whether there is no model (any more)."""
        return self._model is None

    def close(self) -> None:
        """Give the memory back."""
        if self._model is not None:
            self._model.close()
            self._model = self._session = self._leased = None
            self.kept = KeptLogits(self._vocab_size)

    def n_ctx(self) -> int:
        """The most tokens of prompt and answer together."""
        return self.session.context

    # --- Step by step ---

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens of the conversation."""
        return np.array(self.session.tokens, dtype=np.intc)

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits that `eval` kept, float32[rows, vocabulary]: of all with `logits_all`, else of the last."""
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
        """Forget the conversation."""
        self.truncate(0)

    def truncate(self, count: int) -> None:
        """Forget all but the first tokens."""
        self.session.truncate(count)
        self.kept.truncate(count if self.logits_all else 0)

    def eval(self, tokens: Sequence[int]) -> npt.NDArray[np.single]:
        """Continue the conversation by tokens; returns the logits of the last one.

        Without tokens nothing happens, and the logits of the token before are returned again, if they were kept.
        """
        if len(tokens) > 0 and self.logits_all:
            self.kept.append(self.session.forward(list(tokens), logits="all"))
        elif len(tokens) > 0:
            self.kept.replace(self.session.forward(list(tokens))[np.newaxis])
        return self.scores[-1] if len(self.kept) else np.zeros(0, dtype=np.single)

    # --- States ---

    def save_state(self) -> LlamaState:
        """The conversation as it is now; it costs next to nothing."""
        tokens = self.input_ids
        seed = self._samplers.seed
        return LlamaState(tokens, self.scores.copy(), len(tokens), seed=seed, session=self.session.fork())

    def load_state(self, state: LlamaState) -> None:
        """Go back to a saved conversation. SessionError for one with another model.

        Keys and values stay stored as this conversation stores them: those of another type are computed again.
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
        """Keep the states of completions in `cache`, and begin each from the best of them.

        `llamacpu.llama.caches` has one in memory and one on disk.
        """
        self.cache = cache

    # --- Completions ---

    def lease(self, prompt: Sequence[int]) -> Session:
        """The session for a completion: the own one, or another while that is in use."""
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
        """The completion has ended."""
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

    def _restore(self, prompt: Sequence[int]) -> None:
        """Load the state of the cache that shares the most with a prompt, if it is more than the session does."""
        if self.cache is None:
            return
        try:
            known = shared_length(self.session.tokens, prompt)
            state = self.cache.best_for(self.model, prompt, known, self.kv_type)
            if state is not None:
                seed = self._samplers.seed
                (self.restore or self.load_state)(state)
                # The text is asked for anew, with other random choices than the one before.
                self._samplers.seed = seed
        except LlamaCpuError as error:  # of a model that was closed, of another length, damaged
            log.warning("a state of the cache cannot be used: %s", error)
