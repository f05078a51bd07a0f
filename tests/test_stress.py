"""Everything at once, for a while: no deadlock, no corrupted text. LLAMACPU_STRESS_SECONDS sets how long (1.5)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

import llamacpu

SECONDS = float(os.environ.get("LLAMACPU_STRESS_SECONDS", "1.5"))
CHILD = Path(__file__).with_name("stress_child.py")


def stress(model: Path) -> None:
    paths = os.pathsep.join(filter(None, [str(Path(llamacpu.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(CHILD), str(SECONDS), str(model)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=SECONDS + 100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-20_000:]
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    # Every kind of action had its turn.
    assert len(report["counts"]) >= 8, report["counts"]


@pytest.mark.timeout(SECONDS + 120)
def test_the_demo_model_under_stress() -> None:
    stress(Path(str(resources.files("llamacpu"))) / "data" / "demo.gguf")


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.parametrize("variant", ["gqa", "mixtral"])
def test_random_models_under_stress(variant: str, tiny_model: Callable[..., Path]) -> None:
    stress(tiny_model(variant))


@pytest.mark.timeout(SECONDS + 120)
def test_a_model_of_another_format_under_stress(golden: Path) -> None:
    stress(next(golden.rglob("*stories260K*.gguf")))
