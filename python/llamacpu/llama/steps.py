"""Step-by-step use of `Llama`: choose the next token from the logits of the evaluated ones."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llamacpu.errors import LlamaCpuError
from llamacpu.generation.context_window import shared_length

if TYPE_CHECKING:
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.generation.request import LogitsProcessor, StoppingCriterion
    from llamacpu.llama.conversation import Conversation
    from llamacpu.llama.sampling import Samplers
    from llamacpu.sampling import Sampler

__all__ = ["Steps", "criteria_of"]


def criteria_of(given: Iterable[StoppingCriterion] | StoppingCriterion | None) -> tuple[StoppingCriterion, ...]:
    """The stopping criteria as a tuple, from a list (which may itself be callable), a single one, or None."""
    if given is None:
        return ()
    return tuple(given) if isinstance(given, Iterable) else (given,)


class Steps:
    """Chooses tokens for a conversation."""

    def __init__(self, conversation: Conversation, samplers: Samplers) -> None:
        self._conversation = conversation
        self._samplers = samplers

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
        """Choose the token after the last evaluated one (with `logits_all`, after the token at index `idx`).

        Raises LlamaCpuError if no logits are stored for that token.
        """
        sampler = self._samplers.sampler(
            None, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p, temp=temp, repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, tfs_z=tfs_z,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, penalize_nl=penalize_nl,
        )  # fmt: skip
        processors = self._samplers.processors(logits_processor, grammar)
        row = self._logits_after(-1 if idx is None or not self._conversation.logits_all else idx)
        return self._draw(sampler, processors, row)

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
        """Yield the tokens that follow `tokens`, without end: end-of-text tokens are yielded like any other.

        With `reset`, the prefix that the conversation shares with `tokens` is reused and the rest discarded; without
        it, `tokens` continue the conversation. Tokens sent into the generator follow the one it yielded.
        """
        sampler = self._samplers.sampler(
            None, top_k=top_k, top_p=top_p, min_p=min_p, typical_p=typical_p, temp=temp, repeat_penalty=repeat_penalty,
            frequency_penalty=frequency_penalty, presence_penalty=presence_penalty, tfs_z=tfs_z,
            mirostat_mode=mirostat_mode, mirostat_tau=mirostat_tau, mirostat_eta=mirostat_eta, penalize_nl=penalize_nl,
        )  # fmt: skip
        processors = self._samplers.processors(logits_processor, grammar)
        criteria = criteria_of(stopping_criteria)
        coming = list(tokens)
        if reset:
            kept = min(shared_length(self._conversation.session.tokens, coming), max(len(coming) - 1, 0))
            kept = min(kept, len(self._conversation.kept)) if self._conversation.logits_all else kept
            self._conversation.truncate(kept)
            coming = coming[kept:]
        while True:
            self._conversation.eval(coming)
            logits = self._logits_after(-1)
            token = self._draw(sampler, processors, logits)
            history = np.array([*self._conversation.session.tokens, token], dtype=np.int64)
            if any(criterion(history, logits) for criterion in criteria):
                return
            sent = yield token
            coming = [token, *(sent or ())]

    def _logits_after(self, place: int) -> npt.NDArray[np.single]:
        rows = self._conversation.scores
        if not -len(rows) <= place < len(rows):
            raise LlamaCpuError(
                f"there are no logits of token {place} to sample from: {len(rows)} rows are kept; call eval first"
            )
        row: npt.NDArray[np.single] = rows[place]
        return row

    def _draw(self, sampler: Sampler, processors: list[LogitsProcessor], logits: npt.NDArray[np.float32]) -> int:
        history = np.array(self._conversation.session.tokens, dtype=np.int64)
        logits = logits.copy() if processors else logits
        for process in processors:
            logits = process(history, logits)
        return sampler.sample(logits, history)
