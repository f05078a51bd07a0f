"""Choosing a type for each tensor so that the expected loss is smallest within a size."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Choice", "cheapest_choices"]


class Choice(NamedTuple):
    """One type that a tensor could get."""

    format: str
    nbytes: int
    loss: float


def cheapest_choices(choices: Mapping[str, list[Choice]], budget: int) -> dict[str, Choice]:
    """The choice for each tensor with the smallest total loss of those whose sizes add up to at most `budget`.

    From the smallest types on, the step that saves the most loss per byte is taken, along the lower convex hull of each
    tensor's choices: the greedy solution of the multiple-choice knapsack problem (Sinha and Zoltners, 1979), which
    misses the best one by less than one step of one tensor.

    Raises ValueError if even the smallest choices are larger than the budget.
    """
    hulls = {name: _hull(options) for name, options in choices.items()}
    taken = dict.fromkeys(hulls, 0)
    left = budget - sum(hull[0].nbytes for hull in hulls.values())
    if left < 0:
        raise ValueError(f"the smallest types take {budget - left:,} bytes, and {budget:,} are allowed")
    steps = [step for name, hull in hulls.items() if (step := _step(name, hull, 0)) is not None]
    heapq.heapify(steps)
    while steps:
        _, name, place = heapq.heappop(steps)
        hull = hulls[name]
        size = hull[place].nbytes - hull[taken[name]].nbytes
        if size <= left:
            left -= size
            taken[name] = place
            step = _step(name, hull, place)
        else:
            # A smaller part of the step may still fit: the next point of the hull does not.
            step = None
        if step is not None:
            heapq.heappush(steps, step)
    return {name: hull[taken[name]] for name, hull in hulls.items()}


def _step(name: str, hull: list[Choice], place: int) -> tuple[float, str, int] | None:
    """The step to the next point of a hull, with the loss that it adds (a negative number) for each byte."""
    if place + 1 >= len(hull):
        return None
    here, there = hull[place], hull[place + 1]
    return (there.loss - here.loss) / (there.nbytes - here.nbytes), name, place + 1


def _hull(options: list[Choice]) -> list[Choice]:
    """The lower convex hull: from the smallest choice to the least loss, each step saving less per byte."""
    hull: list[Choice] = []
    for option in sorted(options, key=lambda option: (option.nbytes, option.loss)):
        if hull and (option.loss >= hull[-1].loss or option.nbytes == hull[-1].nbytes):
            continue
        while len(hull) > 1 and _slope(hull[-2], option) <= _slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(option)
    return hull


def _slope(first: Choice, second: Choice) -> float:
    return (second.loss - first.loss) / (second.nbytes - first.nbytes)
