"""The fields of families with latent attention (arXiv:2405.04434), and of those that choose keys for it."""

from __future__ import annotations

import math
from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.limits import MAX_CONTEXT, MAX_EXPERTS, MAX_HEAD_SIZE
from llamacpu.gguf.file import GGUFFile

__all__ = ["indexer", "indexer_sizes", "latent"]


def latent(file: GGUFFile, name: str) -> dict[str, Any]:
    """The fields that DeepSeek V2 and V3 and their successors read from the same keys."""
    metadata = file.metadata
    fields = parts.common(file, name, expert_weights_norm=False)
    fields |= parts.without_predictors(file, name, fields)
    size = metadata.integer(f"{name}.attention.kv_lora_rank", minimum=1, maximum=MAX_HEAD_SIZE)
    fields |= {
        "latent_size": size,
        "query_latent_size": metadata.integer(f"{name}.attention.q_lora_rank", 0, maximum=MAX_HEAD_SIZE),
        "kv_heads": [1] * fields["layers"],
        "shared_feed_forward": fields["expert_feed_forward"]
        * metadata.integer(f"{name}.expert_shared_count", 0, maximum=MAX_EXPERTS),
    }
    fields |= _head_sizes(file, name, fields)
    return fields | _groups(file, name, fields["expert_gating"]) | _yarn(fields)


def _head_sizes(file: GGUFFile, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Sizes of a head outside latent space; files written before April 2025 have them in the usual keys.

    Those files store the matrices of keys and values in one tensor, `attn_kv_b`. Some also store its parts.
    """
    integer, key = file.metadata.integer, f"{name}.attention.key_length_mla"
    if key not in file.metadata:
        stored = [f"blk.{at}.attn_{part}_b." for at in range(fields["layers"]) for part in "kv"]
        return {"ignored_tensors": [*fields["ignored_tensors"], *stored]}
    return {
        "key_size": integer(key, minimum=2, maximum=MAX_HEAD_SIZE),
        "value_size": integer(f"{name}.attention.value_length_mla", minimum=1, maximum=MAX_HEAD_SIZE),
    }


def _groups(file: GGUFFile, name: str, gating: str) -> dict[str, Any]:
    """Expert groups: V2 takes those with the best expert; V3, with sigmoid scores, those with the best two."""
    groups = file.metadata.integer(f"{name}.expert_group_count", 0, maximum=MAX_EXPERTS)
    used = file.metadata.integer(f"{name}.expert_group_used_count", 0, maximum=MAX_EXPERTS)
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


def indexer(file: GGUFFile, name: str, layers: int, rope_style: str) -> dict[str, Any]:
    """The fields of sparse attention: which layers choose keys, how, and how many."""
    return indexer_sizes(file, name) | {
        "indexer": _choosing(file, f"{name}.attention.indexer.types", layers),
        "indexer_rope_style": rope_style,
        "indexer_epsilon": file.metadata.number(f"{name}.attention.layer_norm_epsilon", 1e-6, above=0),
    }


def indexer_sizes(file: GGUFFile, name: str) -> dict[str, Any]:
    """How many heads of which size choose how many keys."""
    integer, prefix = file.metadata.integer, f"{name}.attention.indexer"
    return {
        "indexer_heads": integer(f"{prefix}.head_count", minimum=1, maximum=MAX_HEAD_SIZE),
        "indexer_size": integer(f"{prefix}.key_length", minimum=1, maximum=MAX_HEAD_SIZE),
        "indexer_top": integer(f"{prefix}.top_k", minimum=1, maximum=MAX_CONTEXT),
    }


def _choosing(file: GGUFFile, key: str, layers: int) -> list[bool]:
    """Which layers choose keys: as the file says, or else those with the tensors for it."""
    import numpy as np

    types = file.metadata.get(key)
    if types is None:
        return [parts.has(file, f"blk.{layer}.indexer.attn_k.weight") for layer in range(layers)]
    if isinstance(types, bool | int):
        return [bool(types)] * layers
    # Layers that predict further tokens may have an entry, too.
    if not isinstance(types, np.ndarray) or len(types) < layers or types.dtype.kind not in "biu":
        raise ModelError(f"{key} is {types!r:.60}; expected true or false for each of {layers} layers")
    return [bool(flag) for flag in types[:layers]]
