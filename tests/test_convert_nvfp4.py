"""Checkpoints in NVFP4 become files in NVFP4, with the same weights to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

import llamacpu
from converted_checkpoints import load, write_checkpoint
from llamacpu import Checkpoint, CheckpointError
from nvfp4_checkpoints import FORMS, rewritten

FACTS = load()
PLAIN = next(name for name in FACTS["models"] if name.startswith("Tiny"))


def checkpoint(folder: Path, name: str, form: str) -> tuple[Path, dict[str, Any]]:
    place = write_checkpoint(folder / (form or "floats"), FACTS["models"][name], FACTS["tokenizers"])
    return place, rewritten(place, FACTS["models"][name], form)


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_unpacked(tmp_path: Path, form: str) -> None:
    place, expected = checkpoint(tmp_path, PLAIN, form)
    tensors = Checkpoint.open(place).tensors
    assert not [name for name in tensors if "scale" in name or "packed" in name]
    assert len(expected) >= 7
    for name, weights in expected.items():
        assert tensors[name].shape == weights.shape
        assert np.array_equal(tensors[name].read(), weights)
        assert np.array_equal(tensors[name].rows(3, 9), weights[3:9])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", [PLAIN, "qwen3moe"])
def test_files_have_the_weights_of_the_checkpoint(tmp_path: Path, name: str, form: str) -> None:
    """Rows of queries and keys are permuted, experts are stacked, each with its factor."""
    place, expected = checkpoint(tmp_path, name, form)
    floats, _ = checkpoint(tmp_path, name, "")
    path = llamacpu.convert(place, tmp_path / "nvfp4.gguf")
    if form == "compressed-tensors":
        rewritten_floats(floats, expected)
    reader = GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert reader.fields["general.file_type"].contents() == 39
    exact = {t.name: t for t in GGUFReader(llamacpu.convert(floats, tmp_path / "exact.gguf", type="f32")).tensors}
    kinds = {tensor.tensor_type.name for tensor in tensors.values()}
    assert "NVFP4" in kinds
    assert set(exact) == {other for other in tensors if not other.endswith("scale")}
    for other, tensor in tensors.items():
        if tensor.tensor_type.name != "NVFP4":
            continue
        factors = tensors[other.replace(".weight", ".scale")].data
        assert np.all(tensors[other.replace(".weight", ".input_scale")].data == 0.5)
        back = dequantize(tensor.data, gguf.GGMLQuantizationType["NVFP4"])
        assert factors.size == (tensor.shape[2] if len(tensor.shape) > 2 else 1)
        back = back.reshape(factors.size, -1) * factors[:, None]
        assert np.array_equal(back.ravel(), exact[other].data.ravel()), other
    with llamacpu.Model(path) as model, llamacpu.Model(tmp_path / "exact.gguf") as other_model:
        tokens = list(range(3, 30))
        got, wanted = (one.session(kv_type="f32").forward(tokens, logits="all") for one in (model, other_model))
        # Products with quantized weights round activations to 8 bits.
        assert ((got - wanted) ** 2).sum() / (wanted**2).sum() < 0.05


def rewritten_floats(folder: Path, expected: dict[str, Any]) -> None:
    """Put these matrices into a checkpoint."""
    from checkpoint_files import safetensors_bytes

    tensors = {name: tensor.read() for name, tensor in Checkpoint.open(folder).tensors.items()} | expected
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(tensors.items()))))


def test_a_configuration_in_a_file_of_its_own(tmp_path: Path) -> None:
    place, expected = checkpoint(tmp_path, PLAIN, "modelopt")
    config = json.loads((place / "config.json").read_text())
    del config["quantization_config"]
    (place / "config.json").write_text(json.dumps(config))
    stated = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}
    (place / "hf_quant_config.json").write_text(json.dumps(stated))
    name, weights = next(iter(expected.items()))
    assert np.array_equal(Checkpoint.open(place).tensors[name].read(), weights)


def test_weights_that_would_have_to_be_changed_are_refused(tmp_path: Path) -> None:
    from llamacpu.tools.convert.arrays import Array

    place, expected = checkpoint(tmp_path, PLAIN, "modelopt")
    array = Array.of(Checkpoint.open(place).tensors[next(iter(expected))])
    for change in (array.transposed, lambda: array.each(lambda values: values + 1)):
        with pytest.raises(CheckpointError, match="weights in NVFP4 of the shape"):
            change()
