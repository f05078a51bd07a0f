"""What goes into the next step: every decoded token that is due, and as much of the prompts as the pace allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llamacpu.multimodal.sequences import whole_until
from llamacpu.scheduler.jobs import Job, Part
from llamacpu.scheduler.pace import LEAST_CHUNK, Pace
from llamacpu.scheduler.shares import Shares

__all__ = ["MOST_ROWS", "plan", "wanted_logits"]

# Jobs of at most this many tokens are decoded tokens, with or without a draft: they are never split.
SHORT = LEAST_CHUNK
# The most rows of logits that one step returns if a job wants all of its rows.
MOST_ROWS = 64


def plan(jobs: Sequence[Job], shares: Shares, pace: Pace, most: int, streams: int = 0) -> list[Part]:
    """Choose the parts of the next step from `jobs`, which are in order of arrival; at most `most` take part.

    streams: how many running streams are late for this step and will soon ask for the next one.

    Prompts are ordered by how much their clients were served so far, those of one client by arrival.
    """
    short = [job for job in jobs if job.left <= SHORT][:most]
    parts = [_part(job, job.left) for job in short]
    prompts = [job for job in jobs if job.left > SHORT]
    if prompts:
        decoding = sum(job.left for job in short) + streams
        room = pace.room(decoding)
        prompts.sort(key=lambda job: shares.served(job.slot.client))
        for job in prompts[: max(most - len(parts), 1)]:
            if room < LEAST_CHUNK:
                break
            # A small remainder would need a step of its own.
            count = job.left if job.left <= room + room // 4 else room
            count = min(count, MOST_ROWS) if job.logits == "all" else count
            parts.append(_part(job, count))
            room -= len(parts[-1].ids)
    return parts


def _part(job: Job, count: int) -> Part:
    """The next `count` tokens of a job, or those up to the first position at which its session shall stop."""
    position = job.slot.native.position if job.slot.stops else 0
    count = min([count, *(stop - position for stop in job.slot.stops if stop > position)])
    if count == len(job.ids):
        return Part(job, job.ids)
    return Part(job, job.ids[job.done : whole_until(job.ids, job.done + count)])


def wanted_logits(parts: Sequence[Part]) -> Any:
    """The `logits` of a step over these parts: "all" if any job wants all of its rows, else "last" if a job ends."""
    if any(part.job.logits == "all" for part in parts):
        return "all"
    ends = any(part.job.logits == "last" and part.job.left == len(part.ids) for part in parts)
    return "last" if ends else "none"
