"""What Prometheus reads of a server: histograms of times, counters of tokens, gauges of what runs."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from llamacpu.answers import Answer

__all__ = ["Metrics"]

_TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The numbers of one server; several in a process do not meet."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "llamacpu_http_requests", "Requests by path of the API and status", ["path", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "llamacpu_http_request_seconds", "From the head of a request to the end of its response", ["path"],
            buckets=_TIMES, registry=registry,
        )  # fmt: skip
        self.first_token_seconds = Histogram(
            "llamacpu_time_to_first_token_seconds", "From the request to its first token", buckets=_TIMES,
            registry=registry,
        )  # fmt: skip
        self.token_gap_seconds = Histogram(
            "llamacpu_time_between_tokens_seconds", "Between two tokens of an answer", buckets=_GAPS, registry=registry
        )
        self.queue_seconds = Histogram(
            "llamacpu_queue_seconds", "How long a request waited for a place", buckets=_TIMES, registry=registry
        )
        self.prompt_tokens = Counter("llamacpu_prompt_tokens", "Tokens of prompts", registry=registry)
        self.cached_tokens = Counter(
            "llamacpu_prompt_cached_tokens", "Tokens of prompts that were not computed again", registry=registry
        )
        self.cache_hits = Counter(
            "llamacpu_prefix_cache_hits", "Prompts of which a beginning was in the prefix cache", registry=registry
        )
        self.cache_misses = Counter(
            "llamacpu_prefix_cache_misses", "Prompts of which nothing was in the prefix cache", registry=registry
        )
        self.generated_tokens = Counter("llamacpu_generated_tokens", "Tokens of answers", registry=registry)
        self.drafted_tokens = Counter("llamacpu_drafted_tokens", "Proposed tokens", registry=registry)
        self.accepted_tokens = Counter("llamacpu_accepted_tokens", "Proposed tokens that were right", registry=registry)
        self.answers = Counter("llamacpu_answers", "Answers by what ended them", ["reason"], registry=registry)
        self.refused = Counter("llamacpu_queue_refused", "Requests that found no place", registry=registry)
        self.running = Gauge("llamacpu_requests_running", "Answers that are being computed", registry=registry)
        self.waiting = Gauge("llamacpu_requests_waiting", "Requests that wait for a place", registry=registry)
        self.loaded = Gauge("llamacpu_models_loaded", "Models in memory", registry=registry)

    def count(self, answer: Answer, waited: float) -> None:
        """Note a finished answer; waited: seconds before it began. From any thread."""
        result = answer.result
        self.prompt_tokens.inc(result.prompt_tokens)
        self.cached_tokens.inc(result.cached_tokens)
        (self.cache_hits if result.cached_tokens else self.cache_misses).inc()
        self.generated_tokens.inc(len(result.tokens))
        self.drafted_tokens.inc(result.timings.drafted_tokens)
        self.accepted_tokens.inc(result.timings.accepted_tokens)
        self.answers.labels(answer.finish_reason).inc()
        times = result.timings.token_seconds
        if times:
            self.first_token_seconds.observe(waited + times[0])
        for before, after in pairwise(times):
            self.token_gap_seconds.observe(max(after - before, 0.0))

    def text(self, running: int, waiting: int, loaded: int) -> bytes:
        """Everything, in the format that Prometheus reads."""
        self.running.set(running)
        self.waiting.set(waiting)
        self.loaded.set(loaded)
        return generate_latest(self.registry)
