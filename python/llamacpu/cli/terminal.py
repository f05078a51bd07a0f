"""Output of the commands, on a terminal and elsewhere."""

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


# Pictures of control characters. Bidirectional controls are replaced because they can make text read differently.
_SHOWN = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    13: None,
    127: 0x2421,
    **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
}


def shown(text: str) -> str:
    """The text with control characters replaced, so that a terminal can only display it."""
    return text.translate(_SHOWN)


def tell(text: str) -> None:
    """Write a line to stderr, wrapped between words on a terminal."""
    if sys.stderr.isatty():
        import textwrap

        width = max(width_of(sys.stderr), 20)
        lines = (
            textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in text.split("\n")
        )
        text = "\n".join("\n".join(line) for line in lines)
    write(f"{text}\n", sys.stderr)


def write(text: str, stream: TextIO | None = None, *, drawn: bool = False) -> None:
    """Write text and flush. Characters that the stream's encoding lacks are replaced and never raise an error.

    On a terminal, control characters are made visible instead of being sent, unless the text is `drawn`: then they are
    our own.
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
    """The number of columns of the stream's terminal; 80 if it is not known."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):
        return 80


def one_line(error: BaseException) -> str:
    """The message of an error on one line, without the text that Python adds."""
    if isinstance(error, MemoryError):
        return str(error) or _NO_MEMORY
    if isinstance(error, OSError) and error.strerror:
        name = str(error.filename)
        place = "" if error.filename is None else f"{name if name.isprintable() else repr(name)}: "
        # Our own messages, which contain a semicolon, say what to do; those of the system do not.
        hint = "" if ";" in error.strerror or error.filename is None else "; check the path"
        return f"{place}{error.strerror}{hint}"
    return " ".join(str(error).split()) or type(error).__name__


class ProgressBar(ABC):
    """A progress bar on stderr, shown only on a terminal and only if the work takes a while."""

    _PATIENCE = 0.4
    _WIDTH = 30
    _TEXT = ""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.on_terminal: bool = self._stream.isatty()
        self._started = time.monotonic()
        self._shown = False

    def __call__(self, done: int, total: int) -> None:
        """Show the progress; the bar is removed when everything is done."""
        if not self.on_terminal:
            return
        if done >= total:
            self.clear()
        elif time.monotonic() - self._started >= self._PATIENCE:
            write("\r" + self._line(done, total) + "\x1b[K", self._stream, drawn=True)
            self._shown = True

    def _line(self, done: int, total: int) -> str:
        """The text of the bar, fitted to one line: the bar itself is dropped first, then the end of the text."""
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
        """The progress as text: what is done, and of how much."""


class PromptBar(ProgressBar):
    """The progress bar shown while a long prompt is read."""

    _TEXT = "Reading the prompt"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total} tokens"


class PictureBar(ProgressBar):
    """The progress bar shown while pictures are encoded."""

    _TEXT = "Looking at the picture"
    _STEPS = 1000

    def __call__(self, done: float, total: int) -> None:
        """Show how many pictures are done, the last one in part."""
        self._TEXT = f"Looking at picture {min(int(done) + 1, total)} of {total}" if total > 1 else PictureBar._TEXT
        super().__call__(int(done * self._STEPS), total * self._STEPS)

    def _amounts(self, done: int, total: int) -> str:
        return f"{100 * done // total} %"


class BenchBar(ProgressBar):
    """The progress bar shown while a measurement is repeated."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._TEXT = f"Measuring {text}"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total}"


class LoadBar(ProgressBar):
    """The progress bar shown while the weights of a large model are read."""

    _TEXT = "Loading the model"

    def _amounts(self, done: int, total: int) -> str:
        return f"{amount(done)}/{amount(total)}"


def prepare(model: ModelLike) -> None:
    """Read the weights ahead if a bar can show the progress; otherwise the first step reads them, in the same time."""
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
