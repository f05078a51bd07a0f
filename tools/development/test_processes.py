"""Runs the Python tests in several processes, of which each takes one test file at a time (tests/shared_files.py)."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

from .jobs import Job

# Two more than there are cores, since many tests wait for a browser or another process; more would only make tests of
# threads wait for each other.
PROCESSES = min(os.cpu_count() or 1, 4) + 2
# Exit statuses of pytest: all tests passed; some failed; there was none, since other processes had taken all files.
PASSED, FAILED, NONE = 0, 1, 5
OUTCOMES = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "warnings", "error", "rerun")


def run_together(*pytest: str | Path, **environment: str) -> tuple[int, str]:
    """Run pytest in several processes; the exit status and the last line, as one process would have them."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        # Without percentages, since no process knows how many tests there are.
        command = (*pytest, "-o", "console_output_style=classic")
        jobs = [
            Job(*command, background=number > 0, **environment, LLAMACPU_TEST_QUEUE=folder)
            for number in range(PROCESSES)
        ]
        statuses = {job.end() for job in jobs}
        for status in statuses - {PASSED, FAILED, NONE}:
            print(f"a test process ended with status {status}: not all of its tests have run", flush=True)
        counts: Counter[str] = Counter()
        for path in Path(folder).glob("*.json"):
            counts.update(json.loads(path.read_text(encoding="utf-8")))
    outcomes = [f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]]
    summary = f"{', '.join(outcomes) or 'no tests ran'} in {time.monotonic() - started:.2f}s"
    failures = sorted(statuses - {PASSED, NONE})
    return (failures or [min(statuses)])[0], summary
