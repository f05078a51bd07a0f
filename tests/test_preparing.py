"""Preparing a model's weights: what the callback is told, that it changes nothing, and that it can be stopped."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llamacpu import Cancelled, CancelToken, Llama, LlamaCpuError, Model
from llamacpu.cli.terminal import LoadBar, prepare

pytestmark = pytest.mark.instruction_set


@pytest.mark.parametrize("variant", ["gqa", "mha", "fused", "mixtral"])
@pytest.mark.parametrize("weight_type", ["F32", "Q4_K"])
def test_loading_is_reported_from_nothing_to_all(
    tiny_model: Callable[..., Path], variant: str, weight_type: str
) -> None:
    path, reports = tiny_model(variant, weight_type), []
    with Model(path) as lazy, Model(path, on_load=lambda *report: reports.append(report)) as prepared:
        done, totals = [report[0] for report in reports], {report[1] for report in reports}
        assert done == sorted(set(done))
        assert (done[0], {done[-1]}) == (0, totals)
        assert len(reports) == lazy.config["layers"] + 2
        assert done[-1] >= lazy.weight_bytes
        logits = [model.session().forward([1, 2, 3], logits="all") for model in (lazy, prepared)]
        assert np.array_equal(*logits)


def test_preparing_again_and_in_use_does_no_harm(tiny_model: Callable[..., Path]) -> None:
    with Model(tiny_model("gqa", "Q4_K")) as model:
        first = model.session().forward([1, 2, 3])
        model.prepare()
        model.prepare()
        assert np.array_equal(first, model.session().forward([1, 2, 3]))


def test_an_error_of_the_callback_closes_the_model(tiny_model: Callable[..., Path]) -> None:
    def fail(done: int, total: int) -> None:
        if done:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Model(tiny_model("gqa"), on_load=fail)


def test_preparing_can_be_cancelled_and_taken_up_again(tiny_model: Callable[..., Path]) -> None:
    token, reports = CancelToken(), []

    def stop_at_the_second(done: int, total: int) -> None:
        reports.append(done)
        if done:
            token.cancel()

    with Model(tiny_model("gqa", "Q4_K")) as model:
        with pytest.raises(Cancelled):
            model.prepare(stop_at_the_second, token)
        assert len(reports) == 2
        model.prepare()
        assert model.session().forward([1]).shape == (model.vocab_size,)


def test_a_closed_model_cannot_be_prepared(tiny_model: Callable[..., Path]) -> None:
    model = Model(tiny_model("gqa"))
    model.close()
    with pytest.raises(LlamaCpuError, match="has been closed"):
        model.prepare()


def test_a_llama_reports_its_loading(tiny_model: Callable[..., Path]) -> None:
    reports: list[tuple[int, int]] = []
    with Llama(tiny_model("gqa"), on_load=lambda *report: reports.append(report)):
        assert reports[0][0] == 0
        assert reports[-1][0] == reports[-1][1] > 0


@pytest.mark.parametrize("terminal", [True, False])
def test_commands_show_the_loading_on_a_terminal_only(
    tiny_model: Callable[..., Path], terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(LoadBar, "_PATIENCE", 0.0)
    with Model(tiny_model("gqa")) as model:
        prepare(model)
        monkeypatch.undo()
    shown = stream.getvalue()
    assert shown.startswith("\rLoading the model [") == terminal
    assert shown.endswith("\r\x1b[K") == terminal
    assert bool(shown) == terminal
