"""The training loop, its checkpoints and its files, with a trainer in NumPy that is a model of its own."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu.checkpoints.safetensors import read_safetensors
from llamacpu.errors import TrainingError
from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.train import TrainingPlan, TrainingProgress, TrainingResult
from llamacpu.tools.train.checkpoints import read_checkpoint
from numpy_trainer import NAMES, NumpyTrainer, TrainerShape
from training_child import SETTINGS, native

CHILD = Path(__file__).with_name("training_child.py")
THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))


@pytest.fixture(autouse=True)
def numpy_native(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.tools.train.run._native", native())


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("bpe")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "talk.jsonl"
    words = ("once upon a time", "the big tree", "help her", "she loved to play outside")
    lines = [
        {"messages": [{"role": "user", "content": f"{n % 7}"}, {"role": "assistant", "content": words[n % 4]}]}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def train(model: Path, data: Any, output: Path, **other: Any) -> TrainingResult:
    changes = {name: other.pop(name) for name in list(other) if hasattr(SETTINGS, name)}
    return llamacpu.train(model, data, output, replace(SETTINGS, **changes), **other)


@pytest.fixture(scope="module")
def whole(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The adapter of a run that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native())
        return train(model, data, tmp_path_factory.mktemp("whole") / "lora.gguf").adapter


def test_the_gradients_of_the_trainer_of_these_tests_are_right() -> None:
    trainer = NumpyTrainer(None, TrainerShape(list(NAMES), 2, 16), 4.0, 1)
    random_ = np.random.default_rng(0)
    trainer.set_parameters(random_.normal(size=trainer.values.shape).astype(np.float32))
    tokens = random_.integers(0, 512, 12).astype(np.int32)
    segments = np.array([0, 5, 12], np.int32)
    targets = np.where(random_.random(12) < 0.6, random_.integers(0, 512, 12), -1).astype(np.int32)
    trainer.step(tokens, segments, targets)
    found = trainer.gradients()
    start = trainer.parameters()
    for place in range(0, len(start), 5):
        sides = []
        for move in (1e-3, -1e-3):
            values = start.copy()
            values[place] += move
            trainer.set_parameters(values)
            sides.append((trainer.loss(tokens, segments, targets)[0], values[place]))
        slope = (sides[0][0] - sides[1][0]) / (float(sides[0][1]) - float(sides[1][1]))
        assert slope == pytest.approx(float(found[place]), rel=1e-3, abs=1e-3)


def test_a_training_learns_and_writes_all_its_files(model: Path, data: Path, tmp_path: Path) -> None:
    plans: list[TrainingPlan] = []
    seen: list[TrainingProgress] = []
    result = train(model, data, tmp_path / "lora.gguf", steps=60, on_plan=plans.append, on_progress=seen.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora-loss.csv", "lora-peft", "lora.gguf"]
    losses = [point.loss for point in result.points if point.loss is not None]
    assert len(losses) == result.steps == 60
    assert result.loss < 0.6 * losses[0]
    assert result.points[0].validation_loss is not None
    assert result.validation_loss is not None
    assert result.validation_loss < 0.6 * result.points[0].validation_loss
    (plan,) = plans
    assert (plan.samples, plan.validation_samples, plan.matrices, plan.parameters) == (35, 5, 2, 64)
    assert "memory: " in plan.lines()[2]
    assert [progress.step for progress in seen] == sorted(progress.step for progress in seen)
    assert (seen[-1].step, seen[-1].steps) == (60, 60)
    assert seen[-1].tokens_per_second is not None
    assert seen[-1].seconds_left == 0
    with (tmp_path / "lora-loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows[1:]] == losses
    assert [int(row["step"]) for row in rows] == list(range(61))


def test_two_trainings_do_not_work_on_one_output(model: Path, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "lora.gguf"

    def meanwhile(_: TrainingPlan) -> None:
        for resume in (False, True):
            with pytest.raises(TrainingError, match=r"another training is at work on .*lora\.gguf"):
                train(model, data, output, steps=1, resume=resume)
        train(model, data, tmp_path / "other.gguf", steps=1)

    train(model, data, output, steps=1, on_plan=meanwhile)
    train(model, data, output, steps=1)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_adapter_with_the_lowest_validation_loss_is_written(model: Path, data: Path, tmp_path: Path) -> None:
    # A learning rate that makes the loss jump: the last step is not the best one.
    result = train(model, data, tmp_path / "a.gguf", learning_rate=1.0, schedule="constant", steps=40, patience=2)
    evaluations = {p.step: p.validation_loss for p in result.points if p.validation_loss is not None}
    assert result.stopped_early
    assert result.steps < 40
    assert result.best_step == min(evaluations, key=lambda step: evaluations[step] or 0)
    assert list(evaluations)[-1] == result.steps
    assert list(evaluations).index(result.best_step) == len(evaluations) - 3
    shorter = train(
        model, data, tmp_path / "b.gguf", learning_rate=1.0, schedule="constant", steps=40, evaluate_every=1, patience=0
    )
    assert shorter.best_step <= 40


def tensors_of(path: Path) -> dict[str, bytes]:
    with GGUFFile(path) as file:
        return {tensor.name: file.tensor_bytes(tensor, 0, tensor.nbytes) for tensor in file.tensors}


def child(model: Path, data: Path, output: Path, resume: bool, when: str, number: int) -> int:
    command = [sys.executable, CHILD, model, data, output, "resume" if resume else "new", when, str(number)]
    return subprocess.run([str(part) for part in command], timeout=100).returncode


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("round_", range(20 if THOROUGH else 2))
def test_a_killed_run_resumes_to_the_same_bits(
    model: Path, data: Path, whole: Path, tmp_path: Path, round_: int
) -> None:
    draw = random.Random(round_)
    output = tmp_path / "lora.gguf"
    when, number = draw.choice(["step", "write"]), draw.randrange(2, 12)
    assert child(model, data, output, False, when, number) == -signal.SIGKILL
    checkpoint = read_checkpoint(tmp_path / "lora.gguf.checkpoint")
    assert checkpoint.step < 12
    assert not output.exists()
    if draw.random() < 0.5:
        assert child(model, data, output, True, "step", draw.randrange(1, 3)) == -signal.SIGKILL
    train(model, data, output, resume=True)
    assert output.read_bytes() == whole.read_bytes()
    assert (tmp_path / "lora-loss.csv").read_bytes() == whole.with_name("lora-loss.csv").read_bytes()
    weights = Path("lora-peft", "adapter_model.safetensors")
    assert (tmp_path / weights).read_bytes() == (whole.parent / weights).read_bytes()
    assert not (tmp_path / "lora.gguf.checkpoint").exists()


@pytest.mark.parametrize("call", [1, 8, 24])
def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_bits(
    model: Path, data: Path, whole: Path, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(NumpyTrainer):
        def step(self, *arguments: Any) -> tuple[float, int]:
            found = super().step(*arguments)
            if self.calls == call:
                raise KeyboardInterrupt
            return found

    with monkeypatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native(Interrupted))
        with pytest.raises(KeyboardInterrupt):
            train(model, data, tmp_path / "lora.gguf")
    assert read_checkpoint(tmp_path / "lora.gguf.checkpoint").step == (call - 1) // 2
    train(model, data, tmp_path / "lora.gguf", resume=True)
    assert (tmp_path / "lora.gguf").read_bytes() == whole.read_bytes()


def test_ctrl_c_in_a_step_of_the_optimizer_waits_until_it_is_noted(
    model: Path, data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(NumpyTrainer):
        def optimizer_step(self, *arguments: Any) -> float:
            found = super().optimizer_step(*arguments)
            if self.steps == 3:
                signal.raise_signal(signal.SIGINT)
            return found

    with monkeypatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native(Interrupted))
        with pytest.raises(KeyboardInterrupt):
            train(model, data, tmp_path / "lora.gguf")
    assert read_checkpoint(tmp_path / "lora.gguf.checkpoint").step == 3
    train(model, data, tmp_path / "lora.gguf", resume=True)
    assert (tmp_path / "lora.gguf").read_bytes() == whole.read_bytes()


@pytest.fixture
def stopped(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output of a run that was stopped in its fourth step."""

    class Stopped(NumpyTrainer):
        def step(self, *arguments: Any) -> tuple[float, int]:
            if self.calls == 6:
                raise KeyboardInterrupt
            return super().step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native(Stopped))
        with pytest.raises(KeyboardInterrupt):
            train(model, data, tmp_path / "lora.gguf")
    return tmp_path / "lora.gguf"


def test_only_the_same_run_is_resumed(
    model: Path, data: Path, stopped: Path, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    checkpoint = stopped.with_name("lora.gguf.checkpoint").read_bytes()
    other = tmp_path / "other.jsonl"
    other.write_text(data.read_text().replace("big", "small"))
    with pytest.raises(TrainingError, match="has not ended; resume it"):
        train(model, data, stopped)
    with pytest.raises(TrainingError, match=r"other settings: learning_rate \(0\.02, now 0\.03\), seed \(3, now 4\)"):
        train(model, data, stopped, resume=True, learning_rate=0.03, seed=4)
    with pytest.raises(TrainingError, match="other data"):
        train(model, other, stopped, resume=True)
    with pytest.raises(TrainingError, match="another model"):
        train(tiny_model("bpe", seed=1), data, stopped, resume=True)
    assert stopped.with_name("lora.gguf.checkpoint").read_bytes() == checkpoint
    train(model, data, stopped, resume=True)
    with pytest.raises(TrainingError, match="no checkpoint"):
        train(model, data, stopped, resume=True)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_checkpoint_is_refused(model: Path, data: Path, stopped: Path, damage: str) -> None:
    path = stopped.with_name("lora.gguf.checkpoint")
    raw = path.read_bytes()
    changed = {
        "cut": raw[:-100],
        "flipped": raw[:-7] + bytes([raw[-7] ^ 1]) + raw[-6:],
        "empty": b"",
        "other": b"\x10\0\0\0\0\0\0\0{}" + b" " * 14,
    }[damage]
    path.write_bytes(changed)
    with pytest.raises(TrainingError, match=r"checkpoint"):
        train(model, data, stopped, resume=True)
    assert path.read_bytes() == changed


def test_a_checkpoint_survives_a_full_disk(
    model: Path, data: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stopped.with_name("lora.gguf.checkpoint")
    before = path.read_bytes()
    with monkeypatch.context() as patch:

        def full(_descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            train(model, data, stopped, resume=True)
    assert path.read_bytes() == before


def test_a_training_that_diverges_says_so(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Diverging(NumpyTrainer):
        def step(self, *arguments: Any) -> tuple[float, int]:
            loss, count = super().step(*arguments)
            return (float("nan") if self.calls > 5 else loss), count

    monkeypatch.setattr("llamacpu.tools.train.run._native", native(Diverging))
    with pytest.raises(TrainingError, match=r"the loss of step 3 is nan.*lower learning rate than 0\.02"):
        train(model, data, tmp_path / "lora.gguf")
    assert not (tmp_path / "lora.gguf").exists()


def test_an_adapter_is_trained_further(model: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    result = train(model, data, tmp_path / "b.gguf", start_from=whole, steps=1, validation=0, learning_rate=1e-9)
    for name, raw in tensors_of(result.adapter).items():
        first = np.frombuffer(tensors_of(whole)[name], np.float32)
        assert np.allclose(np.frombuffer(raw, np.float32), first, atol=1e-6)
    with pytest.raises(TrainingError, match=r"lora\.gguf: its rank is 2, and 4 is asked for"):
        train(model, data, tmp_path / "c.gguf", start_from=whole, rank=4)
    with pytest.raises(TrainingError, match=r"its matrices are not those"):
        train(model, data, tmp_path / "c.gguf", start_from=whole, matrices=("attn_q",))
    with pytest.raises(TrainingError, match=r"its alpha is 4, and 32 is asked for"):
        train(model, data, tmp_path / "c.gguf", start_from=whole, alpha=32)
    with pytest.raises(TrainingError, match="no LoRA adapter"):
        train(model, data, tmp_path / "c.gguf", start_from=model)


def test_no_other_file_is_lost(model: Path, data: Path, tmp_path: Path) -> None:
    own = tmp_path / "model.gguf"
    own.write_bytes(model.read_bytes())
    (tmp_path / "notes.gguf").write_text("notes")
    for name, told in (("model.gguf", "the model"), ("notes.gguf", "other than an adapter")):
        before = (tmp_path / name).read_bytes()
        with pytest.raises(FileExistsError, match=told):
            train(own, data, tmp_path / name)
        assert (tmp_path / name).read_bytes() == before
    with pytest.raises(FileExistsError, match="something other"):
        train(model, data, tmp_path / "a.gguf", log=data)
    with pytest.raises(FileExistsError, match="holds other files"):
        train(model, data, tmp_path / "a.gguf", peft=tmp_path)
    with pytest.raises(TrainingError, match=r"expected the name of a \.gguf file"):
        train(model, data, tmp_path / "a.bin")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        train(model, data, tmp_path / "none" / "a.gguf")
    assert not (tmp_path / "a.gguf").exists()


def test_what_does_not_fit_into_memory_is_refused_before_the_start(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamacpu.tools.train.run.available_memory", lambda: 1000)
    with pytest.raises(MemoryError, match=r"the training needs .*1\.0 kB are free; lower the length or the rank"):
        train(model, data, tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_names_of_matrices(model: Path, data: Path, tmp_path: Path) -> None:
    result = train(model, data, tmp_path / "a.gguf", matrices="q_proj", steps=1)
    assert list(tensors_of(result.adapter)) == ["blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b"]
    with pytest.raises(TrainingError, match="no matrix of the model is called 'attn_x'; did you mean 'attn_"):
        train(model, data, tmp_path / "b.gguf", matrices=("attn_x",))


def test_the_peft_folder_has_the_rows_of_hugging_face(model: Path, data: Path, tmp_path: Path) -> None:
    result = train(model, data, tmp_path / "a.gguf", rslora=True, alpha=3.0)
    assert result.peft is not None
    config = json.loads((result.peft / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (2, 3, True)
    # The tiny model has more layers, which these adapters leave out.
    assert config["target_modules"] == ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"]
    tensors, metadata = read_safetensors(result.peft / "adapter_model.safetensors")
    arrays = {name: tensor.read_raw() for name, tensor in tensors.items()}
    assert metadata == {"format": "pt"}
    own = {name: np.frombuffer(raw, np.float32) for name, raw in tensors_of(result.adapter).items()}
    with GGUFFile(result.adapter) as file:
        assert file.metadata["adapter.lora.alpha"] == pytest.approx(3 * np.sqrt(2))
    prefix = "base_model.model.model.layers.0.self_attn"
    assert np.array_equal(arrays[f"{prefix}.v_proj.lora_B.weight"].reshape(-1), own["blk.0.attn_v.weight.lora_b"])
    assert np.array_equal(arrays[f"{prefix}.q_proj.lora_A.weight"].reshape(-1), own["blk.0.attn_q.weight.lora_a"])
    theirs, ours = arrays[f"{prefix}.q_proj.lora_B.weight"], own["blk.0.attn_q.weight.lora_b"].reshape(8, 2)
    # Four heads of two rows: neighbours in the file are halves of a head in Hugging Face's order.
    heads = 4
    half = len(theirs) // heads // 2
    for head in range(heads):
        for row in range(half):
            for side in range(2):
                start = head * 2 * half
                assert np.array_equal(theirs[start + side * half + row], ours[start + 2 * row + side])


def test_a_model_without_a_chat_format_learns_completions_as_they_are(model: Path, tmp_path: Path) -> None:
    told: list[int] = []
    for override in (None, False, True):
        plans: list[TrainingPlan] = []
        with llamacpu.Model(model, overrides={"tokenizer.chat_template": ""}) as base:
            data = [{"prompt": "a", "completion": "b"}]
            train(base, data, tmp_path / "a.gguf", steps=1, validation=0, raw=override, on_plan=plans.append)
        told.append(plans[0].tokens)
    # The token that begins a text, "a", and "b", before which each is predicted.
    assert told[0] == told[2] == 3
    assert told[1] > 3


def test_a_run_that_is_resumed_on_another_day_has_the_date_of_its_first(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = "{% for m in messages %}{{ strftime_now('%d %H:%M') + m.role + m.content }}<|eot_id|>{% endfor %}"
    data = [{"prompt": f"a{n}", "completion": "b"} for n in range(6)]

    class Stopped(NumpyTrainer):
        def step(self, *arguments: Any) -> tuple[float, int]:
            raise KeyboardInterrupt

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2099, 1, 1, 3, 4)

    with monkeypatch.context() as patch:
        patch.setattr("llamacpu.tools.train.run._native", native(Stopped))
        with pytest.raises(KeyboardInterrupt):
            train(model, data, tmp_path / "a.gguf", template=template, validation=0)
    monkeypatch.setattr("llamacpu.chat.clock.datetime", Tomorrow)
    monkeypatch.setattr("llamacpu.tools.train.run.datetime", Tomorrow)
    train(model, data, tmp_path / "a.gguf", template=template, validation=0, resume=True)
    assert (tmp_path / "a.gguf").exists()


def test_the_memory_is_what_was_allowed(model: Path, data: Path, tmp_path: Path) -> None:
    plans: list[TrainingPlan] = []
    train(model, data, tmp_path / "a.gguf", steps=1, on_plan=plans.append)
    assert plans[0].kept_layers == 2
    least = plans[0].memory_bytes - 1
    train(model, data, tmp_path / "a.gguf", steps=1, on_plan=plans.append, memory=least)
    assert plans[1].kept_layers == 1
    assert plans[1].memory_bytes <= least
    with pytest.raises(MemoryError, match=r"and 1\.0 kB are allowed; lower the length"):
        train(model, data, tmp_path / "a.gguf", memory=1000)
