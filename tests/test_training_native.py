"""Training natively: the same bits for any number of threads and after a kill, within the stated memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu import _native
from llamacpu.tools.train.adapters import read_gguf_adapter
from llamacpu.tools.train.targets import chosen_targets

pytestmark = [
    pytest.mark.instruction_set,
]

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
SETTINGS = llamacpu.TrainingSettings(
    rank=4, length=64, steps=5, batch=2, learning_rate=1e-3, validation=2, evaluate_every=2, seed=1
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    places = ("park", "sea", "house")
    lines = [
        {"prompt": f"Where is Tom {number}?", "completion": f"In the {places[number % 3]}."} for number in range(12)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return llamacpu.train(DEMO, data, tmp_path_factory.mktemp("whole") / "lora.gguf", SETTINGS, threads=2)


@pytest.mark.instruction_set(one_in=None)
def test_the_loss_falls(whole: Any) -> None:
    losses = [point.loss for point in whole.points if point.loss is not None]
    assert len(losses) == 5
    assert losses[-1] < losses[0]
    assert whole.validation_loss < whole.points[0].validation_loss


@pytest.mark.instruction_set(one_in=None)
def test_adapters_of_embeddings_and_output_run_as_they_were_trained(data: Path, tmp_path: Path) -> None:
    settings = replace(SETTINGS, matrices=("attn_q", "token_embd", "output"), learning_rate=0.02, validation=0)
    base = tmp_path / "base.gguf"
    llamacpu.quantize(DEMO, base, "F32", allow_requantize=True)  # So that no rounding of activations differs.
    result = llamacpu.train(base, data, tmp_path / "lora.gguf", settings)
    tokens = np.arange(5, 45, dtype=np.int32)
    with llamacpu.Model(base) as model:
        targets = chosen_targets(_native.trainable(model._native), settings.matrices)
        adapter = read_gguf_adapter(result.adapter, "llama")
        assert sorted(adapter.matrices) == sorted(targets)
        trainer = _native.Trainer(
            model._native, _native.TrainerShape(targets, settings.rank, 64), settings.effective_alpha
        )
        trainer.set_parameters(adapter.flat(trainer.names))
        loss, _ = trainer.loss(tokens[:-1], np.array([0, 39], np.int32), tokens[1:])
        losses = []
        for lora in ([], [(result.adapter, 1.0)]):
            logits = model.session(kv_type="f32", lora=lora).forward(tokens[:-1].tolist(), logits="all")
            exact = logits.astype(np.float64)
            losses.append((np.log(np.exp(exact).sum(axis=1)) - exact[np.arange(39), tokens[1:]]).sum())
    assert loss == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[1] - losses[0]) > 0.01 * losses[0]


def test_the_number_of_threads_changes_no_bit(whole: Any, data: Path, tmp_path: Path) -> None:
    other = llamacpu.train(DEMO, data, tmp_path / "lora.gguf", SETTINGS, threads=1)
    assert other.adapter.read_bytes() == whole.adapter.read_bytes()
    assert other.points == whole.points


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("kill_at", [5] if not os.environ.get("LLAMACPU_THOROUGH") else range(10))
def test_a_killed_run_resumes_to_the_same_bits(whole: Any, data: Path, tmp_path: Path, kill_at: int) -> None:
    script = f"""
        import os, signal, llamacpu
        rows = 0
        def on_progress(progress):
            global rows
            rows += 1
            if rows > {kill_at}:
                os.kill(os.getpid(), signal.SIGKILL)
        llamacpu.train({str(DEMO)!r}, {str(data)!r}, {str(tmp_path / "lora.gguf")!r}, llamacpu.{SETTINGS!r},
                       checkpoint_seconds=0, on_progress=on_progress)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    result = llamacpu.train(DEMO, data, tmp_path / "lora.gguf", SETTINGS, resume=True)
    assert result.adapter.read_bytes() == whole.adapter.read_bytes()
    assert result.points == whole.points


@pytest.mark.instruction_set(one_in=None)
def test_a_cancelled_run_leaves_a_checkpoint(whole: Any, data: Path, tmp_path: Path) -> None:
    token = llamacpu.CancelToken()

    def stop(progress: Any) -> None:
        if progress.step == 2:
            token.cancel()

    with pytest.raises(llamacpu.Cancelled):
        llamacpu.train(DEMO, data, tmp_path / "lora.gguf", SETTINGS, on_progress=stop, cancel=token)
    result = llamacpu.train(DEMO, data, tmp_path / "lora.gguf", SETTINGS, resume=True)
    assert result.adapter.read_bytes() == whole.adapter.read_bytes()


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_stated_memory_is_kept(data: Path, tmp_path: Path) -> None:
    script = f"""
        import re, llamacpu
        def peak():
            return int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) * 1024
        small = llamacpu.TrainingSettings(rank=4, length=16, steps=1)
        llamacpu.train({str(DEMO)!r}, {str(data)!r}, {str(tmp_path / "a.gguf")!r}, small)
        before = peak()
        large = llamacpu.TrainingSettings(rank=64, length=1024, steps=2)
        result = llamacpu.train({str(DEMO)!r}, {str(data)!r}, {str(tmp_path / "b.gguf")!r}, large)
        print(peak() - before, result.plan.training_bytes)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, timeout=100)
    grown, stated = map(int, done.stdout.split())
    assert grown <= stated + (8 << 20)
