"""Prometheus metrics of a server: histograms of times, counters of tokens, gauges of running work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from llamacpu.scheduler import Statistics

__all__ = ["Metrics"]

_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

# Field of `Statistics` -> name and description of the metric.
_COUNTERS = {
    "requests_submitted": ("requests", "Requests received"),
    "requests_rejected": ("requests_rejected", "Requests rejected because the queue was full"),
    "requests_finished": ("requests_finished", "Requests that ended by the model, a limit or a stop string"),
    "requests_cancelled": ("requests_cancelled", "Requests that were cancelled"),
    "requests_timed_out": ("requests_timed_out", "Requests that timed out"),
    "requests_failed": ("requests_failed", "Requests that failed with an error"),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens, computed or from the prefix cache"),
    "cached_tokens": ("prompt_cached_tokens", "Prompt tokens from the prefix cache"),
    "generated_tokens": ("generated_tokens", "Generated tokens"),
    "steps": ("steps", "Passes through the model"),
    "step_tokens": ("step_tokens", "Tokens processed in passes through the model"),
    "preemptions": ("preemptions", "Requests preempted: their KV cache was dropped and computed again"),
    "prefix_lookups": ("prefix_cache_lookups", "Prefix cache lookups"),
    "prefix_hits": ("prefix_cache_hits", "Prefix cache hits"),
    "prefix_evictions": ("prefix_cache_evictions", "Prefix cache evictions"),
    "prefix_disk_hits": ("prefix_cache_disk_hits", "Prefix cache entries read from disk"),
}
_GAUGES = {
    "queued": ("requests_waiting", "Requests in the queue"),
    "running": ("requests_running", "Requests being processed"),
    "kv_bytes": ("kv_bytes", "KV cache size in bytes"),
    "kv_bytes_limit": ("kv_bytes_limit", "KV cache limit in bytes"),
    "prefix_entries": ("prefix_cache_entries", "Prefix cache entries"),
    "prefix_disk_bytes": ("prefix_cache_disk_bytes", "Prefix cache size on disk in bytes"),
}
_HISTOGRAMS = {
    "first_token_seconds": ("time_to_first_token_seconds", "Time from the request to its first token"),
    "between_tokens_seconds": ("time_between_tokens_seconds", "Time between two tokens of an answer"),
    "queue_seconds": ("queue_seconds", "Time in the queue"),
    "request_seconds": ("request_seconds", "Time from the request to the end of its answer"),
    "step_seconds": ("step_seconds", "Time of a pass through the model"),
    "batch_sessions": ("batch_size", "Requests per pass through the model"),
    "batch_tokens": ("batch_tokens", "Tokens per pass through the model"),
}


class Metrics:
    """The metrics of one server; several servers in one process do not share them.

    engines: returns the statistics of the models in memory, by name.
    """

    def __init__(self, engines: Callable[[], Mapping[str, Statistics]]) -> None:
        self.registry: CollectorRegistry = CollectorRegistry()
        self.requests: Counter = Counter(
            "llamacpu_http_requests", "Requests by path of the API and status", ["path", "status"],
            registry=self.registry,
        )  # fmt: skip
        self.request_seconds: Histogram = Histogram(
            "llamacpu_http_request_seconds", "From the head of a request to the end of its response", ["path"],
            buckets=_TIMES, registry=self.registry,
        )  # fmt: skip
        self.registry.register(_Engines(engines))

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        found: bytes = generate_latest(self.registry)
        return found


class _Engines:
    """A collector for the statistics of the engines."""

    def __init__(self, engines: Callable[[], Mapping[str, Statistics]]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Any]:
        """Yield the metric families."""
        engines = {name: statistics.as_dict() for name, statistics in self._engines().items()}
        loaded = GaugeMetricFamily("llamacpu_models_loaded", "Models in memory")
        loaded.add_metric([], len(engines))
        yield loaded
        for table, kind in ((_COUNTERS, CounterMetricFamily), (_GAUGES, GaugeMetricFamily)):
            for field, (name, words) in table.items():
                family = kind(f"llamacpu_{name}", words, labels=["model"])
                for model, numbers in engines.items():
                    family.add_metric([model], numbers[field])
                yield family
        for field, (name, words) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"llamacpu_{name}", words, labels=["model"])
            for model, numbers in engines.items():
                histogram.add_metric([model], _cumulative(numbers[field]), numbers[field]["sum"])
            yield histogram


def _cumulative(histogram: Mapping[str, Any]) -> list[tuple[str, float]]:
    total, found = 0, []
    for bound, count in zip([*map(str, histogram["bounds"]), "+Inf"], histogram["counts"], strict=True):
        total += count
        found.append((bound, float(total)))
    return found
