"""A terminal for tests: a child with a pseudo-terminal of its own, whose output pyte draws on a screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

TESTS = Path(__file__).resolve().parent
PATIENCE = 60.0


class Screen:
    """What a person in front of the child sees.

    Nothing is said about when something appears: tests wait for what the screen shows, for up to a minute.
    """

    def __init__(self, *command: object, columns: int = 80, rows: int = 24, **environment: str) -> None:
        self._screen = pyte.HistoryScreen(columns, rows, history=2000, ratio=0.5)
        self._screen.write_process_input = self._answer  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self._screen)
        self._rows: list[str] = []  # as they were drawn last: only rows that changed are read again
        self.written = b""
        given = {"PYTHONPATH": f"{TESTS.parent / 'python'}{os.pathsep}{TESTS}", "TERM": "xterm-256color"}
        self.process, self._terminal = pty.fork()
        if self.process == 0:
            for name in ("NO_COLOR", "COLORTERM", "VISUAL", "EDITOR"):
                os.environ.pop(name, None)
            words = [sys.executable, *map(str, command)]
            os.execve(words[0], words, {**os.environ, **given, **environment})
        self._set_size(columns, rows)

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._terminal)
        try:
            os.kill(self.process, signal.SIGKILL)
            os.waitpid(self.process, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def lines(self) -> list[str]:
        """The rows without spaces at their ends, those that were scrolled away first, and no empty ones at the end."""
        columns, height = range(self._screen.columns), self._screen.lines
        past = ["".join(row[column].data for column in columns) for row in self._screen.history.top]
        if len(self._rows) != height:
            self._rows = [""] * height
            self._screen.dirty.update(range(height))
        for number in self._screen.dirty:
            if number < height:
                row = self._screen.buffer[number]
                self._rows[number] = "".join(row[column].data for column in columns)
        self._screen.dirty.clear()
        rows = [row.rstrip() for row in [*past, *self._rows]]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    def text(self) -> str:
        return "\n".join(self.lines())

    def style(self, text: str) -> pyte.screens.Char:
        """How the first character of a text that is on the screen is drawn."""
        for number, row in enumerate(self._screen.display):
            if text in row:
                return self._screen.buffer[number][row.index(text)]
        raise AssertionError(self.text())

    def cells(self) -> list[list[pyte.screens.Char]]:
        """The rows that are on the screen, each character with its style."""
        buffer = self._screen.buffer
        return [[buffer[row][column] for column in range(self._screen.columns)] for row in range(self._screen.lines)]

    def wait_for(self, wanted: str | Callable[[str], bool]) -> str:
        """Wait until the text is on the screen, or the condition on its text is met; returns the text."""
        end = time.monotonic() + PATIENCE
        while not (wanted in self.text() if isinstance(wanted, str) else wanted(self.text())):
            assert time.monotonic() < end, f"not seen: {wanted!r}\n{self.text()}"
            assert self._read(1.0) is not False, f"ended without: {wanted!r}\n{self.text()}"
        return self.text()

    def prompt(self) -> str:
        """Wait until the last line is an empty prompt."""
        return self.wait_for(lambda text: text.endswith("\n>>>") or text == ">>>")

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def press(self, key: str, wanted: str) -> None:
        """Press a key until it shows: Python misses a signal between a prompt and the wait for input, until a key."""
        end = time.monotonic() + PATIENCE
        self.type(key)
        while wanted not in self.text():
            assert time.monotonic() < end, f"not seen: {wanted!r}\n{self.text()}"
            if self._read(1.0) is None:
                self.type(key)

    def paste(self, text: str) -> None:
        """As terminals paste: bracketed, with carriage returns for ends of lines."""
        self.type("\x1b[200~" + text.replace("\n", "\r") + "\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        self._screen.resize(rows, columns)
        self._rows = []
        self._set_size(columns, rows)

    def interrupt(self) -> None:
        """Ctrl-C, also for a child that has the terminal in its own hands."""
        self.type("\x03")

    def status(self) -> int:
        """The exit status; waits for the end."""
        end = time.monotonic() + PATIENCE
        while self._read(1.0) is not False:
            assert time.monotonic() < end, self.text()
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def _answer(self, data: str) -> None:
        os.write(self._terminal, data.encode())

    def _read(self, seconds: float) -> bool | None:
        """Draw more output: True; None where nothing came; False where the child has gone."""
        if not select.select([self._terminal], [], [], seconds)[0]:
            return None
        data = b""
        try:
            while select.select([self._terminal], [], [], 0)[0] and len(data) < 1 << 16:
                more = os.read(self._terminal, 1 << 16)
                if not more:
                    break
                data += more
        except OSError:
            if not data:
                return False
        if not data:
            return False
        self.written += data
        self._stream.feed(data)
        return True

    def _set_size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
