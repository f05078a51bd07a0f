"""Tiny drafters of make_converted.py, in the forms in which they are published."""

from __future__ import annotations

from typing import Any

from converted_models import GROUPED, LLAMA_3, LLAMA_LAYER, SIZES

_QWEN_LAYER = f"{LLAMA_LAYER}; self_attn.q_norm 16; self_attn.k_norm 16"
_BLOCK = {
    **GROUPED, "head_dim": 16, "architectures": ["DFlashDraftModel"], "model_type": "qwen3", "rms_norm_eps": 1e-6,
    "block_size": 6,
}  # fmt: skip
_PAIR_LAYER = (
    "self_attn.q_proj 64 128; self_attn.k_proj 32 128; self_attn.v_proj 32 128; self_attn.o_proj 64 64; "
    "mlp.gate_proj 96 64; mlp.up_proj 96 64; mlp.down_proj 64 96; hidden_norm 64; input_layernorm 64; "
    "post_attention_layernorm 64"
)
_PAIRS = {**GROUPED, "num_hidden_layers": 1, "draft_vocab_size": 40, "rms_norm_eps": 1e-5}
_REDUCED = "d2t:: 40 I64; t2d:: 320 BOOL; lm_head 40 64; norm 64"


def _entries(prefix: str, layer: str) -> str:
    return "; ".join(f"{prefix}{entry}" for entry in layer.split("; "))


# Name to the model they were made for; those of classes of transformers are in MODELS, the others in BY_HAND.
TARGETS = {
    "muse-glimmer-assistant": "muse-glimmer", "dflash-qwen3": "qwen3", "dflash-gemma4": "gemma4-dense",
    "dflash-qwen25vl": "qwen25vl", "eagle3": "smollm3", "eagle3-speculators": "qwen35", "eagle3-gpt-oss": "gpt-oss",
}  # fmt: skip
DRAFTERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "muse-glimmer-assistant": ("muse_glimmer_assistant", "llama", "bfloat16", {
        **{key: value for key, value in GROUPED.items() if key != "vocab_size"}, "head_dim": 16, "sliding_window": 24,
        "block_size": 6, "mask_token_id": 311, "target_layer_ids": [0, 2, 4], "bos_token_id": 0, "eos_token_id": 0,
        "pad_token_id": 0}),
}  # fmt: skip
DRAFTERS_BY_HAND: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "dflash-qwen3": (
        {**_BLOCK, "dflash_config": {"mask_token_id": 311, "target_layer_ids": [0, 1]}, "use_sliding_window": False,
         "sliding_window": None, "rope_theta": 1000000.0},
        "words", "fc 64 128; hidden_norm 64; norm 64", "layers.", _QWEN_LAYER),
    "dflash-gemma4": (
        {**_BLOCK, "vocab_size": 342, "is_causal": False, "use_sliding_window": True, "sliding_window": 24,
         "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 5.0,
         "has_embed_tokens": False, "rope_is_neox_style": False, "rope_parameters": {
             "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 10000.0},
         "dflash_config": {"mask_token_id": 311, "target_layer_ids": [1, 3, 4], "input_embedding_scale": 8.0,
                           "block_size": 8}},
        "characters", "model.fc 64 192; model.hidden_norm 64; model.norm 64; model.embed_tokens 342 64",
        "model.layers.", _QWEN_LAYER),
    "dflash-qwen25vl": (
        {**_BLOCK, "partial_rotary_factor": 0.5, "dflash_config": {
            "mask_token_id": 311, "target_layer_ids": [1], "causal": True, "use_swa": True, "swa_window_size": 20,
            "output_multiplier": 0.5}},
        "words", "fc 64 64; hidden_norm 64; norm 64; embed_tokens 320 64; lm_head 320 64", "layers.", _QWEN_LAYER),
    "eagle3": (
        {**_PAIRS, "architectures": ["LlamaForCausalLM"], "model_type": "llama", "rope_parameters": LLAMA_3},
        "llama", f"fc 64 192; {_REDUCED}; {_entries('midlayer.', _PAIR_LAYER)}", "", ""),
    "eagle3-speculators": (
        {"architectures": ["Eagle3Speculator"], "draft_vocab_size": 40, "norm_before_residual": True,
         "target_hidden_size": None, "eagle_aux_hidden_state_layer_ids": [1, 2, 3], "speculators_model_type": "eagle3",
         "speculators_config": {"algorithm": "eagle3", "verifier": {"name_or_path": "nobody/such-model"}},
         "transformer_layer_config": {**_PAIRS, "model_type": "llama", "rope_theta": 10000.0}},
        "words", f"fc 64 192; embed_tokens 320 64; {_REDUCED}; {_entries('layers.0.', _PAIR_LAYER)}", "", ""),
    "eagle3-gpt-oss": (
        {**_PAIRS, "architectures": ["LlamaForCausalLMEagle3"], "model_type": "llama", "head_dim": 16,
         "draft_vocab_size": SIZES["vocab_size"], "norm_before_fc": True, "target_hidden_size": 64,
         "eagle_config": {"eagle_aux_hidden_state_layer_ids": []},
         "eagle_aux_hidden_state_layer_ids": [1, 2, 2]},
        "words", f"fc 64 192; input_norm 192; lm_head 320 64; norm 64; {_entries('midlayer.', _PAIR_LAYER)}", "", ""),
}  # fmt: skip
# The map from rows of a reduced output matrix to tokens, as distances.
_MAP = {"d2t": [3 * row + row % 2 - row for row in range(40)]}
DRAFTERS_VALUES: dict[str, dict[str, Any]] = {"eagle3": _MAP, "eagle3-speculators": _MAP}
