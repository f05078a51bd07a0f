"""Steps against repetition: penalties for recent tokens, and DRY for recent sequences."""

from collections.abc import Callable, Sequence

import numpy as np

from llamacpu.sampling.candidates import Candidates, Ids, Probabilities
from llamacpu.sampling.functions import log, powers

# From this many tokens on, they are counted in an array as long as the largest id instead of being sorted.
_MANY = 2000
_LARGEST_VOCABULARY = 10_000_000
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def recent(history: Sequence[int] | Ids, last: int) -> Ids:
    """The last tokens of the history as int64[n]: at most `last` of them, or all for -1."""
    return np.asarray(history if last < 0 else history[max(0, len(history) - last) :], dtype=np.int64)


def penalties(candidates: Candidates, seen: Ids, repeat: float, frequency: float, presence: float) -> Candidates:
    """Penalize the tokens in `seen`.

    The repeat penalty divides positive logits and multiplies the rest (Keskar et al., arXiv:1909.05858); then
    count * frequency + presence is subtracted.
    """
    if len(seen) == 0 or (repeat == 1 and frequency == 0 and presence == 0):
        return candidates
    tokens, counts = _counted(seen)
    positions, found = candidates.positions_of(tokens)
    values = candidates.logits[positions].astype(np.float64)
    values = np.where(values <= 0, values * repeat, values / repeat).clip(max=_LARGEST_FLOAT)
    amounts = counts[found].astype(np.float64) * frequency + presence
    return _lowered(candidates, positions, values, amounts)


def _counted(tokens: Ids) -> tuple[Ids, Ids]:
    """The distinct tokens, and how often each occurs."""
    if len(tokens) < _MANY or int(tokens.min()) < 0 or int(tokens.max()) > _LARGEST_VOCABULARY:
        return np.unique(tokens, return_counts=True)
    counts = np.bincount(tokens)
    distinct = np.flatnonzero(counts)
    return distinct, counts[distinct]


def _lowered(candidates: Candidates, positions: Ids, values: Probabilities, amounts: Probabilities) -> Candidates:
    """The candidates with the logits `values - amounts` at some positions, clamped to the float32 range."""
    forbidden = values == -np.inf
    lowered = (values - amounts.clip(-_LARGEST_FLOAT, _LARGEST_FLOAT)).clip(-_LARGEST_FLOAT, _LARGEST_FLOAT)
    lowered[forbidden] = -np.inf
    logits = candidates.logits.copy()
    logits[positions] = lowered.astype(np.float32)
    return candidates.with_logits(logits)


class Breakers:
    """Finds the texts that a repeated sequence must not cross.

    piece: token id -> its text. One instance serves one tokenizer: each text is looked up once.
    """

    def __init__(self, breakers: Sequence[str], piece: Callable[[int], str] | None) -> None:
        self._breakers = tuple(breakers) if piece is not None else ()
        self._longest = max((len(breaker) for breaker in self._breakers), default=0)
        self._piece = piece
        self._pieces: dict[int, str] = {}

    def text(self, token: int) -> str:
        """The text of a token."""
        text = self._pieces.get(token)
        if text is None:
            text = self._piece(token) if self._piece is not None else ""
            self._pieces[token] = text
        return text

    def breaks(self, token: int) -> bool:
        """Whether the token by itself contains a breaker; such a token is never penalized."""
        text = self.text(token)
        return any(breaker in text for breaker in self._breakers)

    def tokens_after_last(self, tokens: Ids) -> int:
        """The number of tokens that come entirely after the last breaker (all of them if there is none)."""
        if not self._breakers:
            return len(tokens)
        tail = ""  # the start of the text that follows, for breakers that span tokens
        for back, token in enumerate(tokens[::-1].tolist()):
            text = self.text(token)
            ends = [self._end(text, tail, breaker) for breaker in self._breakers]
            overhang = max(ends)
            if overhang >= 0:
                return self._after_overhang(tokens, len(tokens) - back, overhang)
            tail = (text + tail)[: self._longest]
        return len(tokens)

    @staticmethod
    def _end(text: str, tail: str, breaker: str) -> int:
        """How far the last occurrence that begins inside `text` extends beyond it (0: not at all, -1: none found)."""
        start = (text + tail).rfind(breaker, 0, len(text) + len(breaker) - 1)
        return -1 if start < 0 else max(0, start + len(breaker) - len(text))

    def _after_overhang(self, tokens: Ids, first: int, overhang: int) -> int:
        while overhang > 0 and first < len(tokens):
            overhang -= len(self.text(int(tokens[first])))
            first += 1
        return len(tokens) - first


def repeated_lengths(tokens: Ids, limit: int, shortest: int) -> dict[int, int]:
    """Map each token to the longest run that ends the text and preceded that token earlier.

    Runs have at least `shortest` and at most `limit` tokens.
    """
    count = len(tokens)
    longest: dict[int, int] = {}
    ends = np.arange(count - 1)  # last positions of the runs that are compared with the end of the text
    length = 0
    while length < limit and len(ends):
        ends = ends[ends >= length]
        ends = ends[tokens[ends - length] == tokens[count - 1 - length]]
        length += 1
        if length >= max(shortest, 1):
            longest.update(dict.fromkeys(tokens[ends + 1].tolist(), length))
    if shortest <= 0:
        for token in tokens[1:].tolist():
            longest.setdefault(token, 0)
    return longest


def dry(
    candidates: Candidates, seen: Ids, multiplier: float, base: float, allowed: int, breakers: Breakers
) -> Candidates:
    """DRY ("don't repeat yourself"): penalize tokens that would extend a run already seen.

    The logit of such a token decreases by multiplier * base^(length - allowed), where length is that of the longest
    such run of at least `allowed` tokens. Breaker tokens are never penalized; base below 1 or multiplier 0 is off.
    """
    if multiplier <= 0 or base < 1 or len(seen) <= allowed:
        return candidates
    # Beyond this exponent the penalty leaves the float32 range, so longer runs need not be distinguished.
    most = int(log(_LARGEST_FLOAT) / log(base)) if base > 1.000001 else len(seen)
    limit = breakers.tokens_after_last(seen[max(0, len(seen) - allowed - most) :])
    if limit < allowed:
        return candidates
    longest = repeated_lengths(seen, limit, allowed)
    tokens = np.array([token for token in longest if not breakers.breaks(token)], dtype=np.int64)
    if len(tokens) == 0:
        return candidates
    positions, found = candidates.positions_of(tokens)
    lengths = np.array([longest[int(token)] for token in tokens[found]], dtype=np.int64)
    values = candidates.logits[positions].astype(np.float64)
    amounts = multiplier * powers(base, int(lengths.max(initial=allowed)) - allowed + 1)[lengths - allowed]
    return _lowered(candidates, positions, values, amounts)
