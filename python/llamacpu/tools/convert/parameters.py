"""The keys that most architectures have: sizes, the rotary position embedding, norms, experts."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.source import Source

__all__ = ["GATING", "set_common"]

# GGUF key to the names that configurations have for it, the first found of which counts.
_SIZES = {
    "context_length": "max_position_embeddings n_ctx n_positions max_length max_sequence_length model_max_length",
    "embedding_length": "hidden_size n_embd dim",
    "feed_forward_length": "prefix_dense_intermediate_size dense_intermediate_size intermediate_size n_inner"
    " hidden_dim",
    "attention.head_count": "num_attention_heads n_head n_heads",
    "attention.head_count_kv": "num_key_value_heads n_kv_heads",
}
_NORMS_AND_EXPERTS = {
    "attention.layer_norm_rms_epsilon": "rms_norm_eps norm_eps",
    "attention.layer_norm_epsilon": "layer_norm_eps layer_norm_epsilon norm_epsilon",
    "expert_count": "num_local_experts num_experts n_routed_experts",
    "expert_used_count": "num_experts_per_tok num_experts_per_token top_k_experts",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}
_SCORE = (
    "score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func",
    "expert_selection_fn",
)  # fmt: skip
GATING = {"softmax": 1, "sigmoid": 2, "sqrtsoftplus": 4}
_YARN = {
    "yarn_ext_factor": ("extrapolation_factor",),
    "yarn_attn_factor": ("attention_factor", "attn_factor"),
    "yarn_beta_fast": ("beta_fast",),
    "yarn_beta_slow": ("beta_slow",),
}


def set_common(source: Source, keys: Keys, file_type: int, layers: int) -> None:
    """Set what config.json says in the terms of most configurations."""
    keys.set("block_count", layers)
    _set_found(source, keys, _SIZES)
    if source.config.get("is_causal") is False:
        keys.set("attention.causal", False)
    _set_rope(source, keys)
    _set_found(source, keys, _NORMS_AND_EXPERTS)
    score = source.find(*_SCORE)
    if score is not None:
        if not isinstance(score, str) or score not in GATING:
            raise CheckpointError(
                f"config.json: experts are scored by {score!r:.40}; expected sigmoid, softmax or sqrtsoftplus"
            )
        keys.set("expert_gating_func", GATING[score])
    head_size = source.config.get("head_dim")
    if head_size is not None:
        keys.set("attention.key_length", head_size)
        keys.set("attention.value_length", head_size)
    keys.add("general.file_type", file_type, "uint32")


def _set_found(source: Source, keys: Keys, table: dict[str, str]) -> None:
    for key, names in table.items():
        value = source.find(*names.split())
        if value is not None:
            keys.set(key, value)


def _set_rope(source: Source, keys: Keys) -> None:
    rope = source.global_rope
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if kind == "linear" and factor is not None:
        keys.set("rope.scaling.type", "linear")
        keys.set("rope.scaling.factor", factor)
    elif kind == "yarn" and factor is not None:
        _set_yarn(rope, keys)
    elif kind in ("su", "longrope"):
        keys.set("rope.scaling.type", "longrope")
    sections = source.rope.get("mrope_section")
    if sections is not None:
        if not isinstance(sections, list) or len(sections) > 4:
            raise CheckpointError(f"config.json: mrope_section is {sections!r:.60}; expected up to four numbers")
        keys.set("rope.dimension_sections", [*sections, 0, 0, 0, 0][:4])
    if rope.get("rope_theta") is not None:
        keys.set("rope.freq_base", rope["rope_theta"])
    local = source.rope.get("sliding_attention")
    if isinstance(local, dict) and local.get("rope_theta") is not None:
        keys.set("rope.freq_base_swa", local["rope_theta"])


def _set_yarn(rope: dict[str, Any], keys: Keys) -> None:
    keys.set("rope.scaling.type", "yarn")
    keys.set("rope.scaling.factor", rope["factor"])
    keys.set("rope.scaling.original_context_length", rope.get("original_max_position_embeddings"))
    for key, names in _YARN.items():
        value = next((rope[name] for name in names if name in rope), None)
        if value is not None:
            keys.set(f"rope.scaling.{key}", value)
