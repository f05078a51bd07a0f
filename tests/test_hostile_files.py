"""No file may hurt the process: it becomes a `LlamaCpuError` that explains itself, or a model that runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import llamacpu
from hostile_cases import KINDS

# Headers are read alike on every instruction set; the kernels meet what these kinds put into the weights.
KERNEL_KINDS = ["data bits", "random blocks"]
CHOSEN = [pytest.param(kind, marks=[pytest.mark.instruction_set] if kind in KERNEL_KINDS else []) for kind in KINDS]


@pytest.mark.parametrize("kind", CHOSEN)
def test_sweep(tmp_path: Path, kind: str) -> None:
    """Thousands of damaged files in one process with little memory."""
    package = str(Path(llamacpu.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("hostile_child.py"), kind, tmp_path],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, str(Path(__file__).parent)])},
    )
    progress = tmp_path / "progress"
    reached = progress.read_text().rpartition("\n")[0].rpartition("\n")[2] if progress.exists() else "the start"
    assert child.returncode == 0, f"ended with {child.returncode} at {reached!r}:\n{child.stderr[-3000:]}"
    result = json.loads(child.stdout)
    assert result["wrong"] == []
    assert sum(result["outcomes"].values()) == sum(1 for _ in KINDS[kind]())
    assert result["outcomes"].keys() - {"ran"}, "no case was refused: the cases are not hostile"
