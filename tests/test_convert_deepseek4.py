"""Checkpoints of DeepSeek V4 become files: the bytes of llama.cpp's converter, and the weights of the checkpoint."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from deepseek4_checkpoints import CONFIG, EXPERTS, LAYERS, tensors, write_checkpoint
from gguf_types import E2M1, E4M3
from llamacpu import Checkpoint, CheckpointError, Model, convert
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from reference_deepseek4 import ReferenceDeepseek4

LLAMA_CPP = "38fbb72ec59155cdd8788c810d0c92bf"
"""Of the file that llama.cpp's converter makes of the checkpoint, whatever type it is asked for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoints") / "Tiny-V4")


@pytest.mark.parametrize("type", ["auto", "f32", "q8_0"])
def test_bytes_of_llama_cpp(folder: Path, tmp_path: Path, type: str) -> None:
    path = convert(folder, tmp_path / "model.gguf", type=type)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:32] == LLAMA_CPP


def test_weights_are_those_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    """MXFP4 keeps them; what had 8 bits has 8 bits again, within half a step of the larger of its values."""
    stored = tensors()
    files = {tensor.name: tensor for tensor in gguf.GGUFReader(convert(folder, tmp_path / "model.gguf")).tensors}
    for part, ours in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
        tensor = files[f"blk.2.ffn_{ours}_exps.weight"]
        assert tensor.tensor_type.name == "MXFP4"
        found = dequantize(tensor.data, tensor.tensor_type)
        for expert in range(EXPERTS):
            stem = f"layers.2.ffn.experts.{expert}.{part}"
            codes: Any = stored[f"{stem}.weight"]
            scales: Any = stored[f"{stem}.scale"][1]
            codes = codes.view(np.uint8)
            values = E2M1[np.stack([codes & 15, codes >> 4], axis=-1).reshape(*scales.shape, 32)]
            exact = values * 2.0 ** (scales[..., None].astype(float) - 128)
            assert np.array_equal(found[expert].reshape(exact.shape), exact)
    tensor = files["blk.1.attn_q_b.weight"]
    eights: Any = stored["layers.1.attn.wq_b.weight"][1]
    exact = np.where(eights & 128, -2, 2) * E4M3[eights & 127] * 2.0**-3
    assert tensor.tensor_type.name == "Q8_0"
    error = np.abs(dequantize(tensor.data, tensor.tensor_type) - exact).reshape(-1, 32)
    assert np.all(error <= 0.501 / 127 * np.abs(exact).reshape(-1, 32).max(axis=1, keepdims=True) + 1e-4)
    assert np.array_equal(files["blk.1.ffn_gate_tid2eid.weight"].data, stored["layers.1.ffn.gate.tid2eid"])
    assert files["blk.3.attn_compressor_ape.weight"].tensor_type.name == "F32"


def test_experts_in_16_bits(tmp_path: Path) -> None:
    """As of checkpoints that were trained further: no scales, one type for all experts."""
    folder = write_checkpoint(tmp_path / "plain", packed=False)
    files = {t.name: t for t in gguf.GGUFReader(convert(folder, tmp_path / "model.gguf")).tensors}
    tensor, stored = files["blk.3.ffn_down_exps.weight"], tensors(packed=False)
    bits = np.stack([stored[f"layers.3.ffn.experts.{expert}.w2.weight"][1] for expert in range(EXPERTS)])
    assert tensor.tensor_type.name == "BF16"
    assert np.array_equal(np.asarray(tensor.data).view(np.uint16).reshape(bits.shape), bits)


def test_the_model_is_that_of_the_file(folder: Path, tmp_path: Path) -> None:
    path = convert(folder, tmp_path / "model.gguf")
    with GGUFFile(path) as file:
        config = config_for(file)
    tokens = np.random.default_rng(3).integers(0, CONFIG["vocab_size"], 140).tolist()
    with Model(path) as model:
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    exact = ReferenceDeepseek4(path, config).logits(tokens)
    # Products with quantized weights round activations to 8 bits, and a rounded score may choose another expert.
    errors = ((got - exact) ** 2).sum(axis=1) / (exact**2).sum(axis=1)
    assert np.median(errors) < 0.01


def test_the_configuration_as_transformers_writes_it(folder: Path, tmp_path: Path) -> None:
    kinds = {0: "sliding_attention", 4: "compressed_sparse_attention", 128: "heavily_compressed_attention"}
    scaling = CONFIG["rope_scaling"]
    written: dict[str, Any] = {
        "compress_ratios": None, "num_hash_layers": None, "qk_rope_head_dim": None, "rope_scaling": None,
        "compress_rope_theta": None, "layer_types": [kinds[ratio] for ratio in CONFIG["compress_ratios"][:LAYERS]],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 128},
        "mlp_layer_types": ["hash_moe"] * 2 + ["moe"] * 2, "partial_rotary_factor": 0.25,
        "rope_parameters": {
            "main": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
            "compress": {
                **scaling, "rope_type": "yarn", "rope_theta": 160000.0, "partial_rotary_factor": 0.25,
                "attention_factor": 1.0,
            },
        },
    }  # fmt: skip
    other = write_checkpoint(tmp_path / "Tiny-V4", written)
    found = []
    for source, name in ((folder, "own"), (other, "other")):
        with GGUFFile(convert(source, tmp_path / f"{name}.gguf")) as file:
            found.append(config_for(file))
    assert dict(found[0]) == dict(found[1])
    mixed = {"mlp_layer_types": ["moe", "hash_moe", "moe", "moe"]}
    with pytest.raises(CheckpointError, match="expected hash_moe before moe"):
        convert(write_checkpoint(tmp_path / "mixed", written | mixed), tmp_path / "mixed.gguf")
    with pytest.raises(CheckpointError, match="layer_types is"):
        convert(write_checkpoint(tmp_path / "none", written | {"layer_types": None}), tmp_path / "none.gguf")


@pytest.mark.parametrize(
    ("changes", "missing", "words"),
    [
        ({}, "layers.1.ffn.gate.tid2eid", "lacks layers.1.ffn.gate.tid2eid"),
        ({}, "layers.1.ffn.experts.2.w3.weight", "lacks layers.1.ffn.experts.2.w3.weight"),
        ({}, "layers.1.ffn.experts.2.w3.scale", "lacks layers.1.ffn.experts.2.w3.weight or its scales"),
        ({}, "layers.1.attn.wq_a.scale", "layers.1.attn.wq_a.weight: F8_E4M3 without a scale"),
        ({}, "layers.2.attn.compressor.ape", "blk.2.attn_compressor_ape.weight"),
        ({"num_hash_layers": 9}, "", "num_hash_layers is 9"),
        ({"o_groups": None, "num_attention_heads": 5}, "", "output_group_count is 8"),
        ({"scoring_func": "softmax"}, "", "expected 4, the root of softplus"),
        ({"scoring_func": "tanh"}, "", "expected sigmoid, softmax or sqrtsoftplus"),
        ({"swiglu_limit": "10"}, "", "swiglu_limit"),
        ({"quantization_config": None}, "", "'layers.0.attn.wkv.scale' has no place"),
    ],
)
def test_refused(tmp_path: Path, changes: dict[str, Any], missing: str, words: str) -> None:
    folder = write_checkpoint(tmp_path / "wrong", changes, {missing: None} if missing else None)
    with pytest.raises(CheckpointError, match=words):
        convert(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_scales_of_another_shape_are_refused(tmp_path: Path) -> None:
    scales = ("F8_E8M0", np.full((32, 3), 127, np.uint8))
    folder = write_checkpoint(tmp_path / "wrong", None, {"layers.1.ffn.experts.2.w3.scale": scales})
    with pytest.raises(CheckpointError, match=r"layers\.1\.ffn\.experts\.2\.w3"):
        convert(folder, tmp_path / "model.gguf")


def test_blocks_and_scales_stay_as_they_are(folder: Path) -> None:
    found = Checkpoint.open(folder).tensors
    assert found["layers.0.ffn.experts.0.w1.weight"].dtype == "I8"
    assert found["layers.0.ffn.experts.0.w1.scale"].dtype == "F8_E8M0"
    assert found["layers.0.attn.wkv.weight"].dtype == "F32"
    assert "layers.0.attn.wkv.scale" not in found
