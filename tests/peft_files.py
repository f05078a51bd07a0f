"""Folders of PEFT's adapters, and of their base models' configurations, for the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoint_files import safetensors_bytes

Floats = NDArray[np.float32]
RANK, ALPHA = 4, 6
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 40,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 1e4,
}  # fmt: skip
Q, KV, GATE, DOWN = (32, 32), (16, 32), (48, 32), (32, 48)
USUAL = {
    "self_attn.q_proj": Q, "self_attn.k_proj": KV, "self_attn.v_proj": KV, "self_attn.o_proj": Q,
    "mlp.gate_proj": GATE, "mlp.up_proj": GATE, "mlp.down_proj": DOWN,
}  # fmt: skip
PHI = {"self_attn.qkv_proj": (64, 32), "self_attn.o_proj": Q, "mlp.gate_up_proj": (96, 32), "mlp.down_proj": DOWN}
CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, int]]]] = {
    "LlamaForCausalLM": ({}, USUAL),
    "Qwen2ForCausalLM": ({}, USUAL),
    "Gemma2ForCausalLM": ({}, USUAL),
    "Phi3ForCausalLM": ({"original_max_position_embeddings": 64}, PHI),
    "InternLM2ForCausalLM": ({}, {"attention.wqkv": (64, 32), "attention.wo": Q}),
    "FalconForCausalLM": (
        {"new_decoder_architecture": True, "num_kv_heads": 2, "layer_norm_epsilon": 1e-5},
        {"self_attention.query_key_value": (64, 32), "self_attention.dense": Q, "mlp.dense_4h_to_h": (32, 128)},
    ),
}


def write_base(folder: Path, architecture: str = "LlamaForCausalLM", **other: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"architectures": [architecture]} | SIZES | CASES.get(architecture, ({}, {}))[0] | other
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def factors(
    shapes: Mapping[str, tuple[int, int]], ranks: Mapping[str, int] | None = None
) -> dict[str, tuple[Floats, Floats]]:
    generator = np.random.default_rng(4)
    result = {}
    for module, (rows, columns) in shapes.items():
        rank = (ranks or {}).get(module, RANK)
        a, b = (generator.standard_normal(shape).astype(np.float32) for shape in ((rank, columns), (rows, rank)))
        result[module] = (a, b)
    return result


def write_adapter(
    folder: Path, pairs: Mapping[str, tuple[Floats, Floats]], more: Mapping[str, Floats] | None = None, **config: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Any] = {}
    for module, (a, b) in pairs.items():
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors | dict(more or {})))
    facts = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": ALPHA,
        "bias": "none",
        "base_model_name_or_path": "owner/base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(facts | config))
    return folder
