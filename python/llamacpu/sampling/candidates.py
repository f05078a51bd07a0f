"""The tokens still in play, and quantities computed from their logits."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llamacpu import _native
from llamacpu.errors import ModelError
from llamacpu.sampling.functions import Numbers, exp, log

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Probabilities = Numbers

# Up to _FEW candidates, or 1/_SELECT_PART of the vocabulary, selecting the largest is faster than sorting everything.
_FEW = 256
_SELECT_PART = 16
_LARGE = 4096


@dataclass(frozen=True)
class Candidates:
    """Tokens and their logits; no step changes the arrays in place.

    logits: float32[n], none of them NaN or +inf.
    ids: int64[n], or None where position i is token i (the untouched vocabulary).
    ordered: whether the logits are in descending order; equal logits are then in ascending order of id.
    """

    logits: Logits
    ids: Ids | None = None
    ordered: bool = False

    def __len__(self) -> int:
        """The number of tokens in play."""
        return len(self.logits)

    def take(self, positions: Ids, ordered: bool) -> "Candidates":
        """The candidates at these positions, in this order."""
        ids = positions if self.ids is None else self.ids[positions]
        return Candidates(self.logits[positions], ids, ordered)

    def keep(self, mask: npt.NDArray[np.bool_]) -> "Candidates":
        """The candidates where the mask (bool[n]) is true, in the current order."""
        return self.take(np.flatnonzero(mask), self.ordered)

    def first(self, count: int) -> "Candidates":
        """The first `count` candidates in the current order."""
        if count >= len(self):
            return self
        ids = np.arange(count) if self.ids is None else self.ids[:count]
        return Candidates(self.logits[:count], ids, self.ordered)

    def largest(self, count: int) -> "Candidates":
        """The `count` candidates with the largest logits, in descending order; ties go to the lower id."""
        count = min(count, len(self))
        if self.ordered:
            return self.first(count)
        if self.ids is None and count <= max(_FEW, len(self) // _SELECT_PART):
            ids, logits = _native.top_k(self.logits, count)
            return Candidates(logits, ids, ordered=True)
        if self.ids is None:
            positions = np.argsort(-self.logits, kind="stable")[:count]
        else:
            positions = np.lexsort((self.ids, -self.logits))[:count]
        return self.take(positions, ordered=True)

    def in_order(self) -> "Candidates":
        """All candidates, in descending order of logits."""
        return self if self.ordered else self.largest(len(self))

    def with_logits(self, logits: Logits, ordered: bool = False) -> "Candidates":
        """The same tokens with other logits."""
        return Candidates(logits, self.ids, ordered)

    def positions_of(self, tokens: Ids) -> tuple[Ids, Ids]:
        """The positions of these distinct tokens, as (positions, indices into `tokens`); absent tokens are left out."""
        if self.ids is None:
            found = np.flatnonzero((tokens >= 0) & (tokens < len(self)))
            return tokens[found], found
        _, positions, found = np.intersect1d(self.ids, tokens, assume_unique=True, return_indices=True)
        return positions, found

    def token(self, position: int) -> int:
        """The token id at a position."""
        return position if self.ids is None else int(self.ids[position])

    def largest_logit(self) -> float:
        """The largest logit."""
        return float(self.logits[0] if self.ordered else self.logits.max())


def from_logits(logits: npt.ArrayLike) -> Candidates:
    """The whole vocabulary as candidates.

    logits: float[vocabulary]. NaN counts as -inf; if any are +inf, only those remain, all equally likely.
    Raises ValueError for logits that are not one non-empty row, ModelError if no token can be chosen at all.
    """
    values = np.ascontiguousarray(logits, dtype=np.float32)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"logits have the shape {values.shape}; expected one row with a number for each token")
    largest = float(values.max())
    if np.isfinite(largest):
        return Candidates(values)
    if np.isnan(largest):
        values = np.where(np.isnan(values), np.float32(-np.inf), values)
        largest = float(values.max())
    if largest == np.inf:
        values = np.where(values == np.inf, np.float32(0), np.float32(-np.inf))
    elif largest == -np.inf:
        raise ModelError(
            f"none of the {values.size} tokens can be chosen: every logit is NaN or -inf; "
            "expected a finite one (is the model file damaged, or every token forbidden?)"
        )
    return Candidates(values)


def weights(candidates: Candidates) -> Probabilities:
    """The unnormalized probabilities of the candidates, float64[n] in their order; the largest weight is 1."""
    return exp(candidates.logits.astype(np.float64) - candidates.largest_logit())


def probabilities(candidates: Candidates) -> Probabilities:
    """Softmax over the candidates, float64[n] in their order (the largest logit is subtracted first)."""
    factors = weights(candidates)
    return factors / factors.sum()  # type: ignore[no-any-return]


def total_weight(candidates: Candidates) -> float:
    """The sum of `weights`. For a large vocabulary it is computed natively, with a relative error of about 1e-6."""
    if (
        candidates.ids is None
        and len(candidates) > _LARGE
        and (found := _native.distribution(candidates.logits)) is not None
    ):
        return exp(found[0] - candidates.largest_logit())
    return float(weights(candidates).sum())


def entropy(chances: Probabilities) -> float:
    """Shannon entropy in nats; tokens with probability 0 contribute nothing."""
    positive = chances[chances > 0]
    return max(0.0, float(-(positive * log(positive)).sum()))
