"""The parts of a training that need no model: how often data are passed through, learning rates, files, memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu.checkpoints.safetensors import read_safetensors
from llamacpu.checkpoints.safetensors_writer import write_safetensors
from llamacpu.errors import CheckpointError
from llamacpu.tools.train.layers import kept_layers
from llamacpu.tools.train.loop import Pace
from llamacpu.tools.train.schedule import learning_rate, warm_up_steps


@pytest.mark.parametrize(
    ("rows", "settings", "steps", "batch"),
    [
        (1, {}, 100, 1),
        (20, {}, 100, 1),
        (100, {}, 102, 3),
        (10_000, {}, 3750, 8),
        (10, {"epochs": 2}, 20, 1),
        (10, {"steps": 7, "batch": 4}, 7, 4),
        (3, {"steps": 7, "batch": 4}, 7, 3),
    ],
)
def test_few_data_are_passed_through_more_often(rows: int, settings: dict[str, Any], steps: int, batch: int) -> None:
    pace = Pace.of(rows, llamacpu.TrainingSettings(**settings))
    assert (pace.steps, pace.batch) == (steps, batch)


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(2.0, "cosine", step, 100, 10) for step in range(100)]
    assert rates[9] == 2.0
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[99] < 0.001
    assert learning_rate(2.0, "linear", 55, 100, 10) == pytest.approx(1.0)
    assert {learning_rate(2.0, "constant", step, 100, 0) for step in range(100)} == {2.0}
    assert [warm_up_steps(share, 100) for share in (0.03, 5, 0, 1000)] == [3, 5, 0, 100]


def test_safetensors_files_are_read_as_they_were_written_and_refused_if_they_are_not_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    arrays: dict[str, Any] = {
        "b": np.arange(3, dtype=np.float32), "a": np.zeros((0, 2), np.int64), "c": np.array([[True], [False]]),
        "d": np.float64(0.1).reshape(()), "e": np.array([3, -1], ">i4"), "f": np.array([1.5], np.float16),
    }  # fmt: skip
    write_safetensors(path, arrays, {"k": "v"}, "a test")
    tensors, metadata = read_safetensors(path)
    assert metadata == {"k": "v"}
    for name, array in arrays.items():
        found = tensors[name].read_raw()
        assert found.dtype == array.dtype.newbyteorder("<")
        assert np.array_equal(found, array)
    raw = path.read_bytes()
    for end in range(0, len(raw), 5):
        path.write_bytes(raw[:end])
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            read_safetensors(path)


@pytest.mark.parametrize(
    ("memory", "free", "kept"),
    [(None, None, 0), (None, 100, 0), (None, 100_000, 4), (250, 100_000, 2), (1, 100_000, 0), (None, 640, 3)],
)
def test_layers_keep_what_fits(memory: int | None, free: int | None, kept: int) -> None:
    assert kept_layers(4, lambda count: 20 + 100 * count, memory, free) == kept
