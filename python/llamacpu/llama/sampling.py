"""Conversion of llama-cpp-python's sampling arguments to `Sampler`, and the seeds of requests without one."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llamacpu import log
from llamacpu.arguments import described
from llamacpu.sampling import Sampler, Sampling
from llamacpu.sampling.settings import MAX_SEED, seed_of

if TYPE_CHECKING:
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.generation.request import LogitsProcessor
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["RANDOM_SEED", "Samplers", "samplings"]


RANDOM_SEED = MAX_SEED
# Coprime to the number of seeds, so that all of them are used before one repeats.
_STRIDE = 2654435761
# The steps of llama-cpp-python, which are fewer than llama.cpp's.
_STEPS = ("penalties", "top_k", "typical_p", "top_p", "min_p", "temperature")


class Samplers:
    """Makes the samplers of a `Llama`.

    last_n_tokens_size  how many tokens the penalties look back
    seed                state from which the seed of the next text is derived, advanced with each; None to draw seeds
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, last_n_tokens_size: int, seed: int) -> None:
        self.last_n_tokens_size = last_n_tokens_size
        self.seed: int | None = None
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self.set_seed(seed)

    def set_seed(self, seed: int) -> None:
        """Set the seed of future random choices; -1 draws one, and a longer integer is cut to its low 32 bits."""
        self.seed = seed_of(seed)

    def _next_seed(self) -> int | None:
        """The seed of a text without one: if a seed was set, it follows from that seed and the number of texts so far.

        Both are contained in `seed` alone, so that a saved state restores the choices together with the text.
        """
        if self.seed is None:
            return None
        found = random.Random(self.seed).randrange(RANDOM_SEED)
        self.seed = (self.seed + _STRIDE) % RANDOM_SEED
        return found

    def sampler(self, seed: int | None, **settings: Any) -> Sampler:
        """A sampler with the settings of `samplings`; with seed None it gets the next seed of this object."""
        if seed is None:
            seed = self._next_seed()
        chosen = samplings(seed=seed, penalty_last_n=self.last_n_tokens_size, **settings)
        tokenizer = self._tokenizer
        return Sampler(chosen, self._vocab_size, lambda token: tokenizer.decode([token]))

    def processors(self, given: Iterable[LogitsProcessor] | None, grammar: Grammar | None) -> list[LogitsProcessor]:
        """The logits processors of one text: those given, followed by the grammar's constraint."""
        processors = list(given or ())
        return [*processors, grammar.constraint(self._tokenizer)] if grammar is not None else processors


def samplings(
    *,
    temp: float,
    tfs_z: float = 1.0,
    penalize_nl: bool = True,
    mirostat_mode: int = 0,
    logit_bias: Mapping[Any, float] | None = None,
    **settings: Any,
) -> Sampling:
    """The sampling settings of a request. A negative temperature draws from the model's own distribution.

    Raises ValueError for an invalid setting.
    """
    if tfs_z != 1.0 or not penalize_nl:
        log.info("tfs_z and penalize_nl have no effect")
    try:
        bias = {int(token): float(value) for token, value in (logit_bias or {}).items()}
    except (TypeError, ValueError):
        raise ValueError(f"logit_bias is {described(logit_bias)}; expected token ids to numbers") from None
    steps = _STEPS if temp >= 0 else ("penalties",)
    return Sampling(
        temperature=temp if temp >= 0 else 1.0,
        samplers=steps,
        min_keep=1,
        mirostat=mirostat_mode,
        logit_bias=bias,
        **settings,
    )
