"""An engine's statistics: plain numbers and histograms, for a log, a test, or a metrics exporter."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Histogram", "Statistics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)
_TOKENS = (1, 4, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Histogram:
    """Counts values by size.

    bounds  upper bounds of the buckets, ascending; a last bucket takes everything above them
    counts  how many values fell into each bucket (not cumulative); one element longer than `bounds`
    sum     the sum of all values
    """

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds: tuple[float, ...] = tuple(float(bound) for bound in bounds)
        self.counts: list[int] = [0] * (len(self.bounds) + 1)
        self.sum: float = 0.0

    @property
    def count(self) -> int:
        """The number of observed values."""
        return sum(self.counts)

    def observe(self, value: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def quantile(self, share: float) -> float | None:
        """Return the upper bound of a quantile's (0 to 1) bucket; None without values, inf beyond the last bound."""
        total = self.count
        if not total:
            return None
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if seen >= share * total:
                return bound
        return float("inf")

    def as_dict(self) -> dict[str, Any]:
        """Return the histogram as plain values for JSON."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.sum, "count": self.count}


@dataclass
class Statistics:
    """Counters (which only grow), gauges (current values) and histograms (of seconds unless stated otherwise).

    Reading single values needs no lock; `as_dict` returns a consistent snapshot.
    """

    # --- Counters ---
    requests_submitted: int = 0
    requests_rejected: int = 0
    """refused because the queue was full"""
    requests_finished: int = 0
    """ended by the model, a token limit or a stop string"""
    requests_cancelled: int = 0
    requests_timed_out: int = 0
    requests_failed: int = 0
    """ended by an error"""
    prompt_tokens: int = 0
    """of prompts, computed or taken from the prefix cache"""
    cached_tokens: int = 0
    """of prompts, taken from the prefix cache"""
    generated_tokens: int = 0
    drafted_tokens: int = 0
    """proposed by speculative decoding"""
    accepted_tokens: int = 0
    """drafted tokens that became part of a text"""
    steps: int = 0
    step_tokens: int = 0
    """tokens computed by steps: prompts, decoded tokens, and recomputed ones"""
    preemptions: int = 0
    """how often keys and values of a request were discarded for other requests and recomputed later"""
    prefix_lookups: int = 0
    prefix_hits: int = 0
    prefix_evictions: int = 0
    prefix_disk_hits: int = 0
    prefix_disk_writes: int = 0
    prefix_disk_errors: int = 0

    # --- Gauges ---
    queued: int = 0
    running: int = 0
    kv_bytes: int = 0
    """bytes of keys and values of all sessions and of the prefix cache, shared pages counted once"""
    kv_bytes_limit: int = 0
    prefix_entries: int = 0
    prefix_disk_bytes: int = 0

    # --- Histograms ---
    queue_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    first_token_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    """from the submission to the first token"""
    between_tokens_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    request_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    """from the submission to the end"""
    step_seconds: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    batch_sessions: Histogram = field(default_factory=lambda: Histogram(_COUNTS))
    """sessions in a step"""
    batch_tokens: Histogram = field(default_factory=lambda: Histogram(_TOKENS))
    """tokens in a step"""

    def __post_init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()

    def add(self, **counts: float) -> None:
        """Add to counters, by name."""
        with self.lock:
            for name, count in counts.items():
                setattr(self, name, getattr(self, name) + count)

    def as_dict(self) -> dict[str, Any]:
        """Return all values by name, histograms as dicts: plain values for JSON."""
        with self.lock:
            return {
                name: value.as_dict() if isinstance(value, Histogram) else value
                for name, value in vars(self).items()
                if name != "lock"
            }
