"""The sampler: the steps requested by the settings, in order, and the state they carry."""

import secrets
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from llamacpu.sampling import repetition, truncation
from llamacpu.sampling.candidates import Candidates, Ids, Logits, from_logits
from llamacpu.sampling.draw import ByDistribution, Draw, Mirostat, NearTarget
from llamacpu.sampling.mersenne import Mersenne
from llamacpu.sampling.settings import MAX_SEED, Sampling
from llamacpu.sampling.temperature import dynamic_temperature

History = Sequence[int] | Ids
# A plain function, not a bound method: a sampler holding its own bound methods would stay alive until the garbage
# collector ran.
Step = Callable[["Sampler", Candidates, History], Candidates]


class Sampler:
    """Chooses the tokens of one text.

    Its random stream and the state of mirostat and adaptive-p belong to that text: use one sampler per
    conversation, and never from two threads at once.
    """

    def __init__(
        self, sampling: Sampling | None = None, vocab_size: int | None = None, piece: Callable[[int], str] | None = None
    ) -> None:
        """Build the chain.

        vocab_size: if given, the ids in logit_bias are checked against it; mirostat 1 uses it too.
        piece: token id -> its text; DRY finds its sequence breakers with it, and has none without it.

        Raises ValueError if logit_bias names a token outside the vocabulary.
        """
        self.sampling: Sampling = Sampling() if sampling is None else sampling
        self.seed: int = secrets.randbelow(MAX_SEED) if self.sampling.seed is None else self.sampling.seed
        self._vocab_size = vocab_size
        self._bias = self._bias_arrays()
        self._breakers = repetition.Breakers(self.sampling.dry_sequence_breakers, piece)
        self._chance = Mersenne(self.seed)
        self._steps = self._chain()
        self._draw = self._last_step()

    def sample(self, logits: npt.ArrayLike, history: History = ()) -> int:
        """Choose the next token.

        logits: float[vocabulary]; history: the tokens of the text so far, including the prompt.
        Raises ModelError if no token can be chosen (every logit is NaN or -inf).
        """
        with np.errstate(all="ignore"):
            candidates = from_logits(self._biased(logits))
            for step in self._steps:
                candidates = step(self, candidates, history)
            return self._draw(candidates)

    def _bias_arrays(self) -> tuple[Ids, Logits] | None:
        bias = self.sampling.logit_bias
        if not bias:
            return None
        largest = max(bias)
        if self._vocab_size is not None and largest >= self._vocab_size:
            raise ValueError(
                f"logit_bias names token {largest}; expected ids below {self._vocab_size}, the vocabulary's size"
            )
        return np.array(list(bias), dtype=np.int64), np.array(list(bias.values()), dtype=np.float32)

    def _biased(self, logits: npt.ArrayLike) -> npt.ArrayLike:
        if self._bias is None:
            return logits
        tokens, amounts = self._bias
        values = np.array(logits, dtype=np.float32)
        if int(tokens.max()) >= values.size:
            raise ValueError(
                f"logit_bias names token {int(tokens.max())}; expected ids below {values.size}, the number of logits"
            )
        values[tokens] += amounts
        return values

    def _chain(self) -> list[Step]:
        kind = type(self)
        if self.sampling.mirostat:
            return [kind._temperature]
        makers: dict[str, Step | None] = {
            "penalties": kind._penalties if self._penalizes() else None,
            "dry": kind._dry if self.sampling.dry_multiplier > 0 and self.sampling.dry_last_n != 0 else None,
            "top_n_sigma": kind._top_n_sigma if self.sampling.top_n_sigma >= 0 else None,
            "top_k": kind._top_k if self.sampling.top_k > 0 else None,
            "typical_p": kind._typical if self.sampling.typical_p < 1 else None,
            "top_p": kind._top_p if self.sampling.top_p < 1 else None,
            "min_p": kind._min_p if self.sampling.min_p > 0 else None,
            "xtc": kind._xtc if self.sampling.xtc_probability > 0 and self.sampling.xtc_threshold <= 0.5 else None,
            "temperature": kind._temperature,
        }
        steps = [step for name in self.sampling.samplers if (step := makers.get(name)) is not None]
        if self.sampling.greedy and kind._temperature in steps:
            # These never remove the most likely token, so skipping them gives the same answer faster.
            idle = (kind._top_n_sigma, kind._top_k, kind._top_p, kind._min_p)
            steps = [step for step in steps if step not in idle]
        return steps

    def _last_step(self) -> Draw:
        sampling = self.sampling
        stream = Mersenne(self.seed)
        if sampling.mirostat:
            vocabulary = self._vocab_size or 32000
            return Mirostat(sampling.mirostat, sampling.mirostat_tau, sampling.mirostat_eta, vocabulary, stream)
        if sampling.adaptive_target >= 0:
            return NearTarget(sampling.adaptive_target, sampling.adaptive_decay, stream)
        return ByDistribution(stream)

    def _penalizes(self) -> bool:
        sampling = self.sampling
        neutral = sampling.repeat_penalty == 1 and sampling.frequency_penalty == 0 and sampling.presence_penalty == 0
        return sampling.penalty_last_n != 0 and not neutral

    def _penalties(self, candidates: Candidates, history: History) -> Candidates:
        sampling = self.sampling
        seen = repetition.recent(history, sampling.penalty_last_n)
        return repetition.penalties(
            candidates, seen, sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty
        )

    def _dry(self, candidates: Candidates, history: History) -> Candidates:
        sampling = self.sampling
        seen = repetition.recent(history, sampling.dry_last_n)
        return repetition.dry(
            candidates, seen, sampling.dry_multiplier, sampling.dry_base, sampling.dry_allowed_length, self._breakers
        )

    def _top_n_sigma(self, candidates: Candidates, _history: History) -> Candidates:
        return truncation.top_n_sigma(candidates, self.sampling.top_n_sigma)

    def _top_k(self, candidates: Candidates, _history: History) -> Candidates:
        return truncation.top_k(candidates, self.sampling.top_k)

    def _typical(self, candidates: Candidates, _history: History) -> Candidates:
        return truncation.typical(candidates, self.sampling.typical_p, self.sampling.min_keep)

    def _top_p(self, candidates: Candidates, _history: History) -> Candidates:
        return truncation.top_p(candidates, self.sampling.top_p, self.sampling.min_keep)

    def _min_p(self, candidates: Candidates, _history: History) -> Candidates:
        return truncation.min_p(candidates, self.sampling.min_p, self.sampling.min_keep)

    def _xtc(self, candidates: Candidates, _history: History) -> Candidates:
        if len(candidates) < 2 or self._chance.single() > self.sampling.xtc_probability:
            return candidates
        return truncation.xtc(candidates, self.sampling.xtc_threshold, self.sampling.min_keep)

    def _temperature(self, candidates: Candidates, _history: History) -> Candidates:
        sampling = self.sampling
        return dynamic_temperature(
            candidates, sampling.temperature, sampling.dynatemp_range, sampling.dynatemp_exponent
        )
