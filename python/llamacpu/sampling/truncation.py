"""Truncation: which candidates remain. Each function takes candidates and returns candidates, without side effects.

`min_keep` is the smallest number of candidates that a step leaves. Probabilities are taken over the candidates
passed to the step, so earlier steps affect them.
"""

import numpy as np

from llamacpu.sampling.candidates import Candidates, Ids, Probabilities, entropy, probabilities, total_weight, weights
from llamacpu.sampling.functions import log

# The whole vocabulary is not sorted for a handful of tokens: ever longer prefixes are, starting at this length.
_FIRST_PREFIX = 256


def top_n_sigma(candidates: Candidates, sigmas: float) -> Candidates:
    """Keep logits of at least max - sigmas * standard deviation (over the finite ones); negative is off."""
    if sigmas < 0 or len(candidates) <= 1:
        return candidates
    logits = candidates.logits.astype(np.float64)
    finite = logits if np.isfinite(logits.min()) else logits[np.isfinite(logits)]
    return candidates.keep(logits >= finite.max() - sigmas * finite.std())


def top_k(candidates: Candidates, count: int) -> Candidates:
    """Keep the `count` largest logits, in descending order; 0 or less keeps all candidates as they are."""
    return candidates if count <= 0 else candidates.largest(count)


def typical(candidates: Candidates, mass: float, min_keep: int) -> Candidates:
    """Keep the tokens whose surprise is closest to the entropy until their probability exceeds `mass`; 1 is off.

    The result is ordered by that closeness.
    """
    if mass >= 1:
        return candidates
    chances = probabilities(candidates)
    distance = np.abs(-log(chances) - entropy(chances))
    length = max(min_keep, _FIRST_PREFIX)
    while True:
        order = _smallest(distance, length)
        enough = int(np.searchsorted(np.cumsum(chances[order]), mass, side="right")) + 1
        if enough <= len(order) or length >= len(candidates):
            return candidates.take(order[: max(enough, min_keep, 1)], ordered=False)
        length *= 8


def _smallest(values: Probabilities, count: int) -> Ids:
    """The positions of at least the `count` smallest values, in ascending order; equal values keep their order."""
    if count >= len(values):
        return np.argsort(values, kind="stable")
    positions = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    return positions[np.argsort(values[positions], kind="stable")]


def top_p(candidates: Candidates, mass: float, min_keep: int) -> Candidates:
    """Keep the fewest most likely tokens whose probability reaches `mass`, including the crossing one; 1 is off."""
    if mass >= 1:
        return candidates
    needed = mass * total_weight(candidates)
    length = max(min_keep, _FIRST_PREFIX)
    while True:
        front = candidates.largest(length)
        reached = np.cumsum(weights(front))
        enough = int(np.searchsorted(reached, needed)) + 1
        if enough <= len(front) or length >= len(candidates):
            return front.first(max(enough, min_keep, 1))
        length *= 8


def min_p(candidates: Candidates, fraction: float, min_keep: int) -> Candidates:
    """Keep logits of at least max + ln(fraction); if fewer than min_keep pass, keep the min_keep largest."""
    if fraction <= 0:
        return candidates
    passing = candidates.logits >= candidates.largest_logit() + log(fraction)
    if int(np.count_nonzero(passing)) < min_keep:
        return candidates.largest(min_keep)
    return candidates.keep(passing)


def xtc(candidates: Candidates, threshold: float, min_keep: int) -> Candidates:
    """Remove every token at or above the threshold except the least likely of them ("exclude top choices").

    Nothing happens if fewer than two qualify or too few would remain. Whether the step acts at all is drawn at
    random by the chain; this function is what happens when it does.
    """
    if len(candidates) < 2:
        return candidates
    ordered = candidates.in_order()
    removed = int(np.count_nonzero(probabilities(ordered) >= threshold)) - 1
    if removed < 1 or len(ordered) - removed < min_keep:
        return candidates
    return ordered.take(np.arange(removed, len(ordered)), ordered=True)
