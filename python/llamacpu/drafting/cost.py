"""The cost of a pass through a model as a function of its number of tokens, measured at run time."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

# A pass over n tokens is assumed to take level * (1 + slope * (n - 1)) seconds. Before the first measurement of n > 1:
_PRIOR_SLOPE = 0.2
_LEAST_SLOPE = 0.01
_MOST_SLOPE = 1.0
# How far one measurement moves the estimate, and its largest relative error: machines stall now and then.
_RATE = 0.2
_MOST_ERROR = 0.5
_LEAST_SECONDS = 1e-9


class StepCost:
    """A straight line through the durations of passes, corrected by each new one (normalized least mean squares).

    Kernels make some sizes cheaper than the line predicts and others more expensive: the deviation of each size is
    remembered too.
    """

    def __init__(self) -> None:
        self._level: float | None = None
        self._slope = _PRIOR_SLOPE
        # Size -> deviation of its passes from the line, relative to the line's value.
        self._off: dict[int, float] = {}

    @property
    def known(self) -> bool:
        """Whether anything has been measured."""
        return self._level is not None

    @property
    def seconds(self) -> float:
        """Seconds of a pass over one token; 0 before the first measurement."""
        return self._level or 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Record that a pass over `tokens` tokens took `seconds`."""
        seconds = max(seconds, _LEAST_SECONDS)
        more = tokens - 1
        if self._level is None:
            self._level = seconds / (1 + _PRIOR_SLOPE * more)
            return
        expected = self._level * (1 + self._slope * more)
        error = min(max(seconds - expected, -_MOST_ERROR * expected), _MOST_ERROR * expected)
        if more:
            off = self._off.get(tokens, 0.0)
            self._off[tokens] = off + _RATE * (error / expected - off)
        step = _RATE * error / (1 + more * more)
        self._level += step
        self._slope = min(max(self._slope + step * more / self._level, _LEAST_SLOPE), _MOST_SLOPE)

    def ratio(self, tokens: int) -> float:
        """Cost of a pass over `tokens` tokens, in passes over one; at least 1."""
        return max((1 + self._slope * (tokens - 1)) * (1 + self._off.get(tokens, 0.0)), 1.0)


_costs: WeakKeyDictionary[Any, StepCost] = WeakKeyDictionary()


def cost_of(model: Any) -> StepCost:
    """The measurements of a model, shared by all its generations."""
    return _costs.setdefault(model, StepCost())
