"""Configurations of current families, small, for models whose results are compared with committed digests."""

from __future__ import annotations

from typing import Any

from deepseek4_files import config
from family_shapes import BASE, EXPERTS
from llamacpu.families.config import Config
from llamacpu.vision.config import VisionConfig

__all__ = ["ENCODERS", "FAMILIES"]

_LOCAL = {"window": [12, 12, 12, 0], "rotation": ["local", "local", "local", "global"]}
_GEMMA = _LOCAL | {
    "norms": "both", "query_key_norm": ["head"] * 4, "value_norm": True, "key_sizes": [16, 16, 16, 24],
    "value_sizes": [16, 16, 16, 24], "key_size": 24, "value_size": 24, "rope_size": 24, "rope_local_size": 16,
    "rope_local_base": 100.0, "rope_style": "neox", "attention_scale": 1.0, "activation": "gelu_tanh",
    "embedding_scale": 7.0, "layer_scale": [True] * 4, "logit_soft_cap": 3.0,
}  # fmt: skip
_LATENT = {
    "kv_heads": [1] * 4, "key_size": 24, "rope_size": 8, "latent_size": 32, "query_latent_size": 20,
    "rope_scaling": "yarn", "rope_factor": 8.0, "rope_original_context": 32, "yarn_ext_factor": 1.0,
    "yarn_log_multiplier": 1.0, **EXPERTS, "shared_feed_forward": 24,
}  # fmt: skip
_CHOSEN = {"indexer_heads": 3, "indexer_size": 16, "indexer_top": 12, "expert_gating": "sigmoid"}
_RECURRENT = {
    "heads": [0, 0, 0, 6], "kv_heads": [0, 0, 0, 2], "recurrent_heads": [6, 6, 6, 0], "recurrent_key_heads": 2,
    "recurrent_key_size": 12, "recurrent_value_size": 20, "convolution_size": 4, "attention_gate": "query",
    "query_key_norm": ["none"] * 3 + ["head"], "rope_style": "neox", "rope_size": 4,
    "feed_forward_norm": "post_attention_norm",
}  # fmt: skip

_CHANGES: dict[str, dict[str, Any]] = {
    "muse-glimmer": {
        "embedding_norm": True, "embedding_norm_weights": False, "norms": "both", "output_norm_epsilon": 1e-8,
        "query_key_norm": ["head"] * 4, "window": [12, 12, 12, 0], "rotation": ["global"] * 3 + ["none"],
        "attention_gate": "own", "logit_scale": 0.5, "logit_soft_cap": 5.0,
    },
    "gemma4": _GEMMA | {"kv_heads": [2, 2, 2, 1], "keys_as_values": [False] * 3 + [True]},
    "gemma4 with inputs of layers": _GEMMA | {
        "kv_heads": [1] * 4, "per_layer_input": 8, "kv_source": [0, 1, 1, 3], "feed_forward": [40, 40, 80, 40],
    },
    "gemma4 with experts": _GEMMA | EXPERTS | {"experts_beside": True, "kv_heads": [2, 2, 2, 1]},
    "mistral4": _LATENT | {"temperature": [0.1] * 4, "temperature_length": 16},
    "deepseek32": _LATENT | _CHOSEN | {
        "indexer": [True] * 4, "indexer_rope_style": "neox", "expert_groups": 3, "expert_groups_used": 2,
        "expert_group_score": "two_best", "expert_weights_scale": 2.5,
    },
    "glm-dsa": _LATENT | _CHOSEN | {"indexer": [True, False, True, False], "rope_scaling": "none"},
    "qwen3next": _RECURRENT | EXPERTS | {"shared_feed_forward": 24},
    "qwen35": _RECURRENT | {"recurrent_head_order": "interleaved"},
    "qwen3vl": {
        "rope_style": "neox", "rope_sections": [4, 2, 2], "rope_sections_alternate": True, "picture_layers": 2,
        "query_key_norm": ["head"] * 4,
    },
}  # fmt: skip

FAMILIES = {name: Config(**BASE | changes) for name, changes in _CHANGES.items()} | {"deepseek4": config((0, 4, 24, 4))}
"""Every switch that these families brought, by name."""

ENCODERS = {
    "encoder of qwen3vl": VisionConfig(
        kind="test", image_size=0, patch_size=4, embedding_length=64, layers=3, heads=2, feed_forward=96,
        output_length=48, norm_epsilon=1e-6, positions="corners", rotation="rows_first", rope_style="neox", merge=2,
        activation="gelu_tanh", projector=["mm.0", "mm.2"], deepstack=[0, 1],
    ),
}  # fmt: skip
"""Vision encoders, by name."""
