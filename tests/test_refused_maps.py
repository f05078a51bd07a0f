"""Where the system refuses to map files, models are mapped privately or read, and say the same."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llamacpu

HERE = Path(__file__).parent


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the maps are refused by a filter for Linux on x86-64",
)
@pytest.mark.parametrize("which", ["shared", "all"])
def test_a_model_runs_where_maps_are_refused(which: str, tiny_model: Callable[..., Path]) -> None:
    package = str(Path(llamacpu.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, HERE / "refused_maps_child.py", which, tiny_model("gqa", "Q4_K")],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": package},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    result = json.loads(child.stdout)
    if "skip" in result:
        pytest.skip(f"no seccomp filter can be set here: {result['skip']}")
    assert result == {"refused": True, "equal": True}
