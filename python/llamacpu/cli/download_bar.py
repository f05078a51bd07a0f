"""Display of a download: the plan before it, and a progress bar while it runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO

from llamacpu.cli.terminal import ProgressBar, tell, write
from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.store.pull import Plan

__all__ = ["DownloadBar", "expected_speed", "lines", "show"]

_PAUSE = 0.1
_WINDOW = 10.0


class DownloadBar(ProgressBar):
    """A bar with the amount downloaded, the rate and the time left, within the width of the terminal."""

    _TEXT = "Downloading"

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._last = 0.0
        self._seen: list[tuple[float, int]] = []

    def __call__(self, done: int, total: int) -> None:
        """Show the progress in bytes; called by several threads, one at a time."""
        now = time.monotonic()
        if not self.on_terminal or (now - self._last < _PAUSE and done < total):
            return
        self._last = now
        self._seen = [*(row for row in self._seen if now - row[0] < _WINDOW), (now, done)]
        write(f"\r{self._line(done, total)}\x1b[K", self._stream, drawn=True)
        self._shown = True

    def _line(self, done: int, total: int) -> str:
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns - 1
        except (OSError, ValueError, AttributeError):
            width = 79
        amounts = self._amounts(done, total)
        room = min(width - len(self._TEXT) - len(amounts) - 4, 40)
        if room < 5:
            return amounts[: max(width, 0)]
        filled = room * done // max(total, 1)
        return f"{self._TEXT} [{'#' * filled}{'-' * (room - filled)}] {amounts}"

    def _amounts(self, done: int, total: int) -> str:
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        text = f"{amount(done)}/{amount(total)}"
        if last - first > 0.5 and after > before:
            rate = (after - before) / (last - first)
            left = int((total - done) / rate)
            text += f" {amount(rate)}/s {left // 60}:{left % 60:02} left"
        return text


def show(plan: Plan) -> None:
    """Print the plan to stderr."""
    for line in lines(plan):
        tell(line)


def lines(plan: Plan) -> list[str]:
    """The plan as lines of text."""
    facts = plan.facts or {}
    size = amount(plan.size_bytes)
    if plan.missing_bytes < plan.size_bytes:
        size += f", {amount(plan.missing_bytes)} of it to download"
    why = " (the best that fits here)" if plan.chosen and plan.others else ""
    found = [f"{plan.name}{why}: {size}; {amount(plan.free_bytes)} of disk are free"]
    if facts.get("runs"):
        free = "" if facts["available_bytes"] is None else f", {amount(facts['available_bytes'])} are free"
        found.append(f"memory: {amount(facts['memory_bytes'])} with {facts['context']:,} tokens of context{free}")
        speed = expected_speed(plan)
        if speed is not None:
            found.append(f"speed to expect: up to {speed:.0f} tokens/s, by the bandwidth of this machine's memory")
    elif facts:
        found.append(f"does not run: {facts['problem']}")
    if plan.chosen and plan.others:
        found.append(f"others: {', '.join(plan.others)} (write one after a colon)")
    return found


def expected_speed(plan: Plan) -> float | None:
    """Tokens per second that the measured memory bandwidth allows.

    None if the header was not read, the model cannot be run or its bytes per token are not known.
    """
    facts = plan.facts
    if facts is None or not facts["runs"] or not facts["token_bytes"]:
        return None
    from llamacpu.engine.machine import memory_bandwidth

    return memory_bandwidth(1 << 28) * 1e9 / float(facts["token_bytes"])
