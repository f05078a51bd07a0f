"""Message input without prompt_toolkit: one line each, or several lines if marked as such."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TextIO

from llamacpu.cli.chat import history
from llamacpu.cli.chat.completion import completions
from llamacpu.cli.terminal import tell, write

__all__ = ["CONTINUED", "PROMPT", "Lines", "complete", "read_message"]

PROMPT = ">>> "
CONTINUED = "... "
_FENCE = '"""'


class Lines:
    """A reader of messages, line by line."""

    def __init__(self, place: Path | None = None) -> None:
        """Set up editing and history with `readline` if Python has it.

        place: the history file; None keeps the history for this conversation only.
        """
        self._place = place
        with contextlib.suppress(ImportError):
            import readline

            readline.set_completer(complete)
            readline.set_completer_delims(" ")
            readline.parse_and_bind("tab: complete")
            for text in [] if place is None else self._kept(place):
                if "\n" not in text:
                    readline.add_history(text)

    def read(self) -> str:
        """Read a message. Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C."""
        text = read_message()
        if self._place is not None and text.strip():
            try:
                history.append(self._place, text)
            except OSError as error:
                self._place = None
                tell(history.trouble(error))
        return text

    def _kept(self, place: Path) -> list[str]:
        try:
            return history.read(place)
        except OSError as error:
            self._place = None
            tell(history.trouble(error))
            return []


def complete(begun: str, number: int) -> str | None:
    """The completion with index `number` for the word `begun`, or None if there are no more; called by readline."""
    try:
        import readline

        line = readline.get_line_buffer()[: readline.get_endidx()]
    except ImportError:
        line = begun
    line = line or begun
    found = completions(line) if line else []
    if number >= len(found):
        return None
    replaced, text = found[number]
    # readline replaces only the current word, which is delimited by spaces.
    return text[len(replaced) - len(begun) :] if replaced.endswith(begun) else None


def read_message() -> str:
    """Read a message from the terminal.

    A message is one line. A line that ends with a backslash continues on the next, and a message that begins with
    triple quotes extends to the next line that ends with them.
    """
    line = _line(PROMPT)
    if line.startswith(_FENCE):
        lines = [line[len(_FENCE) :]]
        while not lines[-1].rstrip().endswith(_FENCE) or (len(lines) == 1 and lines[0].strip() == ""):
            lines.append(_line(CONTINUED))
        text = "\n".join(lines).rstrip()
        return text[: -len(_FENCE)].strip("\n")
    while line.endswith("\\"):
        line = line[:-1] + "\n" + _line(CONTINUED)
    return line


def _line(prompt: str) -> str:
    """Read a line; the prompt is not part of the output, so it goes to stderr if stdout is not a terminal."""
    if _is_terminal(sys.stdout) or not _is_terminal(sys.stdin):
        return input(prompt)
    write(prompt, sys.stderr)
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty()
