"""Accounting for a step: who is charged for it, and what is recorded about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.scheduler.plan import SHORT
from llamacpu.scheduler.shares import ANSWER_WEIGHT, PROMPT_WEIGHT

if TYPE_CHECKING:
    from llamacpu.drafting.cost import StepCost
    from llamacpu.scheduler.jobs import Part
    from llamacpu.scheduler.pace import Pace
    from llamacpu.scheduler.shares import Shares
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["charge", "note"]


def charge(parts: Sequence[Part], shares: Shares) -> None:
    """Charge each client for its parts of a step."""
    for part in parts:
        short = len(part.job.ids) <= SHORT
        shares.charge(part.job.slot.client, len(part.ids), ANSWER_WEIGHT if short else PROMPT_WEIGHT)


def note(parts: Sequence[Part], seconds: float, pace: Pace, cost: StepCost, statistics: Statistics) -> int | None:
    """Record how long a step with these parts took; return its number of tokens, None if some were of prompts."""
    tokens = sum(len(part.ids) for part in parts)
    decoding = sum(len(part.ids) for part in parts if len(part.job.ids) <= SHORT)
    pace.note(decoding, tokens - decoding, seconds)
    if decoding == tokens:
        cost.note(tokens, seconds)
    with statistics.lock:
        statistics.steps += 1
        statistics.step_tokens += tokens
        statistics.step_seconds.observe(seconds)
        statistics.batch_sessions.observe(len(parts))
        statistics.batch_tokens.observe(tokens)
    return tokens if decoding == tokens else None
