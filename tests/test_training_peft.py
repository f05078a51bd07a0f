"""A training beside PyTorch and PEFT, where these are installed: the same adapter, the same losses, the same curve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from huggingface_llama import huggingface_llama, loss_of
from llamacpu import _native
from llamacpu.chat import Chat
from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.train.adapters import Adapter, read_gguf_adapter, write_peft_folder
from llamacpu.tools.train.loop import Pace, Training
from llamacpu.tools.train.prepared import Prepared, prepare
from llamacpu.tools.train.schedule import learning_rate, warm_up_steps
from llamacpu.tools.train.targets import chosen_targets

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(1200)]

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
STEPS = 200 if os.environ.get("LLAMACPU_THOROUGH") else 12
SETTINGS = llamacpu.TrainingSettings(rank=8, length=96, steps=STEPS, batch=2, learning_rate=1e-3, seed=5, exact=True)


def records() -> list[dict[str, Any]]:
    """Conversations of which some share rows."""
    names = ["Tom", "Lily", "Max", "Anna", "Ben"]
    places = ["park", "forest", "house", "garden", "sea"]
    return [
        {
            "messages": [
                {"role": "user", "content": f"Where is {name}?"},
                {"role": "assistant", "content": f"{name} is in the {places[(3 * index + len(name)) % 5]}."},
            ]
        }
        for index in range(8)
        for name in names
    ]


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    with llamacpu.Model(DEMO) as model:
        return prepare(Chat.of(model), records(), SETTINGS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return llamacpu.train(DEMO, records(), tmp_path_factory.mktemp("trained") / "lora.gguf", SETTINGS)


@pytest.mark.parametrize(
    ("rslora", "matrices"), [(False, "all"), (True, "all"), (False, ("q_proj", "embed_tokens", "lm_head"))]
)
def test_peft_loads_the_folder_and_computes_the_same_loss(
    prepared: Prepared, tmp_path: Path, rslora: bool, matrices: str | tuple[str, ...]
) -> None:
    settings = replace(SETTINGS, rslora=rslora, steps=3, alpha=12.0, matrices=matrices)
    result = llamacpu.train(DEMO, records(), tmp_path / "lora.gguf", settings)
    theirs = peft.PeftModel.from_pretrained(huggingface_llama(DEMO), result.peft)
    with llamacpu.Model(DEMO) as model:
        targets = chosen_targets(_native.trainable(model._native), settings.matrices)
        adapter = read_gguf_adapter(result.adapter, "llama")
        trainer = _native.Trainer(
            model._native,
            _native.TrainerShape(targets, settings.rank, settings.length, exact=True),
            settings.effective_alpha,
            0,
        )
        plain = trainer.loss(*prepared.rows[0])
        trainer.set_parameters(adapter.flat(trainer.names))
        for row in prepared.rows[:3]:
            with torch.no_grad():
                expected, count = loss_of(theirs, *row)
            found = trainer.loss(*row)
            assert found[1] == count
            assert found[0] == pytest.approx(float(expected), rel=1e-5)
        assert abs(trainer.loss(*prepared.rows[0])[0] - plain[0]) > 1e-3 * plain[0]


def test_the_loss_curve_is_that_of_pytorch_and_peft(prepared: Prepared, trained: Any, tmp_path: Path) -> None:
    base = huggingface_llama(DEMO)
    with llamacpu.Model(DEMO) as model:
        targets = [name for name, _, _ in _native.trainable(model._native) if name.startswith("blk.")]
        trainer = _native.Trainer(
            model._native,
            _native.TrainerShape(targets, SETTINGS.rank, SETTINGS.length, exact=True),
            SETTINGS.effective_alpha,
            SETTINGS.seed,
        )
        first = Adapter.of(trainer.names, trainer.parameters(), SETTINGS.effective_alpha)
        write_peft_folder(tmp_path / "first", model, first, alpha=SETTINGS.given_alpha, rslora=False)
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "first", is_trainable=True)
        order = Training.__new__(Training)
        order._rows, order._settings, order.pace = prepared.rows, SETTINGS, Pace.of(len(prepared.rows), SETTINGS)
        order._order = (-1, [])
    weights = [each for each in theirs.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=SETTINGS.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    warm_up = warm_up_steps(SETTINGS.warm_up, STEPS)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        total = 0.0
        parts = [loss_of(theirs, *row) for row in order._rows_of(step)]
        count = sum(number for _, number in parts)
        for loss, _ in parts:
            (loss / count).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(weights, SETTINGS.clip_norm)
        rate = learning_rate(SETTINGS.learning_rate, SETTINGS.schedule, step, STEPS, warm_up)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(total / count)
    found = [point.loss for point in trained.points]
    assert len(found) == STEPS
    assert np.allclose(found, losses, rtol=0.01), np.abs(np.array(found) / losses - 1).max()
    assert losses[-1] < losses[0]


def test_the_adapter_is_the_one_that_llama_cpp_converts_from_the_folder(trained: Any, tmp_path: Path) -> None:
    sources = os.environ.get("LLAMACPU_LLAMA_CPP")
    if sources is None:
        pytest.skip("LLAMACPU_LLAMA_CPP does not name llama.cpp's sources")
    base = tmp_path / "base"
    huggingface_llama(DEMO).config.save_pretrained(base)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    command = [sys.executable, f"{sources}/convert_lora_to_gguf.py", str(trained.peft), "--base", str(base)]
    environment = {**os.environ, "PYTHONPATH": f"{sources}/gguf-py"}
    subprocess.run([*command, "--outfile", str(tmp_path / "theirs.gguf")], check=True, env=environment)
    with GGUFFile(tmp_path / "theirs.gguf") as theirs, GGUFFile(trained.adapter) as ours:
        assert [tensor[:4] for tensor in ours.tensors] == [tensor[:4] for tensor in theirs.tensors]
        for one, other in zip(ours.tensors, theirs.tensors, strict=True):
            assert ours.tensor_bytes(one, 0, one.nbytes) == theirs.tensor_bytes(other, 0, other.nbytes)
        for key, value in theirs.metadata.items():
            if key != "general.name":  # theirs is the name of the folder
                assert ours.metadata[key] == value
                assert ours.metadata.value_type(key) == theirs.metadata.value_type(key)
        assert set(ours.metadata) == set(theirs.metadata)
