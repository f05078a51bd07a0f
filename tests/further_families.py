"""Families without reference outputs of their own: their switches, written down apart from the package."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from config_models import tensors
from llamacpu.families.config import Config

LAYERS, CONTEXT, VOCABULARY = 4, 128, 50
BASE = Config(
    architecture="test", vocab_size=VOCABULARY, context_length=CONTEXT, embedding_length=48, layers=LAYERS,
    feed_forward=[40] * LAYERS, heads=[6] * LAYERS, kv_heads=[2] * LAYERS, key_size=8, value_size=8, norm_epsilon=1e-5,
    rope_size=8, rope_original_context=CONTEXT,
)  # fmt: skip
PLAIN = {"gate": "none", "activation": "gelu_tanh"}
LOCAL = {"window": [9, 9, 9, 0], "rotation": ["global"] * 3 + ["none"]}
EXPERTS = {"experts": 6, "experts_used": 2, "expert_feed_forward": 20, "expert_gating": "sigmoid"}
POSITIONS = {"learned_positions": True, "rope_size": 0, "rotation": ["none"] * LAYERS}
LINEAR = {"alibi": 8.0, "rope_size": 0, "rotation": ["none"] * LAYERS}
HALVES = {"rope_style": "neox"}
VARIANTS = {"falcon-40b": "falcon", "gptneox-in-turn": "gptneox", "mpt-learned": "mpt"}
"""Entries of the table whose architecture has another one."""
HEADS = {"query_key_norm": ["head"] * LAYERS}
RECURRENT = HALVES | {
    "heads": [0, 0, 0, 6], "kv_heads": [0, 0, 0, 2], "query_key_norm": ["none"] * 3 + ["head"],
    "attention_gate": "query", "feed_forward_norm": "post_attention_norm", "rope_size": 4, "convolution_size": 3,
    "recurrent_heads": [6, 6, 6, 0], "recurrent_key_heads": 2, "recurrent_key_size": 8, "recurrent_value_size": 12,
}  # fmt: skip
RECURRENT_KEYS = {
    "rope.dimension_count": 4, "ssm.conv_kernel": 3, "ssm.state_size": 8, "ssm.group_count": 2,
    "ssm.time_step_rank": 6, "ssm.inner_size": 72,
}  # fmt: skip
EXPERT_KEYS = {
    "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "expert_shared_count": 1,
    "expert_weights_scale": 2.5,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "latent_size": 16, "query_latent_size": 12, "kv_heads": [1] * LAYERS, "value_size": 6, "rope_size": 4,
    "shared_feed_forward": 20, "expert_weights_scale": 2.5,
}  # fmt: skip
LATENT_KEYS: dict[str, Any] = EXPERT_KEYS | {
    "attention.kv_lora_rank": 16, "attention.q_lora_rank": 12, "attention.key_length_mla": 8,
    "attention.value_length_mla": 6, "rope.dimension_count": 4,
}  # fmt: skip
INDEXER: dict[str, Any] = {"indexer_heads": 3, "indexer_size": 10, "indexer_top": 7}
INDEXER_KEYS: dict[str, Any] = {
    "attention.indexer.head_count": 3, "attention.indexer.key_length": 10, "attention.indexer.top_k": 7,
}  # fmt: skip
# Architecture: switches as the models' own code has them, further keys of the file, and whether it has biases.
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "exaone": (HALVES, {}, False),
    "qwen3next": (
        RECURRENT | EXPERTS | {"expert_gating": "softmax", "shared_feed_forward": 24},
        RECURRENT_KEYS
        | {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
            "expert_shared_feed_forward_length": 24,
        },
        False,
    ),
    "qwen35": (RECURRENT | {"recurrent_head_order": "interleaved"}, RECURRENT_KEYS, False),
    "exaone4": (HALVES | HEADS | LOCAL | {"norms": "behind"}, {"attention.sliding_window": 9}, False),
    "internlm2": ({}, {}, False),
    "xverse": ({}, {}, False),
    "orion": (HALVES | {"norm": "layer"}, {}, True),
    "minicpm": ({"embedding_scale": 12.0, "residual_scale": 0.7, "logit_scale": 256 / 48}, {}, False),
    "phi2": (
        HALVES | PLAIN | {"norm": "layer", "parallel": True, "rope_size": 4}, {"rope.dimension_count": 4}, True,
    ),
    "falcon": (
        HALVES | {"norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "kv_heads": [1] * LAYERS},
        {},
        False,
    ),
    "gpt2": (POSITIONS | PLAIN | {"norm": "layer", "kv_heads": [6] * LAYERS}, {}, True),
    "starcoder": (POSITIONS | PLAIN | {"norm": "layer", "kv_heads": [1] * LAYERS}, {}, True),
    "ernie4_5-moe": (
        EXPERTS | {"shared_feed_forward": 20, "expert_gating": "softmax", "expert_weights_scale": 2.5},
        EXPERT_KEYS,
        False,
    ),
    "falcon-40b": (
        HALVES
        | {
            "norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "parallel_norm": True,
            "attention_norm": "attn_norm_2", "feed_forward_norm": "attn_norm",
        },
        {},
        False,
    ),
    "gptneox": (
        HALVES
        | {
            "norm": "layer", "parallel": True, "gate": "none", "activation": "gelu", "parallel_norm": True,
            "rope_size": 4,
        },
        {"rope.dimension_count": 4, "use_parallel_residual": True},
        True,
    ),
    "gptneox-in-turn": (
        HALVES | {"norm": "layer", "gate": "none", "activation": "gelu"}, {"use_parallel_residual": False}, True,
    ),
    "olmo": (
        {"norm": "layer", "norm_weights": False, "query_key_value_limit": 0.5}, {"attention.clamp_kqv": 0.5}, False,
    ),
    "bloom": (
        LINEAR | PLAIN | {"norm": "layer", "embedding_norm": True, "kv_heads": [6] * LAYERS}, {}, True,
    ),
    "mpt": (
        LINEAR | {"norm": "layer", "gate": "none", "activation": "gelu", "query_key_value_limit": 0.5},
        {"attention.max_alibi_bias": 8.0, "attention.clamp_kqv": 0.5},
        False,
    ),
    "mpt-learned": (
        POSITIONS
        | {"norm": "layer", "gate": "none", "activation": "gelu", "query_key_norm": ["width"] * LAYERS},
        {"attention.max_alibi_bias": 0.0},
        True,
    ),
    "jais": (
        LINEAR | {"norm": "layer", "kv_heads": [6] * LAYERS, "attention_scale": 1 / 8, "alibi": 10.0},
        {"attention.max_alibi_bias": 10.0},
        True,
    ),
    "refact": (LINEAR | {"kv_heads": [1] * LAYERS}, {}, False),
    "baichuan": ({}, {}, False),
    "chatglm": ({"gate": "fused", "rope_size": 4}, {"rope.dimension_count": 4}, False),
    "plamo": (HALVES | {"parallel": True}, {}, False),
    "codeshell": (HALVES | PLAIN | {"norm": "layer"}, {}, True),
    "qwen": (HALVES, {"feed_forward_length": 80}, False),
    "hunyuan-dense": (HALVES | {"query_key_norm": ["rotated_head"] * LAYERS}, {}, False),
    "hunyuan-moe": (
        HALVES | EXPERTS
        | {"query_key_norm": ["rotated_head"] * LAYERS, "expert_gating": "softmax", "shared_feed_forward": 28},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
            "expert_shared_feed_forward_length": 28,
        },
        False,
    ),
    "phimoe": (
        HALVES | EXPERTS | {"norm": "layer", "expert_gating": "sparse_mixer", "expert_weights_norm": False},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
            "attention.layer_norm_rms_epsilon": 1e-5,
        },
        True,
    ),
    "dbrx": (
        HALVES | EXPERTS
        | {
            "norm": "layer", "expert_gating": "softmax", "feed_forward_norm": "attn_output_norm",
            "query_key_value_limit": 0.5,
        },
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "attention.clamp_kqv": 0.5,
        },
        False,
    ),
    "deepseek": (
        EXPERTS
        | {
            "expert_gating": "softmax", "expert_weights_norm": False, "shared_feed_forward": 20,
            "expert_weights_scale": 2.5,
        },
        EXPERT_KEYS,
        False,
    ),
    "bailingmoe": (
        EXPERTS
        | {
            "expert_gating": "softmax", "expert_weights_norm": True, "shared_feed_forward": 20,
            "expert_weights_scale": 2.5,
        },
        EXPERT_KEYS | {"expert_weights_norm": True},
        False,
    ),
    "minimax-m2": (
        HALVES | EXPERTS | {"query_key_norm": ["width"] * LAYERS, "rope_size": 4},
        {
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20, "rope.dimension_count": 4,
            "expert_gating_func": 2,
        },
        False,
    ),
    "exaone-moe": (
        HALVES | HEADS | LOCAL | EXPERTS | {"shared_feed_forward": 20, "expert_weights_scale": 2.5},
        EXPERT_KEYS | {"attention.sliding_window": 9},
        False,
    ),
    "openelm": (HALVES | HEADS, {}, False),
    "pangu-embedded": (HALVES, {}, False),
    "jais2": (HALVES | {"norm": "layer", "gate": "none", "activation": "relu_squared"}, {}, True),
    "olmo2": (
        HALVES
        | {
            "norms": "behind", "query_key_norm": ["width"] * LAYERS, "window": [9, 9, 9, 0],
            "rotation": ["local"] * 3 + ["global"], "rope_scaling": "linear", "rope_factor": 4.0,
        },
        {"attention.sliding_window": 9, "rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        False,
    ),
    "dots1": (HALVES | HEADS | EXPERTS | {"shared_feed_forward": 20, "expert_weights_scale": 2.5}, EXPERT_KEYS, False),
    "glm4moe": (
        HALVES | HEADS | EXPERTS
        | {"shared_feed_forward": 20, "expert_weights_scale": 2.5, "feed_forward_norm": "post_attention_norm"},
        EXPERT_KEYS,
        False,
    ),
    "muse-glimmer": (
        HEADS
        | {
            "embedding_norm": True, "embedding_norm_weights": False, "norms": "both", "output_norm_epsilon": 1e-8,
            "attention_gate": "own", "window": [9, 0, 9, 0], "rotation": ["global", "none"] * 2, "logit_scale": 0.25,
            "logit_soft_cap": 6.0,
        },
        {
            "attention.sliding_window": 9, "attention.sliding_window_pattern": [True, False, True, False],
            "logit_scale": 0.25, "final_logit_softcapping": 6.0,
        },
        False,
    ),
    "gemma4": (
        HALVES | HEADS | EXPERTS
        | {
            "norms": "both", "activation": "gelu_tanh", "embedding_scale": 48**0.5, "value_norm": True, "key_size": 12,
            "value_size": 12, "rope_size": 12, "key_sizes": [8, 12] * 2, "value_sizes": [8, 12] * 2,
            "rope_local_size": 8, "rope_local_base": 100.0, "window": [9, 0] * 2, "rotation": ["local", "global"] * 2,
            "kv_heads": [2, 1] * 2, "kv_source": [0, 1, 0, 1], "keys_as_values": [False, True, False, False],
            "attention_scale": 1.0, "logit_soft_cap": 6.0, "layer_scale": [True] * LAYERS, "per_layer_input": 6,
            "experts_beside": True, "expert_gating": "softmax",
        },
        {
            "attention.head_count_kv": [2, 1, 3, 3], "attention.key_length": 12, "attention.value_length": 12,
            "attention.key_length_swa": 8, "attention.value_length_swa": 8, "rope.freq_base_swa": 100.0,
            "attention.sliding_window": 9, "attention.sliding_window_pattern": [True, False, True, False],
            "attention.shared_kv_layers": 2, "embedding_length_per_layer_input": 6, "final_logit_softcapping": 6.0,
            "expert_count": 6, "expert_used_count": 2, "expert_feed_forward_length": 20,
        },
        False,
    ),
    "mistral4": (
        EXPERTS | LATENT
        | {
            "expert_gating": "softmax", "temperature": [0.25] * LAYERS, "temperature_length": 8, "rope_scaling": "yarn",
            "rope_factor": 4.0, "rope_original_context": 32, "yarn_ext_factor": 1.0, "yarn_log_multiplier": 1.0,
            "attention_scale": (1 + 0.25 * math.log(4)) ** 2 / math.sqrt(8),
        },
        LATENT_KEYS
        | {
            "expert_weights_norm": True, "attention.temperature_scale": 0.25, "attention.temperature_length": 8,
            "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 32,
            "rope.scaling.yarn_log_multiplier": 0.25,
        },
        False,
    ),
    "deepseek32": (
        EXPERTS | LATENT | INDEXER
        | {
            "expert_weights_norm": False, "expert_groups": 3, "expert_groups_used": 2,
            "expert_group_score": "two_best", "indexer": [True] * LAYERS, "indexer_rope_style": "neox",
        },
        LATENT_KEYS | INDEXER_KEYS
        | {"expert_gating_func": 2, "expert_group_count": 3, "expert_group_used_count": 2},
        False,
    ),
    "glm-dsa": (
        EXPERTS | LATENT | INDEXER | {"indexer": [True, False] * 2},
        LATENT_KEYS | INDEXER_KEYS
        | {"expert_weights_norm": True, "attention.indexer.types": [True, False, True, False]},
        False,
    ),
}  # fmt: skip


def expected(name: str) -> Config:
    return replace(BASE, architecture=VARIANTS.get(name, name), **FAMILIES[name][0])


def write(path: Path, name: str, more: dict[str, Any] | None = None) -> Path:
    """A file of the family with random weights."""
    config = expected(name)
    _, keys, biases = FAMILIES[name]
    name = config.architecture
    writer = gguf.GGUFWriter(path, name)
    writer.add_token_list([f"t{index}" for index in range(VOCABULARY)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges(["t 1"])
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(48)
    writer.add_block_count(LAYERS)
    if "feed_forward_length" not in keys:
        writer.add_feed_forward_length(40)
    writer.add_head_count(6)
    if "attention.head_count_kv" not in keys:
        writer.add_head_count_kv(max(config.kv_heads))
    (writer.add_layer_norm_eps if config.norm == "layer" else writer.add_layer_norm_rms_eps)(1e-5)
    for key, value in keys.items():
        add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add[list] = writer.add_array
        add.get(type(value), writer.add_string)(f"{name}.{key}", value)
    weights = tensors(config, np.random.default_rng(len(name)), biases, tied=False)
    for tensor, data in {**weights, **(more or {})}.items():
        if "attn_sinks" not in tensor:
            writer.add_tensor(tensor, data.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
