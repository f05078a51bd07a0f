"""Models that are larger than the memory of the machine: the same numbers, and a line that says what is going on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.engine.room import Room
from llamacpu.families.registry import config_for
from tiny_models import Shape

pytestmark = pytest.mark.instruction_set

EXPERTS = Shape(width=256, feed_forward=256, experts=8, experts_used=2)
Free = Callable[[int | None], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """`free(1000)`: so many bytes of memory are free from now on."""
    return lambda size: monkeypatch.setattr("llamacpu.engine.machine.available_memory", lambda: size)


@pytest.mark.instruction_set(one_in=3)
@pytest.mark.parametrize("weight_type", ["Q4_0", "Q4_K", "F16"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_weights_on_disk_change_no_bit(
    tiny_model: Callable[..., Path], free: Free, share: float, weight_type: str
) -> None:
    path = tiny_model(EXPERTS, weight_type)
    tokens = list(range(40))
    with llamacpu.Model(path) as model:
        expected = model.session().forward(tokens, logits="all")
        assert model.memory_note is None
        weights = sum(tensor.nbytes for tensor in model.file.tensors)
    free(int(weights * share))
    with llamacpu.Model(path) as model:
        assert "of them stay on disk; it runs from disk, slowly, " in (model.memory_note or "")
        model.prepare()
        session = model.session()
        got = [session.forward(tokens[:25], logits="all"), *(session.forward([token])[None] for token in tokens[25:])]
    assert np.array_equal(np.concatenate(got), expected)


@pytest.mark.instruction_set(one_in=None)
def test_weights_of_all_tokens_come_before_experts(tiny_model: Callable[..., Path], free: Free) -> None:
    path = tiny_model(EXPERTS, "Q8_0")
    with llamacpu.GGUFFile(path) as file:
        room = Room(file, config_for(file))
        assert room.experts == sum(tensor.nbytes for tensor in file.tensors if "_exps" in tensor.name)
    free(10**9)
    with llamacpu.Model(path) as model:
        # One byte less than everything, and one less than what all tokens go through.
        assert 0 < model._native.limit_memory(model.weight_bytes - 1) < room.experts
    with llamacpu.Model(path) as model:
        assert model._native.limit_memory(model.weight_bytes - room.experts - 1) > 0
        assert model._native.limit_memory(0) == model.weight_bytes


@pytest.mark.instruction_set(one_in=None)
def test_the_log_and_commands_say_so(
    tiny_model: Callable[..., Path], free: Free, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_model(EXPERTS, "Q4_0")
    free(400_000)
    with caplog.at_level(logging.WARNING, "llamacpu"), llamacpu.Model(path) as model:
        assert [record.getMessage() for record in caplog.records] == [model.memory_note]
    ran = CliRunner().invoke(command_line, ["run", str(path), "--raw", "-p", "x", "-n", "1"])
    assert ran.exit_code == 0
    assert "stay on disk; it runs from disk, slowly" in ran.stderr
    assert "(2 of 8 experts)" in ran.stderr
    assert "disk" not in ran.stdout
    told = CliRunner().invoke(command_line, ["info", str(path)]).stdout
    assert "no: 400.0 kB are free, less than the weights take; it runs from disk, slowly, " in told


@pytest.mark.instruction_set(one_in=None)
def test_what_would_fit_is_told(tiny_model: Callable[..., Path], free: Free) -> None:
    path = tiny_model(EXPERTS, "Q8_0")
    with llamacpu.GGUFFile(path) as file:
        config = config_for(file)
        numbers = sum(int(np.prod(tensor.shape)) for tensor in file.tensors)
        free(int(numbers * 4 / 8) + Room(file, config).short_conversation)
        assert "a file of at most 4.0 bits a weight would fit" in Room(file, config).from_disk()
        free(1000)
        assert "a smaller model would fit" in Room(file, config).from_disk()
        free(None)
        assert Room(file, config).limit is None


@pytest.mark.instruction_set(one_in=None)
def test_a_copy_that_has_no_room_is_refused(tiny_model: Callable[..., Path], free: Free) -> None:
    path = tiny_model("gqa", "Q8_0")
    free(100_000)
    with pytest.raises(MemoryError, match=r'100\.0 kB of memory are free; with load="map" it runs from disk, slowly'):
        llamacpu.Model(path, load="copy")
    told = CliRunner().invoke(command_line, ["run", str(path), "--no-mmap", "--raw", "-p", "x"])
    assert told.exit_code == 1
    assert told.stderr.startswith(f"Error: {path.name}: the weights take ")
