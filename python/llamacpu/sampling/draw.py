"""The last step: choosing one token from the remaining candidates."""

from typing import Protocol

import numpy as np

from llamacpu.sampling.candidates import Candidates, Probabilities, probabilities, weights
from llamacpu.sampling.functions import LN_2, LOG2_E, exp, log, power
from llamacpu.sampling.mersenne import Mersenne


class Draw(Protocol):
    """Chooses one of the candidates; may remember its choices."""

    def __call__(self, candidates: Candidates) -> int:
        """The id of the chosen token."""


def draw_one(factors: Probabilities, stream: Mersenne) -> int:
    """A position drawn in proportion to its weight; a single candidate is taken without drawing from the stream."""
    return 0 if len(factors) == 1 else position_at(factors, stream.double())


def position_at(factors: Probabilities, point: float) -> int:
    """The position where the running sum of the weights passes `point` (0 to 1) times their total.

    Never a position with weight 0.
    """
    reached = np.cumsum(factors)
    position = int(np.searchsorted(reached, point * reached[-1], side="right"))
    # Rounding may push the point onto the total itself: then take the last token with a nonzero weight.
    return position if position < len(reached) else int(np.searchsorted(reached, reached[-1]))


class ByDistribution:
    """Draws each candidate with its probability; takes one value from the random stream per token."""

    def __init__(self, stream: Mersenne) -> None:
        self._stream = stream

    def __call__(self, candidates: Candidates) -> int:
        """The id of the chosen token."""
        return candidates.token(position_at(weights(candidates), self._stream.double()))


class Mirostat:
    """Holds the surprise of the chosen tokens at `tau` bits (Basu et al., arXiv:2007.14966).

    Version 2 keeps tokens whose surprise is at most mu; version 1 estimates the number of such tokens from the
    slope of the largest probabilities. After each token, mu decreases by eta times the error.
    """

    _SLOPE_TOKENS = 100

    def __init__(self, version: int, tau: float, eta: float, vocabulary: int, stream: Mersenne) -> None:
        self._version = version
        self._tau = tau
        self._eta = eta
        self._vocabulary = vocabulary
        self._stream = stream
        self.mu: float = 2 * tau

    def __call__(self, candidates: Candidates) -> int:
        """The id of the chosen token."""
        count = self._by_slope(candidates) if self._version == 1 else self._by_surprise(candidates)
        kept = candidates.largest(max(1, min(count, len(candidates))))
        chances = probabilities(kept)
        position = draw_one(chances, self._stream)
        self.mu -= self._eta * (-log(float(chances[position])) * LOG2_E - self._tau)
        return kept.token(position)

    def _by_surprise(self, candidates: Candidates) -> int:
        return int(np.count_nonzero(-log(probabilities(candidates)) * LOG2_E <= self.mu))

    def _by_slope(self, candidates: Candidates) -> int:
        # Only the ratios of neighbours matter, so the weights need not be normalized.
        top = weights(candidates.largest(self._SLOPE_TOKENS))
        top = top[top > 0]
        if len(top) < 2:
            return 1
        ranks = np.arange(len(top) - 1)
        steps = log((ranks + 2) / (ranks + 1))
        slope = float((steps * log(top[:-1] / top[1:])).sum() / (steps * steps).sum())
        excess = slope - 1
        if slope == 0 or excess == 0:
            # A flat or exactly harmonic top gives no estimate: nothing is cut.
            return len(candidates)
        with np.errstate(all="ignore"):
            wanted = np.float64(excess * exp(self.mu * LN_2)) / (1 - power(float(self._vocabulary), -excess))
        count = power(float(wanted), 1 / slope)
        return int(count) if count < len(candidates) else len(candidates)


class NearTarget:
    """Adaptive-p: prefers tokens whose probability is near a target.

    The target is adjusted after each token so that the running average of the chosen tokens' probabilities
    approaches the requested one.

    With the distance d = |p - target| / 0.3, the new logit is 5 - 10 d² / (1 + d). The average decays by
    `decay` per token and starts at the target (github.com/MrJackSpade/adaptive-p-docs, "The algorithm").
    """

    _WIDTH = 0.3
    _PEAK = 5.0
    _SHARPNESS = 10.0

    def __init__(self, target: float, decay: float, stream: Mersenne) -> None:
        self._target = target
        self._decay = decay
        self._stream = stream
        self._sum = target / (1 - decay)
        self._weight = 1 / (1 - decay)

    def __call__(self, candidates: Candidates) -> int:
        """The id of the chosen token."""
        chances = probabilities(candidates)
        target = min(max(2 * self._target - self._sum / self._weight, 0.0), 1.0)
        distance = np.abs(chances - target) / self._WIDTH
        logits = self._PEAK - self._SHARPNESS * distance * distance / (1 + distance)
        factors = exp(logits - logits.max())
        factors[chances == 0] = 0
        position = draw_one(factors, self._stream)
        self._sum = float(chances[position]) + self._decay * self._sum
        self._weight = 1 + self._decay * self._weight
        return candidates.token(position)
