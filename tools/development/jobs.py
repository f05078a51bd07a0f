"""Commands that dev.py runs, with the time that each took."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
SCRIPTS = VENV / ("Scripts" if os.name == "nt" else "bin")
# Wall-clock seconds, processor seconds and label of every command run so far.
TIMES: list[tuple[float, float, str]] = []


class Job:
    """A command run in the project's root or `cwd`; if in the background, its output is shown when it ends.

    Of a command that is relayed, `last_line` is kept back, so that it can close what others have to say.
    """

    def __init__(
        self,
        *command: str | Path,
        background: bool = False,
        relayed: bool = False,
        cwd: Path = ROOT,
        **environment: str,
    ) -> None:
        self.words = [str(word) for word in command]
        self.shown = " ".join(["$", *(f"{key}={value}" for key, value in environment.items()), *self.words])
        self.started = time.monotonic()
        self.output: IO[bytes] | None = tempfile.TemporaryFile() if background else None  # noqa: SIM115
        if not background:
            print(self.shown, flush=True)
        self.last_line = b""
        shown = subprocess.PIPE if relayed else self.output
        self.process = subprocess.Popen(
            self.words, cwd=cwd, env=os.environ | environment, stdout=shown, stderr=self.output
        )

    def wait(self) -> None:
        """Wait for the command to end; exit with its status if that is not 0."""
        if status := self.end():
            sys.exit(status)

    def end(self) -> int:
        """Wait for the command to end and return its status."""
        for line in self.process.stdout or ():
            sys.stdout.buffer.write(self.last_line)
            sys.stdout.flush()
            self.last_line = line
        processor = 0.0
        if hasattr(os, "wait4"):
            _, status, usage = os.wait4(self.process.pid, 0)
            self.process.returncode = os.waitstatus_to_exitcode(status)
            processor = usage.ru_utime + usage.ru_stime
        status = self.process.wait()
        if self.output is not None:
            self.output.seek(0)
            print(self.shown, self.output.read().decode(errors="replace"), sep="\n", flush=True)
        label = self.shown.replace(f"{SCRIPTS}{os.sep}", "").replace(str(ROOT) + os.sep, "")
        TIMES.append((time.monotonic() - self.started, processor, label))
        return status


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """Show one command and run it in the project's root or `cwd`; exit with its status if it fails."""
    Job(*command, cwd=cwd, **environment).wait()


def show_times() -> None:
    """Print the times of all commands so far."""
    print("seconds  processor  command")
    for seconds, processor, label in TIMES:
        print(f"{seconds:7.1f}  {processor:9.1f}  {label[:150]}", flush=True)
