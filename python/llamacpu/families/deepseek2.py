"""DeepSeek V2, V3 and R1 (arXiv:2405.04434, arXiv:2412.19437): latent attention, experts in groups."""

from __future__ import annotations

import math
from typing import Any

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek2"]


def deepseek2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    metadata = file.metadata
    fields = parts.common(file, name, expert_weights_norm=False)
    latent = metadata.integer(f"{name}.attention.kv_lora_rank", minimum=1, maximum=parts.MAX_HEAD_SIZE)
    fields |= {
        "latent_size": latent,
        "query_latent_size": metadata.integer(f"{name}.attention.q_lora_rank", 0, maximum=parts.MAX_HEAD_SIZE),
        "kv_heads": [1] * fields["layers"],
        "shared_feed_forward": fields["expert_feed_forward"]
        * metadata.integer(f"{name}.expert_shared_count", 0, maximum=parts.MAX_EXPERTS),
    }
    fields |= _head_sizes(file, name, fields)
    return Config(**fields | _groups(file, name, fields["expert_gating"]) | _yarn(fields))


def _head_sizes(file: GGUFFile, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a head outside latent space; files written before April 2025 have them in the usual keys.

    Those files store the matrices of keys and values in one tensor, `attn_kv_b`. Some also store its parts.
    """
    integer, key = file.metadata.integer, f"{name}.attention.key_length_mla"
    if key not in file.metadata:
        return {"ignored_tensors": [f"blk.{at}.attn_{part}_b." for at in range(fields["layers"]) for part in "kv"]}
    return {
        "key_size": integer(key, minimum=2, maximum=parts.MAX_HEAD_SIZE),
        "value_size": integer(f"{name}.attention.value_length_mla", minimum=1, maximum=parts.MAX_HEAD_SIZE),
    }


def _groups(file: GGUFFile, name: str, gating: str) -> dict[str, Any]:
    """Expert groups: V2 takes those with the best expert; V3, with sigmoid scores, those with the best two."""
    groups = file.metadata.integer(f"{name}.expert_group_count", 0, maximum=parts.MAX_EXPERTS)
    used = file.metadata.integer(f"{name}.expert_group_used_count", 0, maximum=parts.MAX_EXPERTS)
    if groups <= 1:
        return {}
    score = "two_best" if gating == "sigmoid" else "best"
    return {"expert_groups": groups, "expert_groups_used": used, "expert_group_score": score}


def _yarn(fields: dict[str, Any]) -> dict[str, Any]:
    """YaRN's magnitude, whose multiplier the file stores as a tenth, scales the scores, not sine and cosine."""
    multiplier = fields["yarn_log_multiplier"]
    if fields["rope_scaling"] != "yarn" or multiplier == 0:
        return {}
    magnitude = 1 + multiplier * math.log(fields["rope_factor"])
    return {"attention_scale": magnitude**2 / math.sqrt(fields["key_size"]), "yarn_log_multiplier": 1.0}
