"""Tiny models that see, for make_converted.py: model_type, tokenizer, type of the weights, configuration."""

from __future__ import annotations

from typing import Any

from converted_models import ENDS, GROUPED
from converted_models_further import LINEAR, QWEN_3_ROPE, QWEN_3_VISION

TEXT = {**GROUPED, **ENDS, "head_dim": 16}
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14,
}  # fmt: skip
PIXTRAL = {**VISION, "num_hidden_layers": 3, "head_dim": 16, "model_type": "pixtral"}
TOWERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "llama4-vl": ("llama4", "llama", "bfloat16", {
        "text_config": {**TEXT, "num_local_experts": 2, "intermediate_size_mlp": 96, "model_type": "llama4_text"},
        "vision_config": {
            **VISION, "num_hidden_layers": 3, "intermediate_size": 128, "vision_output_dim": 48,
            "projector_input_dim": 48, "projector_output_dim": 48}}),
    "gemma3-vl": ("gemma3", "pieces", "float32", {
        "text_config": {**TEXT, "model_type": "gemma3_text"}, "mm_tokens_per_image": 4,
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}}),
    "idefics3": ("idefics3", "llama", "float16", {
        "text_config": {**TEXT, "model_type": "llama"}, "scale_factor": 2,
        "vision_config": {**VISION, "model_type": "idefics3_vision"}}),
    "smolvlm": ("smolvlm", "llama", "float32", {
        "text_config": {**TEXT, "model_type": "llama"}, "scale_factor": 4,
        "vision_config": {**VISION, "model_type": "smolvlm_vision"}}),
    "pixtral": ("llava", "llama", "bfloat16", {
        "text_config": {**TEXT, "model_type": "mistral"},
        "vision_config": {**PIXTRAL, "hidden_act": "silu"}}),
    "mistral3-vl": ("mistral3", "llama", "float32", {
        "text_config": {**TEXT, "model_type": "mistral"}, "spatial_merge_size": 2,
        "vision_config": PIXTRAL}),
    "qwen2vl": ("qwen2_vl", "words", "float32", {
        "text_config": {**TEXT, "model_type": "qwen2_vl_text", "rope_scaling": {
            "type": "mrope", "mrope_section": [2, 3, 3]}},
        "vision_config": {"depth": 3, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}}),
    "qwen25vl": ("qwen2_5_vl", "words", "bfloat16", {
        "text_config": {**TEXT, "model_type": "qwen2_5_vl_text", "rope_scaling": {
            "type": "mrope", "mrope_section": [2, 3, 3]}},
        "vision_config": {
            "depth": 4, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64,
            "fullatt_block_indexes": [1, 3]}}),
    "qwen3vl-vision": ("qwen3_vl", "words", "bfloat16", {
        "text_config": {**TEXT, "model_type": "qwen3_vl_text", "rope_parameters": QWEN_3_ROPE},
        "vision_config": {**QWEN_3_VISION, "deepstack_visual_indexes": [0, 2]}}),
    "qwen35-vision": ("qwen3_5", "words", "float32", {
        "text_config": {
            **TEXT, **LINEAR, "model_type": "qwen3_5_text", "num_hidden_layers": 4,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"]},
        "vision_config": QWEN_3_VISION}),
    "internvl-hf": ("internvl", "words", "bfloat16", {
        "text_config": {**TEXT, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}, "downsample_ratio": 0.5,
        "vision_config": {
            **VISION, "num_hidden_layers": 4, "architectures": ["InternVisionModel"], "image_size": [56, 56],
            "patch_size": [14, 14], "attention_bias": True}}),
    "muse-glimmer-vl": ("muse_glimmer", "llama", "bfloat16", {
        "text_config": {**TEXT, "num_hidden_layers": 4}, "out_hidden_size": 128, "projector_hidden_size": 48,
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "patch_size": 4, "pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16}}),
}  # fmt: skip
PICTURES: dict[str, Any] = {"image_mean": [0.5, 0.25, 0.125], "image_std": [0.5, 0.75, 0.625]}
# Names of published checkpoints that newer transformers writes in another way.
NAMES = {"gemma3-vl": ("vision_tower.", "vision_tower.vision_model."), "internvl-hf": ("", "model.")}
BREAK = {"added_tokens_decoder": {"2": {"content": "[IMG_BREAK]", "special": True}}}
PREPROCESSORS: dict[str, dict[str, Any]] = {
    "idefics3": {"size": {"longest_edge": 112}}, "gemma3-vl": {"image_seq_length": 4},
}  # fmt: skip
# Encoders in forms that transformers does not write.
TOWERS_BY_HAND: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "internvl": (
        {"architectures": ["InternVLChatModel"], "model_type": "internvl_chat", "downsample_ratio": 0.5,
         "min_dynamic_patch": 1, "max_dynamic_patch": 12, "num_layers": 4,
         "llm_config": {**TEXT, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
         "vision_config": {
             **VISION, "num_hidden_layers": 4, "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b",
             "hidden_act": "gelu", "layer_norm_eps": 1e-6, "norm_type": "layer_norm"}},
        "words", "vision_model.embeddings:class_embedding 1 1 32; vision_model.embeddings:position_embedding 1 17 32; "
        "vision_model.embeddings.patch_embedding 32 3 14 14; vision_model.embeddings.patch_embedding:bias 32; "
        "mlp1.0 128; mlp1.0:bias 128; mlp1.1 64 128; mlp1.1:bias 64; mlp1.3 64 64; mlp1.3:bias 64; "
        "language_model.model.embed_tokens 320 64", "vision_model.encoder.layers.",
        "attn.qkv 96 32; attn.qkv:bias 96; attn.proj 32 32; attn.proj:bias 32; norm1 32; norm1:bias 32; norm2 32; "
        "norm2:bias 32; mlp.fc1 64 32; mlp.fc1:bias 64; mlp.fc2 32 64; mlp.fc2:bias 32; ls1:: 32; ls2:: 32"),
}  # fmt: skip
