"""How far the predictions of a model, of a quantized file above all, are from those of the original model.

Kullback-Leibler divergence (S. Kullback, R. Leibler, "On Information and Sufficiency", 1951) and the other figures of
llama.cpp's `llama-perplexity --kl-divergence`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llamacpu import _native
from llamacpu.tools.figures import Figure, covariance, exponential, finite, mean_of, percentile

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Comparison"]

_PERCENTS = (99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1)


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """The predictions of a model beside those of the original one. All arrays have one element per scored token.

    tokens                      int64[n]: the tokens that were predicted
    positions                   int64[n]: where they are among the tokens of the text
    log_probabilities           float64[n]: natural logarithms of the probabilities that the model gave to them
    original_log_probabilities  float64[n]: the same of the original model
    divergences                 float64[n]: Kullback-Leibler divergence of all probabilities, in nats
    top_tokens                  int64[n]: the tokens that the model held most probable
    original_top_tokens         int64[n]: the same of the original model
    chunks, context             number of chunks, and tokens in each
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]
    original_log_probabilities: NDArray[np.float64]
    divergences: NDArray[np.float64]
    top_tokens: NDArray[np.int64]
    original_top_tokens: NDArray[np.int64]
    chunks: int
    context: int

    @property
    def probability_differences(self) -> NDArray[np.float64]:
        """The probabilities of the tokens, less those that the original model gave, float64[n]."""
        return _native.exp(self.log_probabilities) - _native.exp(self.original_log_probabilities)

    @property
    def same_top(self) -> NDArray[np.bool_]:
        """Whether both models held the same token most probable, bool[n]."""
        same: NDArray[np.bool_] = self.top_tokens == self.original_top_tokens
        return same

    @property
    def divergence(self) -> Figure:
        """The mean divergence in nats, with its standard error."""
        return mean_of(self.divergences)

    @property
    def agreement(self) -> Figure:
        """How often both models held the same token most probable, from 0 to 1, with its standard error."""
        count = len(self.tokens)
        share = float(np.mean(self.same_top)) if count else math.nan
        return Figure(share, math.sqrt(share * (1 - share) / (count - 1)) if count > 1 else 0.0)

    @property
    def rms_difference(self) -> Figure:
        """The root of the mean square of `probability_differences`, with its standard error."""
        square = mean_of(self.probability_differences**2)
        root = math.sqrt(square.value) if square.value >= 0 else math.nan
        return Figure(root, 0.5 / root * square.error if root > 0 else 0.0)

    @property
    def mean_difference(self) -> Figure:
        """The mean of `probability_differences`, with its standard error."""
        return mean_of(self.probability_differences)

    @property
    def perplexity(self) -> Figure:
        """The perplexity of the model."""
        return _perplexity(mean_of(-self.log_probabilities))

    @property
    def original_perplexity(self) -> Figure:
        """The perplexity of the original model."""
        return _perplexity(mean_of(-self.original_log_probabilities))

    @property
    def log_ratio(self) -> Figure:
        """The logarithm of the ratio of the perplexities, model to original."""
        own, base = mean_of(-self.log_probabilities), mean_of(-self.original_log_probabilities)
        shared = covariance(self.log_probabilities, self.original_log_probabilities)
        return Figure(own.value - base.value, math.sqrt(max(own.error**2 + base.error**2 - 2 * shared, 0.0)))

    @property
    def ratio(self) -> Figure:
        """The ratio of the perplexities, model to original."""
        found = self.log_ratio
        value = exponential(found.value)
        return Figure(value, value * found.error)

    @property
    def perplexity_difference(self) -> Figure:
        """The perplexity of the model less that of the original one."""
        own, base = self.perplexity, self.original_perplexity
        shared = own.value * base.value * covariance(self.log_probabilities, self.original_log_probabilities)
        return Figure(own.value - base.value, math.sqrt(max(own.error**2 + base.error**2 - 2 * shared, 0.0)))

    @property
    def correlation(self) -> float:
        """The correlation of the logarithms of the perplexities, at most 1."""
        own, base = mean_of(-self.log_probabilities), mean_of(-self.original_log_probabilities)
        shared = covariance(self.log_probabilities, self.original_log_probabilities)
        return shared / (own.error * base.error) if own.error and base.error else math.nan

    def percentiles(self, values: NDArray[np.float64]) -> dict[str, float]:
        """Largest, smallest and percentiles of an array of this comparison, by name ("maximum", "99.9 %", "median")."""
        ordered = np.sort(values)
        if not len(ordered):
            return {}
        names = {percent: "median" if percent == 50 else f"{percent:g} %" for percent in _PERCENTS}
        inner = {names[percent]: percentile(ordered, percent) for percent in _PERCENTS}
        return {"maximum": float(ordered[-1]), **inner, "minimum": float(ordered[0])}

    def summary(self) -> dict[str, Any]:
        """The figures without the arrays, for JSON; [value, standard error] where an error is known."""
        figures = {
            "divergence": self.divergence, "agreement": self.agreement,
            "rms_probability_difference": self.rms_difference, "mean_probability_difference": self.mean_difference,
            "perplexity": self.perplexity,
            "original_perplexity": self.original_perplexity, "log_perplexity_ratio": self.log_ratio,
            "perplexity_ratio": self.ratio, "perplexity_difference": self.perplexity_difference,
        }  # fmt: skip
        return {
            **{name: [finite(figure.value), finite(figure.error)] for name, figure in figures.items()},
            "perplexity_correlation": finite(self.correlation),
            "divergence_percentiles": self.percentiles(self.divergences),
            "probability_difference_percentiles": self.percentiles(self.probability_differences),
            "scored_tokens": len(self.tokens),
            "chunks": self.chunks,
            "context": self.context,
        }

    def __repr__(self) -> str:
        value, error = self.divergence
        return f"<Comparison: divergence {value:.6f} ± {error:.6f}, {len(self.tokens)} tokens in {self.chunks} chunks>"


def _perplexity(mean: Figure) -> Figure:
    value = exponential(mean.value) if math.isfinite(mean.value) else math.nan
    return Figure(value, value * mean.error)
