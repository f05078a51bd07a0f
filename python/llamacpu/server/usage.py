"""Token counts and timings in responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamacpu.generation import GenerationResult
    from llamacpu.scheduler import PromptReport

__all__ = ["finish_reason", "progress_of", "timings_of", "usage_of"]


def usage_of(results: Sequence[GenerationResult], reasoning: int = 0) -> dict[str, Any]:
    """Return the token counts of one prompt and its answers, as the OpenAI API reports them."""
    prompt = results[0].prompt_tokens if results else 0
    answer = sum(len(result.tokens) for result in results)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": results[0].cached_tokens if results else 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def timings_of(result: GenerationResult) -> dict[str, Any]:
    """Return the timings of an answer under llama-server's names, in milliseconds and tokens per second."""
    timings = result.timings
    tokens = len(result.tokens)
    prompt_ms, predicted_ms = timings.prompt_seconds * 1000, timings.generate_seconds * 1000
    return {
        "cache_n": result.cached_tokens,
        "prompt_n": timings.prompt_tokens,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_ms / max(timings.prompt_tokens, 1),
        "prompt_per_second": timings.prompt_tokens_per_second or 0.0,
        "predicted_n": tokens,
        "predicted_ms": predicted_ms,
        "predicted_per_token_ms": predicted_ms / max(tokens, 1),
        "predicted_per_second": timings.tokens_per_second or 0.0,
        "draft_n": timings.drafted_tokens,
        "draft_n_accepted": timings.accepted_tokens,
    }


def progress_of(report: PromptReport) -> dict[str, Any]:
    """Return how much of a prompt is processed under llama-server's names; `pictures` is ours, while any is encoded."""
    found: dict[str, Any] = {
        "total": report.total,
        "cache": report.cached,
        "processed": report.processed,
        "time_ms": int(report.seconds * 1000),
    }
    if report.pictures is not None:
        encoded, pictures = report.pictures
        found["pictures"] = {"total": pictures, "encoded": encoded}
    return found


def finish_reason(reason: str) -> str:
    """Return why an answer ended, in terms that clients know: cancelled and timed-out answers report "length"."""
    return "length" if reason in ("cancelled", "timeout") else reason
