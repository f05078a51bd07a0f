"""The result of a generation: text, tokens, why it ended, and how long everything took."""

from dataclasses import dataclass, field
from typing import Any, Literal

from llamacpu.sampling import TokenLogProbability

EndedBy = Literal["end_of_text", "stop_string", "criterion", "max_tokens", "context", "cancelled", "timeout"]
"""end_of_text: the model ended; criterion: a stopping criterion returned true; context: the session is full."""

FinishReason = Literal["stop", "length", "cancelled", "timeout"]

_FINISH_REASONS: dict[EndedBy, FinishReason] = {
    "end_of_text": "stop",
    "stop_string": "stop",
    "criterion": "stop",
    "max_tokens": "length",
    "context": "length",
    "cancelled": "cancelled",
    "timeout": "timeout",
}


@dataclass(frozen=True)
class GeneratedToken:
    """One token, as passed to `on_token` when it is chosen.

    text: the text that became certain with it; may be empty (half a character, a possible stop string) or belong to
    earlier tokens too. seconds: time since the generation began.
    """

    id: int
    text: str
    seconds: float
    log_probability: TokenLogProbability | None = None


@dataclass(frozen=True)
class Timings:
    """Seconds of work, excluding the time that the caller took between the pieces.

    prompt_tokens: tokens of the prompt that were computed (cached ones are not).
    steps, generate_seconds: number and time of the passes through the model after the prompt; the first token needs
    none.
    token_seconds: wall-clock time from the beginning to the choice of each token; tokens that one pass confirmed have
    nearly the same time.
    drafted_tokens, accepted_tokens: how many tokens were drafted, and how many of them became part of the text.
    draft_seconds: the part of `generate_seconds` spent on drafting.
    """

    prompt_tokens: int = 0
    prompt_seconds: float = 0.0
    steps: int = 0
    generate_seconds: float = 0.0
    token_seconds: tuple[float, ...] = ()
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_seconds: float = 0.0

    @property
    def prompt_tokens_per_second(self) -> float | None:
        """Computed prompt tokens per second; None if none were computed."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_tokens and self.prompt_seconds > 0 else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens per second after the first one, whose cost is part of the prompt; None if there are none."""
        tokens = self.steps + self.accepted_tokens
        return tokens / self.generate_seconds if tokens and self.generate_seconds > 0 else None

    @property
    def first_token_seconds(self) -> float | None:
        """Seconds until the first token was chosen; None if there is none."""
        return self.token_seconds[0] if self.token_seconds else None

    def as_dict(self) -> dict[str, Any]:
        """The timings as plain values, for JSON."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "prompt_seconds": self.prompt_seconds,
            "prompt_tokens_per_second": self.prompt_tokens_per_second,
            "steps": self.steps,
            "generate_seconds": self.generate_seconds,
            "tokens_per_second": self.tokens_per_second,
            "first_token_seconds": self.first_token_seconds,
            "drafted_tokens": self.drafted_tokens,
            "accepted_tokens": self.accepted_tokens,
            "draft_seconds": self.draft_seconds,
            "token_seconds": list(self.token_seconds),
        }


@dataclass(frozen=True)
class GenerationResult:
    """The result of a generation that has ended.

    text: everything that was yielded. tokens: the chosen ids without the end-of-text token, which is `end_token`.
    prompt_tokens: length of the prompt as used; cached_tokens: how many of its tokens the session already held.
    dropped_tokens: how many tokens were left out because the context was full (only with overflow="truncate" or
    "shift"); shifts: how often the context was shifted. seed: the seed that gives the same text again.
    """

    text: str
    tokens: tuple[int, ...]
    ended_by: EndedBy
    prompt_tokens: int
    cached_tokens: int
    seed: int
    timings: Timings = field(default_factory=Timings)
    stop_string: str | None = None
    end_token: int | None = None
    dropped_tokens: int = 0
    shifts: int = 0
    log_probabilities: tuple[TokenLogProbability, ...] | None = None

    @property
    def finish_reason(self) -> FinishReason:
        """`ended_by` in the terms of the OpenAI API, plus "cancelled" and "timeout"."""
        return _FINISH_REASONS[self.ended_by]

    @property
    def truncated(self) -> bool:
        """Whether tokens were left out because the context was full."""
        return self.dropped_tokens > 0

    def as_dict(self) -> dict[str, Any]:
        """The result as plain values, for JSON."""
        return {
            "text": self.text,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "generated_tokens": len(self.tokens),
            "tokens": list(self.tokens),
            "finish_reason": self.finish_reason,
            "ended_by": self.ended_by,
            "stop_string": self.stop_string,
            "dropped_tokens": self.dropped_tokens,
            "seed": self.seed,
            "timings": self.timings.as_dict(),
        }
