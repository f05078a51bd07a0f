"""Processes forked in the middle of anything: the child works, or gets one clear error; it never waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tiny_models import QUANTIZABLE, Shape

CHILD = Path(__file__).with_name("fork_child.py")
SLOW = Shape(layers=8, context=100_000)
PACKED = replace(QUANTIZABLE, feed_forward=16384, layers=3)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.mark.parametrize(
    ("scene", "shape", "weight_type"),
    [
        ("packing", PACKED, "Q4_K"),
        ("stepping", SLOW, "F32"),
        ("running", "gqa", "F32"),
        ("vocabulary", "gqa", "F32"),
        ("locks", "gqa", "F32"),
        ("handler", SLOW, "F32"),
        ("other_work", "bpe", "F32"),
    ],
)
def test_a_child_does_not_wait_for_threads_of_its_parent(
    tiny_model: Callable[..., Path], scene: str, shape: Shape | str, weight_type: str
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(CHILD), scene, str(tiny_model(shape, weight_type))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    statuses = json.loads(done.stdout)
    assert statuses
    assert not any(statuses), (statuses, done.stderr[-3000:])
