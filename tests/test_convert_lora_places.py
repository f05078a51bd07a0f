"""Adapters and their base models by name: on this machine, in the hub's cache, on the hub; and by the command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import CheckpointError, StoreError
from llamacpu.tools.train.adapters import Adapter, write_gguf_adapter, write_peft_folder
from model_hub import ModelHub, use_alone
from peft_files import factors, write_adapter, write_base


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModelHub]:
    server = ModelHub()
    use_alone(server, monkeypatch, tmp_path / "own")
    yield server
    server.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return write_adapter(tmp_path / "adapter", factors({"model.layers.0.self_attn.q_proj": (32, 32)}))


def test_both_come_from_the_hub(tmp_path: Path, hub: ModelHub, adapter: Path) -> None:
    base = write_base(tmp_path / "base")
    expected = llamacpu.convert_lora(adapter, tmp_path / "1.gguf", base=base).read_bytes()
    hub.repositories["owner/adapter"] = contents(adapter) | {"optimizer.pt": bytes(1000)}
    hub.repositories["owner/base"] = contents(base) | {"model.safetensors": bytes(1000)}
    told: list[tuple[int, int]] = []
    path = llamacpu.convert_lora("owner/adapter", tmp_path / "2.gguf", on_download=lambda *done: told.append(done))
    assert path.read_bytes() == expected
    assert told
    asked = [path for path, _, _ in hub.requests if "/resolve/" in path]
    assert sorted(path.rpartition("/")[2] for path in asked) == [
        "adapter_config.json", "adapter_model.safetensors", "config.json"
    ]  # fmt: skip
    before = len(hub.requests)
    assert llamacpu.convert_lora("hf:owner/adapter", tmp_path / "3.gguf", base="owner/base").read_bytes() == expected
    assert len(hub.requests) == before, "what was downloaded is in the store"


def test_what_the_hub_does_not_have_is_said(tmp_path: Path, hub: ModelHub, adapter: Path) -> None:
    hub.repositories["owner/other"] = {"README.md": b""}
    with pytest.raises(CheckpointError, match=r"owner/other: there is no adapter_config\.json"):
        llamacpu.convert_lora("owner/other", tmp_path / "o.gguf")
    with pytest.raises(StoreError, match="owner/nothing"):
        llamacpu.convert_lora("owner/nothing", tmp_path / "o.gguf")
    with pytest.raises(StoreError, match="owner/base"):
        llamacpu.convert_lora(adapter, tmp_path / "o.gguf")
    with pytest.raises(CheckpointError, match="no such folder"):
        llamacpu.convert_lora("nothing", tmp_path / "o.gguf")


def test_the_cache_of_the_hub_is_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: Path) -> None:
    repository = tmp_path / "cache" / "models--owner--base"
    write_base(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    assert llamacpu.convert_lora(adapter, tmp_path / "o.gguf").stat().st_size > 0


def test_the_command_tells_an_adapter_from_a_checkpoint(tmp_path: Path, adapter: Path) -> None:
    base = write_base(tmp_path / "base")
    arguments = ["convert", str(adapter), "--base", str(base), "-o", str(tmp_path / "a.gguf")]
    result = CliRunner().invoke(command_line, arguments)
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'a.gguf'}\n")
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(base)}))
    result = CliRunner().invoke(
        command_line, ["convert", str(adapter), "-o", str(tmp_path / "b.gguf"), "--type", "f16"]
    )
    assert result.exit_code == 0
    with llamacpu.GGUFFile(tmp_path / "b.gguf") as file:
        assert {tensor.type_name for tensor in file.tensors} == {"F16"}
    config.write_text("{")
    result = CliRunner().invoke(command_line, ["convert", str(adapter), "-o", str(tmp_path / "c.gguf")])
    assert result.exit_code != 0
    assert "adapter_config.json: not valid JSON" in result.stderr
    assert not (tmp_path / "c.gguf").exists()


@pytest.mark.instruction_set
def test_a_converted_adapter_runs(tmp_path: Path, golden: Path, adapter: Path) -> None:
    base = golden / "families" / "lora-base.gguf"
    pairs = factors({"model.layers.0.self_attn.q_proj": (64, 64), "model.layers.3.mlp.down_proj": (64, 128)})
    path = llamacpu.convert_lora(write_adapter(tmp_path / "fits", pairs), tmp_path / "o.gguf", base=base)
    with llamacpu.Model(base) as model:
        plain = model.session(context=32).forward([3, 4, 5])
        changed = model.session(context=32, lora=[(path, 1.0)]).forward([3, 4, 5])
    assert np.isfinite(changed).all()
    assert np.abs(changed - plain).max() > 0.01


@pytest.mark.parametrize("rslora", [False, True])
def test_what_training_writes_in_both_forms_is_one_adapter(
    tmp_path: Path, tiny_model: Callable[..., Path], rslora: bool
) -> None:
    path, rank, alpha = tiny_model("gqa"), 4, 6.0
    generator = np.random.default_rng(5)
    with llamacpu.Model(path) as model:
        shapes = {tensor.name: tensor.shape[::-1] for tensor in model.file.tensors}
        matrices = {}
        for target in ("blk.0.attn_q", "blk.0.attn_k", "blk.1.ffn_down"):
            rows, columns = shapes[f"{target}.weight"]
            sizes = (rank, columns), (rows, rank)
            matrices[target] = tuple(generator.standard_normal(size).astype(np.float32) for size in sizes)
        adapter = Adapter(matrices, alpha * (rank**0.5 if rslora else 1))
        write_gguf_adapter(tmp_path / "a.gguf", model, adapter)
        write_peft_folder(tmp_path / "peft", model, adapter, alpha=alpha, rslora=rslora)
    llamacpu.convert_lora(tmp_path / "peft", tmp_path / "b.gguf", base=path)
    found = []
    for name in ("a.gguf", "b.gguf"):
        with llamacpu.GGUFFile(tmp_path / name) as file:
            tensors = {tensor.name: file.tensor_bytes(tensor, 0, tensor.nbytes) for tensor in file.tensors}
            found.append((file.metadata["adapter.lora.alpha"], tensors))
    assert found[0] == found[1]
