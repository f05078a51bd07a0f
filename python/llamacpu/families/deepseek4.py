"""DeepSeek V4 (DeepSeek-AI, 2026): residual streams with constrained hyper-connections (arXiv:2512.24880), one row of a
token as key and value of all heads, attention to a window and to compressed windows before it, experts by a table."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import shared_experts
from llamacpu.families.latent import indexer_sizes
from llamacpu.families.limits import MAX_HEAD_SIZE, MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek4"]

_OVERLAPPING = 4
"""The compression of the layers whose windows overlap, among which an indexer chooses."""
_COMPRESSIONS = (0, _OVERLAPPING, 128)
_MOST_STREAMS = 16
_MOST_ITERATIONS = 1000


def deepseek4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    fields |= parts.without_predictors(file, name, fields)
    # What a router adds for tokens of pictures.
    fields["ignored_tensors"] += [f"blk.{layer}.exp_probs_b_vl." for layer in range(fields["layers"])]
    fields |= _attention(file, name, fields) | _rotation(file, name, fields) | _experts(file, name, fields)
    return Config(**fields | _streams(file, name))


def _attention(file: GGUFFile, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Rows, windows and what lies beyond them."""
    integer, layers = file.metadata.integer, fields["layers"]
    if any(count != 1 for count in fields["kv_heads"]):
        raise ModelError(f"{name}.attention.head_count_kv is {fields['kv_heads'][0]}; expected 1: heads share a row")
    if fields["value_size"] != fields["key_size"]:
        raise ModelError(
            f"{name}.attention.value_length is {fields['value_size']}; expected attention.key_length, "
            f"{fields['key_size']}: one row is key and value"
        )
    groups = integer(f"{name}.attention.output_group_count", minimum=1, maximum=MAX_WIDTH)
    if any(heads % groups for heads in fields["heads"]):
        raise ModelError(f"{name}.attention.output_group_count is {groups}; expected a divisor of the heads")
    window = parts.window(file, name)
    if not window:
        raise ModelError(f"{name}.attention.sliding_window is 0; expected the number of tokens that a token sees")
    compression = _compression(file, name, layers)
    found: dict[str, Any] = {
        "shared_rows": True,
        "query_latent_size": integer(f"{name}.attention.q_lora_rank", minimum=1, maximum=MAX_HEAD_SIZE),
        "output_groups": groups,
        "output_rank": integer(f"{name}.attention.output_lora_rank", minimum=1, maximum=MAX_HEAD_SIZE),
        "window": [window] * layers,
        "compression": compression,
        "attention_scale": 0.0,
    }
    choosing = [size == _OVERLAPPING for size in compression]
    if not any(choosing):
        return found
    sizes = indexer_sizes(file, name)
    if sizes["indexer_size"] < fields["rope_size"]:
        raise ModelError(
            f"{name}.attention.indexer.key_length is {sizes['indexer_size']}; expected at least "
            f"{name}.rope.dimension_count, {fields['rope_size']}"
        )
    return found | sizes | {"indexer": choosing}


def _compression(file: GGUFFile, name: str, layers: int) -> list[int]:
    """Tokens per compressed window of each layer; files also have an entry for the layer that predicts."""
    import numpy as np

    key = f"{name}.attention.compress_ratios"
    ratios = file.metadata.get(key)
    if not isinstance(ratios, np.ndarray) or ratios.dtype.kind not in "iu" or len(ratios) < layers:
        raise ModelError(f"{key} is {ratios!r:.60}; expected a number for each of {layers} layers")
    wrong = next((int(ratio) for ratio in ratios[:layers] if ratio not in _COMPRESSIONS), None)
    if wrong is not None:
        raise ModelError(f"{key} has {wrong}; this version runs 0, 4 and 128")
    return [int(ratio) for ratio in ratios[:layers]]


def _rotation(file: GGUFFile, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Layers with compression have a base of their own and YaRN, whose magnitude stays 1; the others neither."""
    key = f"{name}.attention.compress_rope_freq_base"
    scaled = fields["rope_scaling"] == "yarn"
    if fields["rope_scaling"] not in ("none", "yarn"):
        raise ModelError(f"{name}.rope.scaling.type is {fields['rope_scaling']!r}; expected none or yarn")
    base = file.metadata.number(key, above=0)
    if scaled and base <= 1:
        raise ModelError(f"{key} is {base}; expected more than 1 with YaRN scaling")
    return {
        "rope_base": base,
        "rope_local_base": fields["rope_base"],
        "rotation": ["global" if size else "local" for size in _compression(file, name, fields["layers"])],
        "yarn_attn_factor": 1.0,
        "yarn_log_multiplier": 1.0 if scaled else 0.0,
    }


def _experts(file: GGUFFile, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Experts, the first layers' by a table, and the limit of their activation."""
    metadata, layers = file.metadata, fields["layers"]
    if not fields["experts"] or not fields["expert_feed_forward"]:
        raise ModelError(
            f"{name}.expert_count is {fields['experts']} and expert_feed_forward_length "
            f"{fields['expert_feed_forward']}; expected experts, which every layer of this family has"
        )
    if fields["expert_gating"] != "sqrt_softplus":
        raise ModelError(
            f"{name}.expert_gating_func is {metadata.get(f'{name}.expert_gating_func')!r:.20}; expected 4, the root of "
            "softplus"
        )
    limit, hashed = _limit(file, name, layers), metadata.integer(f"{name}.hash_layer_count", maximum=layers)
    for layer in range(hashed, layers):
        if not parts.has(file, f"blk.{layer}.exp_probs_b.bias"):
            raise ModelError(f"the tensor blk.{layer}.exp_probs_b.bias is missing, by which experts are chosen")
    return {
        "feed_forward": [fields["expert_feed_forward"]] * layers,
        "shared_feed_forward": shared_experts(file, name),
        "hashed_layers": hashed,
        "activation": "limited_silu" if limit else "silu",
        "activation_limit": limit,
    }


def _limit(file: GGUFFile, name: str, layers: int) -> float:
    """The one limit of all experts, 0 for none; files have it for each layer, and again for the shared experts."""
    import numpy as np

    limits: list[float] = []
    for key in (f"{name}.swiglu_clamp_exp", f"{name}.swiglu_clamp_shexp"):
        value = file.metadata.get(key)
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and len(value) >= layers:
            limits += [float(limit) for limit in value[:layers]]
        elif not isinstance(value, np.ndarray) and (value is not None or not limits):
            limits.append(file.metadata.number(key))
        elif value is not None:
            raise ModelError(f"{key} is {value!r:.60}; expected a number for each of {layers} layers")
    if any(limit != limits[0] for limit in limits):
        raise ModelError(f"{name}.swiglu_clamp_exp and swiglu_clamp_shexp differ; this version runs one limit for all")
    if not 0 <= limits[0] < float("inf"):
        raise ModelError(f"{name}.swiglu_clamp_exp is {limits[0]}; expected 0 (no limit) or more")
    return limits[0]


def _streams(file: GGUFFile, name: str) -> dict[str, Any]:
    """The residual streams."""
    integer, prefix = file.metadata.integer, f"{name}.hyper_connection"
    return {
        "streams": integer(f"{prefix}.count", minimum=1, maximum=_MOST_STREAMS),
        "stream_iterations": integer(f"{prefix}.sinkhorn_iterations", minimum=1, maximum=_MOST_ITERATIONS),
        "stream_epsilon": file.metadata.number(f"{prefix}.epsilon", minimum=0),
    }
