"""The priority of the process, in a process of its own since it cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu import LlamaCpuError
from llamacpu.cli.group import command_line
from llamacpu.engine import priority

ROOT = Path(llamacpu.__file__).parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=60, check=True
    )
    return done.stdout


@linux
def test_low_is_that_of_every_thread_and_of_later_ones() -> None:
    shown = run(
        """
import os, threading
from llamacpu import Model
from llamacpu.data import __path__ as data

def nice(thread=0):
    return os.getpriority(os.PRIO_PROCESS, thread), os.sched_getscheduler(thread) == os.SCHED_BATCH

wait = threading.Event()
before = threading.Thread(target=wait.wait)
before.start()
base = nice()[0]
with Model(f"{list(data)[0]}/demo.gguf", threads=3, priority="low") as model:
    model.session().forward([1, 2, 3])
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    found = {nice(thread) for thread in threads}
    assert before.native_id in threads and len(threads) >= 4, threads
wait.set()
print(found == {(max(base, 10), True)}, end="")
"""
    )
    assert shown == "True"


@linux
def test_a_nicer_process_stays_so_and_normal_changes_nothing() -> None:
    program = """
import os
from llamacpu.engine.priority import set_priority
base = os.nice(0)
set_priority("normal")
assert os.nice(0) == base
os.nice(15)
set_priority("low")
print(os.nice(0) == min(base + 15, 19), end="")
"""
    assert run(program) == "True"


def test_high_without_the_right_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(priority, "_set", refuse)
    with pytest.raises(PermissionError, match=r"needs the right to raise the priority.*CAP_SYS_NICE"):
        priority.set_priority("high")


@linux
def test_high_raises_the_priority_of_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(os, "setpriority", lambda *given: asked.append(given))
    monkeypatch.setattr(os, "getpriority", lambda *_: 0)
    priority.set_priority("high")
    assert {thread for _, thread, _ in asked} >= {int(task.name) for task in Path("/proc/self/task").iterdir()}
    assert {nice for _, _, nice in asked} == {-10}


def test_windows_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "sys", SimpleNamespace(platform="win32"))
    priority.set_priority("normal")
    with pytest.raises(LlamaCpuError, match="start /belownormal llamacpu"):
        priority.set_priority("low")


@pytest.mark.parametrize("word", ["idle", "", 3])
def test_other_words(word: Any) -> None:
    with pytest.raises(ValueError, match='expected "low", "normal" or "high"'):
        priority.set_priority(word)


def test_commands_without_a_model_take_it_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(priority, "set_priority", asked.append)
    demo = str(ROOT / "llamacpu" / "data" / "demo.gguf")
    arguments = ["quantize", demo, str(tmp_path / "small.gguf"), "COPY", "--dry-run", "--priority", "low"]
    assert CliRunner().invoke(command_line, arguments).exit_code == 0
    assert asked == ["low"]
