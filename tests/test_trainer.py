"""The native trainer: same bits however it is run, states that go on, cancellation, refusals, planned memory."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from llamacpu import Model, _native
from llamacpu.errors import Cancelled, ModelError
from test_training_gradients import BASE, batch, opened, trainer_of
from tiny_models import Shape, Type, write_model


def settings(steps: int = 1) -> dict[str, Any]:
    return {"learning_rate": 0.01 / steps, "weight_decay": 0.1, "clip_norm": 1.0, "divide_by": 16.0}


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_bits_are_the_same_for_threads_instruction_sets_and_kept_layers(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for isa in _native.cpu_facts()["available"]:
        monkeypatch.setenv("LLAMACPU_ISA", isa)
        for threads, kept in ((1, 0), (3, 1), (2, 9)):
            with opened(tmp_path, name, threads) as (_, model):
                trainer = trainer_of(model, kept_layers=kept)
                losses = []
                for _ in range(3):
                    losses.append(trainer.step(*batch()))
                    trainer.optimizer_step(**settings())
                losses.append(trainer.loss(*batch()))
                found.add((*losses, trainer.parameters().tobytes()))
    assert len(found) == 1
    assert next(iter(found))[3][0] < next(iter(found))[0][0]


def test_packed_sequences_do_not_see_each_other(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model)
        tokens, segments, targets = batch()
        whole = trainer.step(tokens, segments, targets)
        together = trainer.gradients()
        trainer.clear_gradients()
        assert not trainer.gradients().any()
        parts = [
            trainer.step(tokens[start:end], np.array([0, end - start], np.int32), targets[start:end])
            for start, end in pairwise(segments)
        ]
        assert sum(count for _, count in parts) == whole[1]
        assert sum(loss for loss, _ in parts) == pytest.approx(whole[0], rel=1e-12)
        apart = trainer.gradients()
        assert np.abs(apart - together).max() <= 1e-6 * np.abs(together).max()


def test_a_restored_state_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    with opened(tmp_path, "qwen3") as (_, model):
        first, second = trainer_of(model), trainer_of(model)
        for _ in range(2):
            first.step(*batch())
            first.optimizer_step(**settings())
        saved = first.state()
        assert saved[3] == 2
        second.step(*batch())
        second.restore(*saved)
        assert not second.gradients().any()
        for trainer in (first, second):
            trainer.step(*batch())
            trainer.optimizer_step(**settings())
        for one, other in zip(first.state(), second.state(), strict=True):
            assert np.array_equal(one, other)


def test_adamw_follows_its_definition(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model, ["blk.1.ffn_up"])
        values = trainer.parameters().astype(np.float64)
        first, second = np.zeros_like(values), np.zeros_like(values)
        for step in range(1, 4):
            trainer.step(*batch())
            gradient = trainer.gradients().astype(np.float64) / 16
            norm = np.linalg.norm(gradient)
            gradient *= min(1.0, 0.02 / (norm + 1e-6))
            first = 0.8 * first + 0.2 * gradient
            second = 0.95 * second + 0.05 * gradient**2
            values *= 1 - 0.01 * 0.3
            values -= 0.01 * (first / (1 - 0.8**step)) / (np.sqrt(second / (1 - 0.95**step)) + 1e-6)
            found = trainer.optimizer_step(0.01, (0.8, 0.95), 1e-6, 0.3, 0.02, 16.0)
            assert found == pytest.approx(norm, rel=1e-6)
            assert np.abs(trainer.parameters() - values).max() <= 2e-6


def test_gradients_that_are_not_finite_change_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model)
        broken = trainer.parameters()
        broken[0] = np.nan
        trainer.set_parameters(broken)
        trainer.step(*batch())
        assert np.isnan(trainer.optimizer_step(0.1))
        assert np.array_equal(trainer.parameters(), broken, equal_nan=True)
        assert not trainer.gradients().any()
        assert trainer.state()[3] == 0


def test_a_cancelled_step_clears_the_gradients(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model)
        trainer.step(*batch())
        token = _native.CancelToken()
        token.cancel()
        with pytest.raises(Cancelled):
            trainer.step(*batch(), cancel=token)
        assert not trainer.gradients().any()
        with pytest.raises(Cancelled):
            trainer.loss(*batch(), cancel=token)
        assert trainer.step(*batch())[1] == 16


def test_only_what_has_an_adapter_is_trained(tmp_path: Path) -> None:
    with opened(tmp_path, "qwen2") as (_, model):
        every = trainer_of(model)
        every.step(*batch())
        everything = {name for name, _, _ in _native.trainable(model)}
        assert len(everything) == 16
        for targets in (
            ["blk.1.attn_q"],
            ["blk.1.ffn_down"],
            ["blk.0.attn_output"],
            ["blk.0.ffn_gate", "blk.1.attn_v"],
            ["output"],
        ):
            trainer = trainer_of(model, targets)
            assert [name for name, _, _ in trainer.names] == [
                f"{target}.lora_{part}" for target in targets for part in "ab"
            ]
            trainer.step(*batch())
            assert np.isfinite(trainer.gradients()).all()
            assert (trainer.gradients() != 0).mean() > 0.9


def test_a_new_adapter_changes_nothing(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", Shape())
    with Model(path) as model:
        targets = [name for name, _, _ in _native.trainable(model._native)]
        trainer = _native.Trainer(model._native, _native.TrainerShape(targets, 4, 16), 8.0, seed=1)
        tokens = np.arange(1, 13, dtype=np.int32)
        loss, count = trainer.loss(tokens[:-1], np.array([0, 11], np.int32), tokens[1:])
        logits = model.session(kv_type="f32").forward(tokens[:-1].tolist(), logits="all").astype(np.float64)
        exact = (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(11), tokens[1:]]).sum()
        assert count == 11
        assert loss == pytest.approx(exact, rel=1e-5)
        same = _native.Trainer(model._native, _native.TrainerShape(targets, 4, 16), 8.0, seed=1)
        other = _native.Trainer(model._native, _native.TrainerShape(targets, 4, 16), 8.0, seed=2)
        assert np.array_equal(trainer.parameters(), same.parameters())
        assert not np.array_equal(trainer.parameters(), other.parameters())
        start = 0
        for name, rows, columns in trainer.names:
            values = trainer.parameters()[start : start + rows * columns]
            start += rows * columns
            if name.endswith("lora_b"):
                assert not values.any()
            else:
                bound = 1.0 if name == "token_embd.lora_a" else columns**-0.5
                assert 0.5 * bound < np.abs(values).max() <= bound


def test_a_plan_grows_with_what_is_asked_for(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        targets = [name for name, _, _ in _native.trainable(model)]
        planned = _native.training_nbytes(model, _native.TrainerShape(targets, 3, 32))
        assert _native.Trainer(model, _native.TrainerShape(targets, 3, 32), 1.0).nbytes <= planned
        assert _native.training_nbytes(model, _native.TrainerShape(targets, 4, 32)) > planned
        assert _native.training_nbytes(model, _native.TrainerShape(targets, 3, 64)) > planned
        assert _native.training_nbytes(model, _native.TrainerShape(targets, 3, 32, 1)) > planned
        assert _native.training_nbytes(model, _native.TrainerShape(targets[:3], 3, 32)) < planned


def test_weights_that_a_mapped_file_gives_back_are_counted_once(tmp_path: Path) -> None:
    # More than the file may have in memory at a time.
    shape = Shape(width=1024, feed_forward=16384)
    path = write_model(tmp_path / "model.gguf", shape, Type.Q4_K)

    def counted(load: Literal["map", "copy"], exact: bool) -> tuple[int, int]:
        with Model(path, load=load) as model:
            of_file = sum(tensor.nbytes for tensor in model.file.tensors)
            return of_file, _native.training_weights_nbytes(model._native, of_file, exact)

    of_file, mapped = counted("map", False)
    assert counted("map", True) == (of_file, of_file)
    assert of_file < mapped < counted("copy", False)[1] - of_file // 3


def test_wrong_arguments_are_told(tmp_path: Path) -> None:
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model)
        tokens, segments, targets = batch()
        integer = np.int32
        for arrays, message in (
            ((tokens[:0], np.array([0], integer), targets[:0]), "0 tokens in a step"),
            ((np.zeros(33, integer), np.array([0, 33], integer), np.zeros(33, integer)), "33 tokens in a step"),
            ((tokens, segments, targets[1:]), "19 targets for 20 tokens"),
            ((tokens, np.array([0, 11], integer), targets), "segments must ascend"),
            ((tokens, np.array([0, 11, 11, 20], integer), targets), "segments must ascend"),
            ((tokens, np.array([], integer), targets), "segments must ascend"),
            ((tokens + 40, segments, targets), "outside the vocabulary"),
            ((tokens - 40, segments, targets), "outside the vocabulary"),
            ((tokens, segments, targets + 40), "outside the vocabulary"),
            ((tokens, segments, targets - 2), "outside the vocabulary"),
        ):
            with pytest.raises(ValueError, match=message):
                trainer.step(*arrays)
        with pytest.raises(ValueError, match="as many"):
            trainer.set_parameters(np.zeros(3, np.float32))
        for name, value in (
            ("learning_rate", -1.0), ("epsilon", float("nan")), ("weight_decay", -0.1), ("clip_norm", 0.0),
            ("divide_by", 0.0), ("betas", (1.0, 0.9)),
        ):  # fmt: skip
            with pytest.raises(ValueError, match="expected"):
                trainer.optimizer_step(**({"learning_rate": 0.1} | {name: value}))
        for targets_, rank, alpha, tokens_, message in (
            (["blk.0.attn_q"], 0, 1.0, 8, "rank of 0"),
            (["blk.0.attn_q"], 10**6, 1.0, 8, "rank of 1000000"),
            (["blk.0.attn_q"], 4, 0.0, 8, "alpha is 0"),
            (["blk.0.attn_q"], 4, 1.0, 0, "steps of 0 tokens"),
            (["blk.9.attn_q"], 4, 1.0, 8, "no matrix"),
            (["blk.0.attn_q"] * 2, 4, 1.0, 8, "named twice"),
            ([], 4, 1.0, 8, "no matrices"),
        ):
            with pytest.raises(ValueError, match=message):
                _native.Trainer(model, _native.TrainerShape(targets_, rank, tokens_), alpha)


@pytest.mark.parametrize(
    ("switches", "what"),
    [
        ({"experts": 4, "experts_used": 2, "expert_feed_forward": 8}, "mixture of experts"),
        ({"causal": False}, "tokens that see those behind them"),
        ({"kv_heads": [0, 2]}, "a matrix in place of attention"),
        ({"latent_size": 8, "rope_size": 4}, "latent attention"),
    ],
)
def test_models_that_cannot_be_trained_are_refused(tmp_path: Path, switches: dict[str, Any], what: str) -> None:
    config = replace(BASE, **switches)
    path = write_config_model(tmp_path / "model.gguf", config)
    with open_config_model(path, config) as model:
        shape = _native.TrainerShape(["blk.0.attn_q"], 4, 8)
        for call in (
            lambda: _native.trainable(model._native),
            lambda: _native.Trainer(model._native, shape, 1.0),
            lambda: _native.training_nbytes(model._native, shape),
        ):
            with pytest.raises(ModelError, match=what):
                call()


def test_a_trainer_that_is_in_use_says_so(tmp_path: Path) -> None:
    """Two threads step one trainer; every call either succeeds or raises RuntimeError, and the state stays sound."""
    with opened(tmp_path, "llama") as (_, model):
        trainer = trainer_of(model)
        problems: list[str] = []

        def work() -> None:
            for _ in range(20):
                try:
                    trainer.step(*batch())
                except RuntimeError as error:
                    problems.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all("in the middle of another call" in problem for problem in problems)
        trainer.clear_gradients()
        assert trainer.step(*batch())[1] == 16
