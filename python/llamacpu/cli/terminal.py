"""What the commands show on a terminal, and how they write when there is none."""

from __future__ import annotations

import os
import sys
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TextIO

from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.generation.result import GenerationResult

_NO_MEMORY = "not enough memory; use a smaller model or a smaller --context"


# Pictures of control characters; what turns the direction of text around could show other words than there are.
_SHOWN = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    13: None,
    127: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}


def shown(text: str) -> str:
    """Text that does nothing to a terminal but show itself, whoever wrote it."""
    return text.translate(_SHOWN)


def tell(text: str) -> None:
    """A line on stderr; on a terminal it is wrapped between words."""
    if sys.stderr.isatty():
        import textwrap

        width = max(width_of(sys.stderr), 20)
        lines = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
        )
        text = "\n".join("\n".join(line) for line in lines)
    write(f"{text}\n", sys.stderr)


def write(text: str, stream: TextIO | None = None, *, drawn: bool = False) -> None:
    """Write at once. Text that the stream's encoding does not have is replaced, never an error.

    On a terminal control characters are shown and not sent, unless the text is `drawn`: then they are ours.
    """
    stream = sys.stdout if stream is None else stream
    if not drawn and stream.isatty():
        text = shown(text)
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, errors="replace").decode(encoding))
    stream.flush()


def width_of(stream: TextIO) -> int:
    """Columns of the terminal behind a stream; 80 where nothing tells."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


def one_line(error: BaseException) -> str:
    """What an error says, on one line, without Python's own words for it."""
    if isinstance(error, MemoryError):
        return str(error) or _NO_MEMORY
    if isinstance(error, OSError) and error.strerror:
        name = str(error.filename)
        place = "" if error.filename is None else f"{name if name.isprintable() else repr(name)}: "
        # Messages of our own say what to do; the system's do not.
        hint = "" if ";" in error.strerror or error.filename is None else "; check the path"
        return f"{place}{error.strerror}{hint}"
    return " ".join(str(error).split()) or type(error).__name__


class ProgressBar(ABC):
    """A progress bar on stderr; only on a terminal, only when it takes a while."""

    _PATIENCE = 0.4
    _WIDTH = 30
    _TEXT = ""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.on_terminal: bool = self._stream.isatty()
        self._started = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show how much is done; the bar goes away when all is."""
        if not self.on_terminal:
            return
        if done >= total:
            self.clear()
        elif time.monotonic() - self._started >= self._PATIENCE:
            write("\r" + self._line(done, total) + "\x1b[K", self._stream, drawn=True)
            self._shown = True

    def _line(self, done: int, total: int) -> str:
        """What fits on one line: without the bar where there is no room, without the end where that is not enough."""
        room = width_of(self._stream) - 1
        amounts = self._amounts(done, total)
        width = min(self._WIDTH, room - len(self._TEXT) - len(amounts) - 4)
        if width < 3:
            return f"{self._TEXT} {amounts}"[: max(room, 0)]
        filled = width * done // total
        return f"{self._TEXT} [{'#' * filled}{'-' * (width - filled)}] {amounts}"

    def clear(self) -> None:
        """Remove the bar."""
        if self._shown:
            write("\r\x1b[K", self._stream, drawn=True)
            self._shown = False

    @abstractmethod
    def _amounts(self, done: int, total: int) -> str:
        """What is counted."""


class PromptBar(ProgressBar):
    """While a long prompt is read."""

    _TEXT = "Reading the prompt"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total} tokens"


class BenchBar(ProgressBar):
    """While something is measured over and over."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._TEXT = f"Measuring {text}"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total}"


class LoadBar(ProgressBar):
    """While the weights of a large model are read."""

    _TEXT = "Loading the model"

    def _amounts(self, done: int, total: int) -> str:
        return f"{amount(done)}/{amount(total)}"


def prepare(model: ModelLike) -> None:
    """Read the weights ahead where a bar can show it; elsewhere the first step reads them, in the same time."""
    bar = LoadBar()
    try:
        if bar.on_terminal:
            model.prepare(bar)
    finally:
        bar.clear()


def summary(result: GenerationResult) -> str:
    """One line about the speed of a generation."""
    timings = result.timings
    parts = [f"prompt {result.prompt_tokens} tokens"]
    if result.cached_tokens:
        parts.append(f"{result.cached_tokens} of them already known")
    if timings.prompt_tokens_per_second is not None:
        parts.append(f"{timings.prompt_tokens_per_second:.1f} tokens/s")
    if timings.first_token_seconds is not None:
        parts.append(f"first token after {timings.first_token_seconds:.2f} s")
    parts.append(f"generated {len(result.tokens)} tokens")
    if timings.tokens_per_second is not None:
        parts.append(f"{timings.tokens_per_second:.1f} tokens/s")
    if timings.drafted_tokens:
        parts.append(f"{timings.accepted_tokens} of {timings.drafted_tokens} drafted tokens accepted")
    if result.dropped_tokens:
        parts.append(f"{result.dropped_tokens} tokens dropped: the context is full")
    parts.append(f"ended by {result.ended_by.replace('_', ' ')}")
    return ", ".join(parts)
