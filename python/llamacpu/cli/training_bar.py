"""The progress bar of a training."""

from __future__ import annotations

import time
from typing import TextIO

from llamacpu.cli.terminal import ProgressBar, write
from llamacpu.tools.train import TrainingProgress

__all__ = ["ReadingBar", "TrainingBar", "duration"]

_PAUSE = 0.1
_UNITS = 1000


class TrainingBar(ProgressBar):
    """A bar with the step, the loss, the speed and the time left."""

    _TEXT = "Training"

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._last = 0.0
        self._progress: TrainingProgress | None = None

    def update(self, progress: TrainingProgress) -> None:
        """Show how far the training is."""
        now = time.monotonic()
        if now - self._last < _PAUSE and progress.step < progress.steps:
            return
        self._last, self._progress = now, progress
        share = (progress.step + progress.row / max(progress.rows, 1)) / progress.steps
        self(int(share * _UNITS), _UNITS)

    def _amounts(self, done: int, total: int) -> str:
        progress = self._progress
        if progress is None:
            return ""
        parts = [f"{progress.step}/{progress.steps}"]
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.4f}")
        if progress.validation_loss is not None:
            parts.append(f"validation {progress.validation_loss:.4f}")
        if progress.tokens_per_second is not None:
            parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
        if progress.seconds_left is not None:
            parts.append(f"{duration(progress.seconds_left)} left")
        return " ".join(parts)


class ReadingBar(ProgressBar):
    """A line that counts the records of the data while they are read."""

    _TEXT = "Reading the data:"

    def count(self, number: int) -> None:
        """Show the number of records so far; how many there are is not known."""
        now = time.monotonic()
        if self.on_terminal and now - self._started >= self._PATIENCE:
            self._started = now
            write(f"\r{self._TEXT} {number:,} records\x1b[K", self._stream, drawn=True)
            self._shown = True

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}"


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or hours and minutes: "4:05", "2 h 10 min"."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02}"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
