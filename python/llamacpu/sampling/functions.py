"""Elementary functions that give bit-identical results on every machine.

NumPy and the C library select among several versions of `exp` and `log` depending on the processor, and these differ
in the last bit: enough to choose another token now and then. Sums, products and quotients are rounded the same way
everywhere, so sampling uses only those and the functions here, and a seed gives the same text wherever the logits are
the same.
"""

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from llamacpu import _native

LN_2 = 0.6931471805599453
LOG2_E = 1.4426950408889634

Numbers = npt.NDArray[np.float64]
OneOrMany = TypeVar("OneOrMany", float, Numbers)


def exp(x: OneOrMany) -> OneOrMany:
    """e^x of a number, or of each element of a float64[n]; 0 below -707, infinity above 709."""
    if isinstance(x, np.ndarray):
        return _native.exp(x)
    return float(_native.exp(np.array([x], dtype=np.float64))[0])


def log(x: OneOrMany) -> OneOrMany:
    """The natural logarithm of a number, or of each element of a float64[n]; -inf for 0, NaN below."""
    if isinstance(x, np.ndarray):
        return _native.log(x)
    return float(_native.log(np.array([x], dtype=np.float64))[0])


def power(base: float, exponent: float) -> float:
    """base^exponent for a base of 0 or more."""
    if exponent == 0:
        return 1.0
    if base == 0:
        return 0.0 if exponent > 0 else math.inf
    return exp(exponent * log(base))


def powers(base: float, count: int) -> Numbers:
    """base^0, base^1, ... as float64[count]; infinity on overflow."""
    factors = np.full(count, base, dtype=np.float64)
    factors[:1] = 1.0
    with np.errstate(over="ignore"):
        return np.multiply.accumulate(factors)
