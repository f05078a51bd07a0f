"""The learning rate of every step."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Schedule", "learning_rate", "warm_up_steps"]

Schedule = Literal["cosine", "linear", "constant"]


def warm_up_steps(warm_up: float, steps: int) -> int:
    """The number of steps of the warm-up: a share of all steps below 1, a number of steps from 1 on."""
    return min(math.ceil(warm_up * steps) if warm_up < 1 else int(warm_up), steps)


def learning_rate(highest: float, schedule: Schedule, step: int, steps: int, warm_up: int) -> float:
    """The learning rate of a step, counted from 0.

    It rises linearly for `warm_up` steps, reaches `highest` in the last of them, and then falls to 0 after the last
    step: along half a cosine (Loshchilov and Hutter 2017, without restarts) or a line; or it stays.
    """
    if step < warm_up:
        return highest * (step + 1) / warm_up
    done = (step - warm_up) / max(steps - warm_up, 1)
    if schedule == "cosine":
        return highest * 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "linear":
        return highest * (1.0 - done)
    return highest
