"""The progress of a running generation, from which its result is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from llamacpu.generation.result import EndedBy, GenerationResult, Timings

if TYPE_CHECKING:
    from llamacpu.generation.request import Request
    from llamacpu.sampling import TokenLogProbability


@dataclass
class Progress:
    """Counts and times of a generation so far."""

    started: float = field(default_factory=perf_counter)
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    generate_seconds: float = 0.0
    steps: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    draft_seconds: float = 0.0
    token_seconds: list[float] = field(default_factory=list)
    log_probabilities: list[TokenLogProbability] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    end_token: int | None = None
    shifted_tokens: int = 0
    shifts: int = 0
    ended_by: EndedBy | None = None

    def result(self, request: Request, seed: int, stop_string: str | None) -> GenerationResult:
        """The result of the generation. Raises RuntimeError before its end."""
        if self.ended_by is None:
            raise RuntimeError("the generation has not ended yet; iterate to its end or close it first")
        timings = Timings(
            prompt_tokens=len(request.prompt) - self.cached_tokens if self.prompt_seconds else 0,
            prompt_seconds=self.prompt_seconds,
            steps=self.steps,
            generate_seconds=self.generate_seconds,
            token_seconds=tuple(self.token_seconds),
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
            draft_seconds=self.draft_seconds,
        )
        return GenerationResult(
            text="".join(self.text),
            tokens=tuple(self.tokens),
            ended_by=self.ended_by,
            prompt_tokens=len(request.prompt),
            cached_tokens=self.cached_tokens,
            seed=seed,
            timings=timings,
            stop_string=stop_string,
            end_token=self.end_token,
            dropped_tokens=request.dropped_tokens + self.shifted_tokens,
            shifts=self.shifts,
            log_probabilities=tuple(self.log_probabilities) if request.log_probabilities is not None else None,
        )
