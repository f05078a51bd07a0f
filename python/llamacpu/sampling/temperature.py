"""Fixed and dynamic temperature."""

import numpy as np

from llamacpu.sampling.candidates import Candidates, entropy, probabilities
from llamacpu.sampling.functions import log, power


def temperature(candidates: Candidates, value: float) -> Candidates:
    """Divide the logits by the temperature; 0 or less keeps only the most likely token (lowest id on ties)."""
    if value <= 0:
        return candidates.largest(1)
    with np.errstate(all="ignore"):
        divided = candidates.logits / np.float32(value)
    if not np.isfinite(divided.max()):
        # A temperature so small that the quotient overflows is treated as the limit 0.
        return candidates.largest(1)
    return candidates.with_logits(divided, candidates.ordered)


def dynamic_temperature(candidates: Candidates, value: float, spread: float, exponent: float) -> Candidates:
    """Apply a temperature between value - spread (not below 0) and value + spread that grows with the entropy.

    T = low + (high - low) * (H / ln n)^exponent over n candidates; `spread` 0 gives the fixed temperature.
    """
    if spread <= 0:
        return temperature(candidates, value)
    if len(candidates) <= 1:
        return candidates
    low, high = max(0.0, value - spread), value + spread
    evenness = entropy(probabilities(candidates)) / log(float(len(candidates)))
    return temperature(candidates, low + (high - low) * power(min(evenness, 1.0), exponent))
