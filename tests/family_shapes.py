"""Named configurations in the manner of well-known families, small enough for tests."""

from __future__ import annotations

from typing import Any

from llamacpu.families.config import Config

__all__ = ["SHAPES"]

BASE: dict[str, Any] = {
    "architecture": "test", "vocab_size": 60, "context_length": 256, "embedding_length": 48, "layers": 4,
    "feed_forward": [40] * 4, "heads": [6] * 4, "kv_heads": [2] * 4, "key_size": 16, "value_size": 16,
    "norm_epsilon": 1e-5, "rope_size": 16, "rope_original_context": 256,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"experts": 6, "experts_used": 3, "expert_feed_forward": 20}
LOCAL = ["local", "local", "local", "global"]

SHAPES = {
    name: Config(**BASE | changes)
    for name, changes in {
        "norms on every head": {"query_key_norm": ["head"] * 4, "rope_style": "neox", "key_size": 24, "rope_size": 24},
        "norms behind blocks": {"norms": "behind", "query_key_norm": ["width"] * 4, "rope_style": "neox"},
        "windows and two bases": {
            "norms": "both", "window": [12, 12, 12, 0], "rotation": LOCAL, "rope_local_base": 100.0,
            "activation": "gelu_tanh", "attention_soft_cap": 5.0, "logit_soft_cap": 6.0, "embedding_scale": 7.0,
        },
        "chunks and temperature": {
            "chunk": [10, 10, 10, 0], "rotation": ["global"] * 3 + ["none"], "temperature": [0.0] * 3 + [0.1],
            "temperature_length": 8, "temperature_offset": 1, "query_key_norm": ["unweighted"] * 3 + ["none"],
            **EXPERTS, "expert_gating": "sigmoid", "expert_weights_on_input": True, "expert_weights_norm": False,
            "shared_feed_forward": 20,
        },
        "latent vectors and groups": {
            "latent_size": 32, "query_latent_size": 20, "kv_heads": [1] * 4, "rope_size": 8, "value_size": 12,
            **EXPERTS, "expert_groups": 3, "expert_groups_used": 2, "expert_group_score": "two_best",
            "expert_gating": "sigmoid",
            "expert_weights_scale": 2.5, "shared_feed_forward": 24, "rope_scaling": "yarn", "rope_factor": 4.0,
            "rope_original_context": 32, "yarn_ext_factor": 1.0, "yarn_log_multiplier": 1.0,
        },
        "parallel blocks": {
            "norm": "layer", "parallel": True, "logit_scale": 0.25, "query_key_norm": ["each_head"] * 4,
        },
        "plain networks": {"norm": "layer", "gate": "none", "activation": "relu_squared", "rope_size": 8},
        "clamped experts": {**EXPERTS, "activation": "clamped_silu", "window": [12, 0] * 2, "gate": "own"},
        "fused and long": {"gate": "fused", "rope_scaling": "longrope", "rope_original_context": 64, "rope_size": 12},
        "absent parts": {"heads": [6, 0, 6, 6], "kv_heads": [2, 0, 0, 2], "feed_forward": [40, 40, 40, 0]},
    }.items()
}  # fmt: skip
"""What the configuration is about, to it."""
