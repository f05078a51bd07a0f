"""The progress bar of measurements: tokens, speed and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

import click

from llamacpu.cli.terminal import ProgressBar, write

if TYPE_CHECKING:
    from llamacpu.tools.imatrix import ImatrixMeasurement
    from llamacpu.tools.measuring import Measurement

__all__ = ["MeasureBar", "duration", "run"]

_PAUSE = 0.1


class MeasureBar(ProgressBar):
    """A bar with a note, tokens per second and the time left."""

    _TEXT = "Measuring"

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._first: int | None = None
        self._last = 0.0
        self.note = ""
        """shown in front of the speed: what has been found so far"""

    def __call__(self, done: int, total: int) -> None:
        """Show the progress in tokens."""
        if self._first is None:
            self._first, self._started = done, time.monotonic()
        now = time.monotonic()
        if not self.on_terminal or (now - self._last < _PAUSE and done < total):
            return
        self._last = now
        super().__call__(done, total)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        self.clear()
        write(f"{line}\n", self._stream)

    def _amounts(self, done: int, total: int) -> str:
        seconds = time.monotonic() - self._started
        rate = (done - (self._first or 0)) / seconds if seconds > 0 else 0.0
        speed = f" {rate:.0f} tokens/s, {duration((total - done) / rate)} left" if rate > 0 else ""
        note = f"{self.note}, " if self.note else ""
        return f"{note}{100 * done // total} %{',' if speed else ''}{speed}"


def run(
    measurement: Measurement | ImatrixMeasurement, on_chunks: Callable[[MeasureBar], None] = lambda _bar: None
) -> bool:
    """Run a measurement to its end, with a bar; return False if Ctrl-C came first. `on_chunks` is called after each."""
    bar = MeasureBar()
    shown = measurement.chunks_done
    try:
        bar(measurement.done, measurement.total)
        for _ in measurement:
            if measurement.chunks_done > shown:
                shown = measurement.chunks_done
                on_chunks(bar)
            bar(measurement.done, measurement.total)
    except KeyboardInterrupt:
        bar.clear()
        click.echo(f"Interrupted: {measurement.chunks_done} of {measurement.chunks.count} chunks are done.", err=True)
        return False
    finally:
        bar.clear()
    return True


def duration(seconds: float) -> str:
    """A duration in words that fit into a bar."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
