"""Experts in metadata. Each function returns fields of `Config` by name, and raises ModelError for wrong values."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families.limits import MAX_EXPERTS, MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["experts", "shared_experts", "sigmoid_experts"]

Fields = dict[str, Any]


def experts(file: GGUFFile, name: str, weights_norm: bool = True) -> Fields:
    """Mixture of experts as in Mixtral: Jiang et al. 2024, https://arxiv.org/abs/2401.04088.

    `weights_norm` is the default if the file does not state it.
    """
    metadata = file.metadata
    experts = metadata.integer(f"{name}.expert_count", 0, maximum=MAX_EXPERTS)
    least = 1 if experts else 0
    used = metadata.integer(f"{name}.expert_used_count", 0, minimum=least, maximum=experts if experts else MAX_EXPERTS)
    gating = metadata.integer(f"{name}.expert_gating_func", 0)
    names = {0: "softmax", 1: "softmax", 2: "sigmoid", 3: "softmax_selected", 4: "sqrt_softplus"}
    if gating not in names:
        raise ModelError(
            f"{name}.expert_gating_func is {gating}; expected 1 (softmax), 2 (sigmoid), 3 (selected) or 4 (root of "
            "softplus)"
        )
    return {
        "experts": experts,
        "experts_used": used if experts else 0,
        "expert_feed_forward": metadata.integer(f"{name}.expert_feed_forward_length", 0, maximum=MAX_WIDTH),
        "expert_weights_norm": metadata.flag(f"{name}.expert_weights_norm", weights_norm),
        "expert_weights_scale": metadata.number(f"{name}.expert_weights_scale", 0.0, minimum=0) or 1.0,
        "expert_gating": names[gating],
    }


def sigmoid_experts(file: GGUFFile, name: str) -> Fields:
    """Experts like DeepSeek V3's: sigmoid scores unless the file says otherwise, and shared experts."""
    fields: Fields = {"shared_feed_forward": shared_experts(file, name)}
    return fields if f"{name}.expert_gating_func" in file.metadata else fields | {"expert_gating": "sigmoid"}


def shared_experts(file: GGUFFile, name: str) -> int:
    """Width of all shared experts together, each of which is as wide as the others."""
    inner = file.metadata.integer(f"{name}.expert_feed_forward_length", 0, maximum=MAX_WIDTH)
    return inner * file.metadata.integer(f"{name}.expert_shared_count", 0, maximum=MAX_EXPERTS)
