"""`Llama` step by step: evaluate tokens, look at their logits, choose the next one."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llamacpu.errors import LlamaCpuError
from llamacpu.generation.context_window import shared_length
from llamacpu.llama.sampling import samplings
from llamacpu.sampling import Sampler

if TYPE_CHECKING:
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.engine.session import Session
    from llamacpu.llama.logits import KeptLogits
    from llamacpu.text.tokenizer import Tokenizer

LogitsProcessor = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
StoppingCriterion = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], bool]
RANDOM_SEED = 0xFFFFFFFF
# Arguments of `sample` and `generate` that are not settings of the sampler.
_NOT_SETTINGS = frozenset(("self", "tokens", "reset", "logits_processor", "stopping_criteria", "grammar", "idx"))


def criteria_of(given: Iterable[StoppingCriterion] | StoppingCriterion | None) -> tuple[StoppingCriterion, ...]:
    """The stopping criteria: of a list, which may be callable itself, or one."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Iterable) else (given,)


class StepMethods:
    """What `Llama` inherits."""

    if TYPE_CHECKING:
        last_n_tokens_size: int
        _logits_all: bool
        _kept: KeptLogits
        _tokenizer: Tokenizer

        @property
        def session(self) -> Session: ...
        def n_ctx(self) -> int: ...
        def n_vocab(self) -> int: ...

    @property
    def n_tokens(self) -> int:
        """Number of tokens in the conversation."""
        return self.session.position

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens of the conversation."""
        return np.array(self.session.tokens, dtype=np.intc)

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits that `eval` kept, float32[rows, vocabulary]: of all with `logits_all`, else of the last."""
        return self._kept.rows

    # Programs that were written for llama-cpp-python know these two by their private names.

    @property
    def _scores(self) -> npt.NDArray[np.single]:
        return self.scores

    @property
    def _input_ids(self) -> npt.NDArray[np.intc]:
        return self.input_ids

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens of the conversation."""
        return deque(self.session.tokens, maxlen=self.n_ctx())

    @property
    def eval_logits(self) -> deque[list[float]]:
        """`scores` as lists."""
        return deque(self.scores.tolist(), maxlen=self.n_ctx() if self._logits_all else 1)

    def set_seed(self, seed: int) -> None:
        """The seed of the random choices to come; -1 draws one."""
        self._seed = None if seed < 0 or seed == RANDOM_SEED else seed & RANDOM_SEED
        self._random = random.Random(self._seed)

    def reset(self) -> None:
        """Forget the conversation."""
        self._truncate(0)

    def _truncate(self, count: int) -> None:
        self.session.truncate(count)
        self._kept.truncate(count if self._logits_all else 0)

    def eval(self, tokens: Sequence[int]) -> npt.NDArray[np.single]:
        """Continue the conversation by tokens; returns the logits of the last one.

        Without tokens nothing happens, and the logits of the token before are returned again, if they were kept.
        """
        if len(tokens) > 0 and self._logits_all:
            self._kept.append(self.session.forward(list(tokens), logits="all"))
        elif len(tokens) > 0:
            self._kept.replace(self.session.forward(list(tokens))[np.newaxis])
        return self.scores[-1] if len(self._kept) else np.zeros(0, dtype=np.single)

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: Iterable[LogitsProcessor] | None = None,
        grammar: Grammar | None = None,
        idx: int | None = None,
    ) -> int:
        """Choose the token after the last evaluated one (or after token number `idx`, with `logits_all`)."""
        settings = {
            name: value
            for name, value in locals().items()
            if name not in ("self", "logits_processor", "grammar", "idx")
        }
        processors = self._processors(logits_processor, grammar)
        row = self._logits_after(-1 if idx is None or not self._logits_all else idx)
        return self._draw(self._sampler(None, **settings), processors, row)

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: Iterable[LogitsProcessor] | None = None,
        stopping_criteria: Iterable[StoppingCriterion] | StoppingCriterion | None = None,
        grammar: Grammar | None = None,
    ) -> Generator[int, Sequence[int] | None, None]:
        """The tokens that follow `tokens`, without end: end-of-text tokens come out like others.

        With `reset` the beginning that the conversation shares with `tokens` is kept and the rest forgotten; without
        it, `tokens` continue the conversation. Tokens that are sent into the generator follow the one it gave.
        """
        settings = {name: value for name, value in locals().items() if name not in _NOT_SETTINGS}
        sampler = self._sampler(None, **settings)
        processors = self._processors(logits_processor, grammar)
        criteria = criteria_of(stopping_criteria)
        coming = list(tokens)
        if reset:
            kept = min(shared_length(self.session.tokens, coming), max(len(coming) - 1, 0))
            kept = min(kept, len(self._kept)) if self._logits_all else kept
            self._truncate(kept)
            coming = coming[kept:]
        while True:
            self.eval(coming)
            logits = self._logits_after(-1)
            token = self._draw(sampler, processors, logits)
            history = np.array([*self.session.tokens, token], dtype=np.int64)
            if any(criterion(history, logits) for criterion in criteria):
                return
            sent = yield token
            coming = [token, *(sent or ())]

    def _logits_after(self, place: int) -> npt.NDArray[np.single]:
        if not -len(self._kept) <= place < len(self._kept):
            raise LlamaCpuError(
                f"there are no logits of token {place} to sample from: {len(self._kept)} rows are kept; call eval first"
            )
        row: npt.NDArray[np.single] = self.scores[place]
        return row

    def _sampler(self, seed: int | None, **settings: Any) -> Sampler:
        if seed is None:
            seed = self._random.randrange(RANDOM_SEED)
        chosen = samplings(seed=seed, penalty_last_n=self.last_n_tokens_size, **settings)
        return Sampler(chosen, self.n_vocab(), lambda token: self._tokenizer.decode([token]))

    def _processors(self, given: Iterable[LogitsProcessor] | None, grammar: Grammar | None) -> list[LogitsProcessor]:
        processors = list(given or ())
        return [*processors, grammar.constraint(self._tokenizer)] if grammar is not None else processors

    def _draw(self, sampler: Sampler, processors: list[LogitsProcessor], logits: npt.NDArray[np.float32]) -> int:
        history = np.array(self.session.tokens, dtype=np.int64)
        logits = logits.copy() if processors else logits
        for process in processors:
            logits = process(history, logits)
        return sampler.sample(logits, history)
