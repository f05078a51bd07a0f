"""Further tiny models of make_converted.py."""

from __future__ import annotations

from typing import Any

from converted_models import ENDS, EXPERTS, GROUPED, LLAMA_3, LLAMA_LAYER, MLA, SIZES, YARN

DYNAMIC = {"rope_type": "dynamic", "type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0}
GEMMA_4 = {
    **GROUPED, "head_dim": 16, "vocab_size": 342, "sliding_window": 32, "final_logit_softcapping": 5.0,
    "global_head_dim": 32,
}  # fmt: skip
LINEAR = {
    "linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip
INDEX = {"index_n_heads": 4, "index_head_dim": 64, "index_topk": 16}
MUSE_VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 4,
    "pos_emb_height": 4, "pos_emb_width": 4, "max_position_embeddings": 16,
}  # fmt: skip
QWEN_3_ROPE = {
    "rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
}  # fmt: skip
QWEN_3_VISION = {
    "depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 64, "patch_size": 4,
    "num_position_embeddings": 9,
}  # fmt: skip
FURTHER: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "hunyuan-dense": ("hunyuan_v1_dense", "words", "bfloat16", {
        **GROUPED, "head_dim": 32, "eod_token_id": 2, "max_position_embeddings": 32768, "tie_word_embeddings": True,
        "rope_parameters": DYNAMIC}),
    "jais2": ("jais2", "gpt-2", "float32", {**GROUPED, **ENDS}),
    "minimax-m2": ("minimax_m2", "words", "float32", {
        **GROUPED, "head_dim": 32, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "exaone-moe": ("exaone_moe", "words", "float32", {
        **GROUPED, **EXPERTS, **ENDS, "head_dim": 16, "num_hidden_layers": 4, "num_experts": 4, "sliding_window": 32}),
    "chatglm-hf": ("glm", "glm", "float32", {**GROUPED, "head_dim": 16, **ENDS}),
    "muse-glimmer": ("muse_glimmer", "llama", "bfloat16", {
        "text_config": {**GROUPED, **ENDS, "head_dim": 16, "num_hidden_layers": 5, "sliding_window": 32,
                        "final_logit_softcapping": 5.0, "output_multiplier": 0.5, "qk_scale_factor": 2.5},
        "vision_config": MUSE_VISION, "out_hidden_size": 128, "projector_hidden_size": 48}),
    "gemma4-dense": ("gemma4_text", "characters", "float32", {
        **GEMMA_4, "num_hidden_layers": 6, "hidden_size_per_layer_input": 0, "attention_k_eq_v": True,
        "num_global_key_value_heads": 1}),
    "gemma4-e": ("gemma4_text", "characters", "float32", {
        **GEMMA_4, "num_hidden_layers": 6, "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 342,
        "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "layer_types": [
            "sliding_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention",
            "full_attention"]}),
    "gemma4-moe": ("gemma4_text", "characters", "bfloat16", {
        **GEMMA_4, "num_hidden_layers": 3, "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 4,
        "top_k_experts": 2, "moe_intermediate_size": 32}),
    "gemma4-unified": ("gemma4_unified", "characters", "bfloat16", {
        "text_config": {**GEMMA_4, "num_hidden_layers": 3, "moe_intermediate_size": None},
        "vision_config": {"mm_embed_dim": 64, "mm_posemb_size": 8, "output_proj_dims": 64, "patch_size": 4},
        "audio_config": {"audio_embed_dim": 32}}),
    "gemma4-assistant": ("gemma4_assistant", "characters", "float32", {
        "text_config": {**GEMMA_4, "num_hidden_layers": 4, "hidden_size_per_layer_input": 0,
                        "vocab_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
                        "num_kv_shared_layers": 4},
        "backbone_hidden_size": 96}),
    "gemma4-assistant-e": ("gemma4_assistant", "characters", "bfloat16", {
        "text_config": {**GEMMA_4, "num_hidden_layers": 3, "hidden_size_per_layer_input": 0,
                        "vocab_size_per_layer_input": 0},
        "backbone_hidden_size": 96, "use_ordered_embeddings": True, "num_centroids": 6,
        "centroid_intermediate_top_k": 2}),
    "qwen3next": ("qwen3_next", "words", "float32", {
        **GROUPED, **EXPERTS, **LINEAR, "head_dim": 32, "num_hidden_layers": 4, "num_experts": 4,
        "shared_expert_intermediate_size": 48}),
    "qwen35": ("qwen3_5_text", "words", "bfloat16", {**GROUPED, **LINEAR, "head_dim": 32, "num_hidden_layers": 4}),
    "qwen35moe": ("qwen3_5_moe_text", "words", "float32", {
        **GROUPED, **EXPERTS, **LINEAR, "head_dim": 32, "num_hidden_layers": 4, "num_experts": 4,
        "shared_expert_intermediate_size": 48}),
    "qwen3vl": ("qwen3_vl", "words", "bfloat16", {
        "text_config": {**GROUPED, "head_dim": 16, "rope_parameters": QWEN_3_ROPE, "model_type": "qwen3_vl_text"},
        "vision_config": {**QWEN_3_VISION, "deepstack_visual_indexes": [0]}}),
    "qwen3vlmoe": ("qwen3_vl_moe", "words", "float32", {
        "text_config": {**GROUPED, **EXPERTS, "head_dim": 16, "num_experts": 4, "rope_parameters": QWEN_3_ROPE,
                        "model_type": "qwen3_vl_moe_text"},
        "vision_config": {**QWEN_3_VISION, "deepstack_visual_indexes": [0]}}),
    "mistral4": ("mistral4", "llama", "float32", {
        **MLA, "q_lora_rank": 48, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "rope_parameters": {
            **YARN, "rope_theta": 1e4, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}),
    "deepseek32": ("deepseek_v32", "words", "float32", {**MLA, **INDEX, "q_lora_rank": 48}),
    "glm4-moe-lite": ("glm4_moe_lite", "glm", "bfloat16", {
        **MLA, **ENDS, "q_lora_rank": 48, "n_group": 1, "topk_group": 1}),
    "glm-dsa": ("glm_moe_dsa", "glm", "float32", {
        **MLA, **INDEX, **ENDS, "q_lora_rank": 48, "n_group": 1, "topk_group": 1, "indexer_types": [
            "full", "full", "shared"]}),
}  # fmt: skip
# What published configurations have and those of newer transformers do not.
FURTHER_PUBLISHED: dict[str, dict[str, Any]] = {
    "minimax-m2": {"rotary_dim": 16, "scoring_func": "sigmoid"},
    "mistral4": {"architectures": ["Mistral3ForConditionalGeneration"]},
    "deepseek32": {"scoring_func": "sigmoid"},
    "glm-dsa": {"scoring_func": "sigmoid"},
}
PREDICTOR = {"eh_proj": [64, 128], "enorm": [64], "hnorm": [64], "shared_head.norm": [64]}
QWEN_PREDICTOR = {"fc": [64, 128], "pre_fc_norm_embedding": [64], "pre_fc_norm_hidden": [64], "norm": [64]}
# Models with a layer that predicts further tokens, which transformers does not have: that of another model, the layer
# that is copied and its name, what surrounds it, and what the configuration says.
PREDICTING: dict[str, tuple[str, str, str, dict[str, list[int]], dict[str, Any]]] = {
    name: (
        other, f"model.layers.{layer}.", f"model.layers.{layer + 1}.",
        {f"model.layers.{layer + 1}.{part}.weight": shape for part, shape in PREDICTOR.items()},
        {"num_nextn_predict_layers": 1},
    )
    for name, other, layer in (
        ("deepseek32-mtp", "deepseek32", 2), ("glm-dsa-mtp", "glm-dsa", 2), ("glm4-moe-lite-mtp", "glm4-moe-lite", 2))
} | {
    f"{name}-mtp": (
        name, "model.layers.3.", "mtp.layers.0.",
        {f"mtp.{part}.weight": shape for part, shape in QWEN_PREDICTOR.items()}, {"mtp_num_hidden_layers": 1},
    )
    for name in ("qwen3next", "qwen35", "qwen35moe")
}  # fmt: skip
WHOLE = "model.embed_tokens 320 64; model.norm 64; lm_head 320 64"
ATTENTION = LLAMA_LAYER.partition("; mlp")[0]
NETWORK = "mlp.gate_proj {0} 64; mlp.up_proj {0} 64; mlp.down_proj 64 {0}"
ONE_GROUP = ATTENTION.replace(" 32 64", " 16 64")
NORMS_OF_HEADS = "; self_attn.q_norm 16; self_attn.k_norm 16"
BERT = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "max_position_embeddings": 128, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
JINA = "embeddings.word_embeddings {} 64; embeddings.token_type_embeddings 2 64; embeddings.LayerNorm 64; "
JINA += "embeddings.LayerNorm:bias 64"
JINA_ATTENTION = "; ".join(
    f"attention.{part} 64 64; attention.{part}:bias 64"
    for part in ("self.query", "self.key", "self.value", "output.dense")
)  # fmt: skip


def experts(prefix: str, parts: dict[str, tuple[int, int]], count: int) -> str:
    """The matrices of experts as entries of a layer."""
    return "; ".join(
        f"{prefix}.{expert}.{part} {rows} {columns}"
        for expert in range(count)
        for part, (rows, columns) in parts.items()
    )


MLLAMA_VISION = (
    "self_attn.q_proj 32 32; self_attn.k_proj 32 32; self_attn.v_proj 32 32; self_attn.o_proj 32 32; mlp.fc1 64 32; "
    "mlp.fc1:bias 64; mlp.fc2 32 64; mlp.fc2:bias 32; input_layernorm 32; input_layernorm:bias 32; "
    "post_attention_layernorm 32; post_attention_layernorm:bias 32"
)
GATED = {"gate_proj": (32, 64), "up_proj": (32, 64), "down_proj": (64, 32)}
# What llama.cpp's converter asks tokenizer_config.json for.
SETTINGS: dict[str, dict[str, Any]] = {
    "jina-bert-v2": {"tokenizer_class": "BertTokenizer"}, "jina-bert-v2-code": {"tokenizer_class": "RobertaTokenizer"},
}  # fmt: skip
# Tensors whose values are not made up.
# Of these torch's exponential is rounded correctly, as ours is.
DECAY = [0.0, 0.5, 1.0, -0.5]
VALUES = {
    name: {f"model.layers.{layer}.linear_attn.A_log": DECAY for layer in (0, 1, 2)}
    for name in ("qwen3next", "qwen35", "qwen35moe")
} | {"jais": {"transformer.relative_pe.slopes": [2.0**-2.5, 2.0**-5, 2.0**-7.5, 2.0**-10]}}
MOE_LAYER = "; ".join([
    ATTENTION, "mlp.gate 4 64; mlp.gate:e_score_correction_bias 4", experts("mlp.experts", GATED, 4),
    *(f"mlp.shared_experts.{part} {rows} {columns}" for part, (rows, columns) in GATED.items()),
])  # fmt: skip
FURTHER_BY_HAND: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "baichuan": (
        {**GROUPED, "num_key_value_heads": 4, "architectures": ["BaichuanForCausalLM"], "model_type": "baichuan",
         "rms_norm_eps": 1e-6},
        "pieces", WHOLE, "model.layers.",
        "input_layernorm 64; post_attention_layernorm 64; self_attn.W_pack 192 64; self_attn.o_proj 64 64; "
        "mlp.gate_proj 96 64; mlp.up_proj 96 64; mlp.down_proj 64 96"),
    "bailingmoe": (
        {**GROUPED, "architectures": ["BailingMoeForCausalLM"], "model_type": "bailing_moe", "rms_norm_eps": 1e-6,
         "rope_theta": 600000, "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 2,
         "moe_intermediate_size": 32, "first_k_dense_replace": 0, "norm_topk_prob": True, "norm_head": False},
        "words", "model.word_embeddings 320 64; model.norm 64; lm_head 320 64", "model.layers.",
        "input_layernorm 64; post_attention_layernorm 64; attention.query_key_value 128 64; attention.dense 64 64; "
        f"mlp.gate 4 64; {experts('mlp.experts', GATED, 4)}; mlp.shared_experts.gate_proj 64 64; "
        "mlp.shared_experts.up_proj 64 64; mlp.shared_experts.down_proj 64 64"),
    "chatglm": (
        {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "num_layers": 2, "hidden_size": 64,
         "ffn_hidden_size": 96, "num_attention_heads": 4, "kv_channels": 16, "multi_query_attention": True,
         "multi_query_group_num": 2, "seq_length": 256, "layernorm_epsilon": 1.5625e-7, "rope_ratio": 500,
         "padded_vocab_size": 320, "vocab_size": 320, "add_qkv_bias": True, **ENDS},
        "glm", "transformer.embedding.word_embeddings 320 64; transformer.encoder.final_layernorm 64; "
        "transformer.output_layer 320 64; transformer.rotary_pos_emb:inv_freq 8", "transformer.encoder.layers.",
        "input_layernorm 64; post_attention_layernorm 64; self_attention.query_key_value 128 64; "
        "self_attention.query_key_value:bias 128; self_attention.dense 64 64; mlp.dense_h_to_4h 192 64; "
        "mlp.dense_4h_to_h 64 96"),
    "chatglm3": (
        {"architectures": ["ChatGLMModel"], "model_type": "chatglm", "_name_or_path": "THUDM/chatglm3-6b",
         "num_layers": 2, "hidden_size": 64, "ffn_hidden_size": 96, "num_attention_heads": 4, "kv_channels": 16,
         "multi_query_attention": True, "multi_query_group_num": 2, "seq_length": 256, "layernorm_epsilon": 1e-5,
         "padded_vocab_size": 328, "eos_token_id": 2, "pad_token_id": 0},
        "pieces alone", "transformer.embedding.word_embeddings 328 64; transformer.encoder.final_layernorm 64; "
        "transformer.output_layer 328 64", "transformer.encoder.layers.",
        "input_layernorm 64; post_attention_layernorm 64; self_attention.query_key_value 128 64; "
        "self_attention.query_key_value:bias 128; self_attention.dense 64 64; mlp.dense_h_to_4h 192 64; "
        "mlp.dense_4h_to_h 64 96"),
    "codeshell": (
        {"architectures": ["CodeShellForCausalLM"], "model_type": "codeshell", "n_embd": 64, "n_layer": 2, "n_head": 4,
         "num_query_groups": 2, "n_positions": 256, "layer_norm_epsilon": 1e-5, "vocab_size": 320, **ENDS},
        "gpt-2", "transformer.wte 320 64; transformer.ln_f 64; transformer.ln_f:bias 64; lm_head 320 64",
        "transformer.h.",
        "ln_1 64; ln_1:bias 64; ln_2 64; ln_2:bias 64; attn.c_attn 128 64; attn.c_attn:bias 128; attn.c_proj 64 64; "
        "attn.c_proj:bias 64; mlp.c_fc 256 64; mlp.c_fc:bias 256; mlp.c_proj 64 256; mlp.c_proj:bias 64"),
    "dbrx": (
        {"architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "d_model": 64, "n_layers": 2, "n_heads": 4,
         "max_seq_len": 256, "vocab_size": 320, **ENDS,
         "attn_config": {"clip_qkv": 8, "kv_n_heads": 2, "rope_theta": 500000},
         "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2}},
        "words", "transformer.wte 320 64; transformer.norm_f 64; lm_head 320 64", "transformer.blocks.",
        "norm_attn_norm.norm_1 64; norm_attn_norm.norm_2 64; norm_attn_norm.attn.Wqkv 128 64; "
        "norm_attn_norm.attn.out_proj 64 64; ffn.router.layer 4 64; ffn.experts.mlp:w1 128 64; "
        "ffn.experts.mlp:v1 128 64; ffn.experts.mlp:w2 128 64"),
    "hunyuan-ranks": (
        {**GROUPED, "head_dim": 32, "vocab_size": 510, "architectures": ["HunYuanDenseV1ForCausalLM"],
         "model_type": "hunyuan_1", "rms_norm_eps": 1e-5, "use_qk_norm": True},
        "ranks hy", WHOLE.replace("320", "510"), "model.layers.",
        "input_layernorm 64; post_attention_layernorm 64; self_attn.q_proj 128 64; self_attn.k_proj 64 64; "
        "self_attn.v_proj 64 64; self_attn.o_proj 64 128; self_attn.query_layernorm 32; self_attn.key_layernorm 32; "
        "mlp.gate_proj 96 64; mlp.up_proj 96 64; mlp.down_proj 64 96"),
    "hunyuan-moe": (
        {**GROUPED, "vocab_size": 510, "architectures": ["HunYuanMoEV1ForCausalLM"], "model_type": "hunyuan_moe_1",
         "rms_norm_eps": 1e-5, "num_experts": 4, "moe_topk": [2, 2], "moe_intermediate_size": [32, 32],
         "num_shared_expert": [1, 1]},
        "ranks hy", WHOLE.replace("320", "510"), "model.layers.",
        f"{ATTENTION}; self_attn.query_layernorm 16; self_attn.key_layernorm 16; mlp.gate.wg 4 64; "
        f"{experts('mlp.experts', GATED, 4)}; mlp.shared_mlp.gate_proj 96 64; mlp.shared_mlp.up_proj 96 64; "
        "mlp.shared_mlp.down_proj 64 96"),
    "jais": (
        {"architectures": ["JAISLMHeadModel"], "model_type": "jais", "n_embd": 64, "n_layer": 2, "n_head": 4,
         "n_inner": 96, "n_positions": 256, "layer_norm_epsilon": 1e-5, "vocab_size": 320, **ENDS,
         "activation_function": "swiglu", "position_embedding_type": "alibi", "mup_embeddings_scale": 14.6,
         "mup_output_alpha": 2.2, "mup_width_scale": 0.125},
        "gpt-2", "transformer.wte 320 64; transformer.ln_f 64; transformer.ln_f:bias 64; lm_head 320 64; "
        "transformer.relative_pe:slopes 4", "transformer.h.",
        "ln_1 64; ln_1:bias 64; ln_2 64; ln_2:bias 64; attn.c_attn 64 192; attn.c_attn:bias 192; attn.c_proj 64 64; "
        "attn.c_proj:bias 64; mlp.c_fc 64 96; mlp.c_fc:bias 96; mlp.c_fc2 64 96; mlp.c_fc2:bias 96; mlp.c_proj 96 64; "
        "mlp.c_proj:bias 64"),
    "jina-bert-v2": (
        {**BERT, "vocab_size": 300, "architectures": ["JinaBertForMaskedLM"], "model_type": "bert",
         "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
        "pieces of words", JINA.format(300), "encoder.layer.",
        f"{JINA_ATTENTION}; attention.output.LayerNorm 64; attention.output.LayerNorm:bias 64; "
        "mlp.gated_layers 192 64; mlp.wo 64 96; mlp.wo:bias 64; mlp.layernorm 64; mlp.layernorm:bias 64"),
    "jina-bert-v2-code": (
        {**BERT, "vocab_size": 310, "architectures": ["JinaBertForMaskedLM"], "model_type": "bert",
         "position_embedding_type": "alibi", "feed_forward_type": "geglu"},
        "roberta", JINA.format(310), "encoder.layer.",
        f"{JINA_ATTENTION}; attention.self.layer_norm_q 64; attention.self.layer_norm_q:bias 64; "
        "attention.self.layer_norm_k 64; attention.self.layer_norm_k:bias 64; attention.output.LayerNorm 64; "
        "attention.output.LayerNorm:bias 64; layer_norm_1 64; layer_norm_1:bias 64; "
        "layer_norm_2 64; layer_norm_2:bias 64; mlp.up_gated_layer 192 64; mlp.down_layer 64 96; "
        "mlp.down_layer:bias 64"),
    "jina-bert-v3": (
        {**BERT, "vocab_size": 130, "type_vocab_size": 1, "architectures": ["XLMRobertaModel"],
         "model_type": "xlm-roberta-flash-1", "pad_token_id": 1, "max_position_embeddings": 130,
         "lora_adaptations": ["classification", "separation"], 
         "task_instructions": {"classification": "", "separation": "x: "}, "rotary_emb_base": 20000.0, "lora_alpha": 1},
        "unigram", "roberta.embeddings.word_embeddings.parametrizations.weight:original 130 64; "
        "roberta.embeddings.token_type_embeddings.parametrizations.weight:original 1 64; roberta.emb_ln 64; "
        "roberta.embeddings.word_embeddings.parametrizations.weight.0:lora_A 2 130 4; "
        "roberta.embeddings.word_embeddings.parametrizations.weight.0:lora_B 2 4 64; "
        "roberta.embeddings.token_type_embeddings.parametrizations.weight.0:lora_A 2 1 4; "
        "roberta.embeddings.token_type_embeddings.parametrizations.weight.0:lora_B 2 4 64; "
        "roberta.emb_ln:bias 64", "roberta.encoder.layers.",
        "mixer.Wqkv.parametrizations.weight:original 192 64; mixer.Wqkv:bias 192; "
        "mixer.out_proj.parametrizations.weight:original 64 64; mixer.out_proj:bias 64; norm1 64; norm1:bias 64; "
        "mlp.fc1.parametrizations.weight:original 96 64; mlp.fc1:bias 96; "
        "mlp.fc2.parametrizations.weight:original 64 96; mlp.fc2:bias 64; norm2 64; norm2:bias 64; "
        "mixer.Wqkv.parametrizations.weight.0:lora_A 2 4 64; mixer.Wqkv.parametrizations.weight.0:lora_B 2 192 4; "
        "mlp.fc2.parametrizations.weight.0:lora_A 2 4 96; mlp.fc2.parametrizations.weight.0:lora_B 2 64 4"),
    "openelm": (
        {"architectures": ["OpenELMForCausalLM"], "model_type": "openelm", "model_dim": 64, "num_transformer_layers": 2,
         "head_dim": 16, "num_query_heads": [4, 4], "num_kv_heads": [2, 2], "ffn_multipliers": [1.0, 1.5],
         "ffn_dim_divisor": 16, "max_context_length": 256, "rope_freq_constant": 10000, "vocab_size": 320},
        "pieces", "transformer.token_embeddings 320 64; transformer.norm 64; transformer.layers.0.ffn.proj_1 128 64; "
        "transformer.layers.0.ffn.proj_2 64 64; transformer.layers.1.ffn.proj_1 192 64; "
        "transformer.layers.1.ffn.proj_2 64 96", "transformer.layers.",
        "attn_norm 64; ffn_norm 64; attn.qkv_proj 128 64; attn.q_norm 16; attn.k_norm 16; attn.out_proj 64 64"),
    "pangu-embedded": (
        {**GROUPED, "architectures": ["PanguEmbeddedForCausalLM"], "model_type": "PanguEmbedded", "rms_norm_eps": 1e-5,
         "rope_theta": 16000000.0},
        "pieces", WHOLE, "model.layers.",
        f"{LLAMA_LAYER}; self_attn.q_proj:bias 64; self_attn.k_proj:bias 32; self_attn.v_proj:bias 32; "
        "self_attn.o_proj:bias 64"),
    "plamo": (
        {**SIZES, "num_hidden_layers": 2, "intermediate_size": 96, "architectures": ["PlamoForCausalLM"],
         "model_type": "plamo", "rms_norm_eps": 1e-6, "hidden_size": 80, "num_attention_heads": 10,
         "num_key_value_heads": 10, "n_shared_head": 2},
        "pieces", "model.embed_tokens 320 80; model.norm 80; lm_head 320 80", "model.layers.layers.",
        "norm 80; self_attn.q_proj 80 80; self_attn.k_proj 40 80; self_attn.v_proj 40 80; self_attn.o_proj 80 80; "
        "mlp.gate_proj 96 80; mlp.up_proj 96 80; mlp.down_proj 80 96"),
    "qwen": (
        {**SIZES, "num_hidden_layers": 2, "intermediate_size": 192, "vocab_size": 520, "kv_channels": 16,
         "architectures": ["QWenLMHeadModel"], "model_type": "qwen", "layer_norm_epsilon": 1e-6,
         "rotary_emb_base": 10000, "seq_length": 128},
        "ranks qwen", "transformer.wte 520 64; transformer.ln_f 64; lm_head 520 64", "transformer.h.",
        "ln_1 64; ln_2 64; attn.c_attn 192 64; attn.c_attn:bias 192; attn.c_proj 64 64; mlp.w1 96 64; mlp.w2 96 64; "
        "mlp.c_proj 64 96"),
    "refact": (
        {"architectures": ["GPTRefactForCausalLM"], "model_type": "gpt_refact", "n_embd": 64, "n_layer": 2, "n_head": 4,
         "n_positions": 256, "layer_norm_epsilon": 1e-5, "vocab_size": 320, **ENDS},
        "gpt-2", "transformer.wte 320 64; transformer.ln_f 64; lm_head 320 64", "transformer.h.",
        "ln_1 64; ln_2 64; attn.q 64 64; attn.kv 32 64; attn.c_proj 64 64; mlp.gate_up_proj 512 64; mlp.c_proj 64 256"),
    "deberta-v2": (
        {**BERT, "vocab_size": 128, "type_vocab_size": 0, "architectures": ["DebertaV2ForSequenceClassification"],
         "model_type": "deberta-v2", "layer_norm_eps": 1e-7, "relative_attention": True, "position_buckets": 16,
         "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False,
         "pooler_hidden_act": "gelu", "id2label": {"0": "BENIGN", "1": "MALICIOUS"}},
        "unigram of DeBERTa", "deberta.embeddings.word_embeddings 128 64; deberta.embeddings.LayerNorm 64; "
        "deberta.embeddings.LayerNorm:bias 64; deberta.encoder.rel_embeddings 32 64; deberta.encoder.LayerNorm 64; "
        "deberta.encoder.LayerNorm:bias 64; pooler.dense 64 64; pooler.dense:bias 64; "
        "classifier 2 64; classifier:bias 2",
        "deberta.encoder.layer.",
        "attention.self.query_proj 64 64; attention.self.query_proj:bias 64; attention.self.key_proj 64 64; "
        "attention.self.key_proj:bias 64; attention.self.value_proj 64 64; attention.self.value_proj:bias 64; "
        "attention.output.dense 64 64; attention.output.dense:bias 64; attention.output.LayerNorm 64; "
        "attention.output.LayerNorm:bias 64; intermediate.dense 96 64; intermediate.dense:bias 96; output.dense 64 96; "
        "output.dense:bias 64; output.LayerNorm 64; output.LayerNorm:bias 64"),
    "mllama": (
        {"architectures": ["MllamaForConditionalGeneration"], "model_type": "mllama", "num_hidden_layers": 0,
         "text_config": {**GROUPED, "model_type": "mllama_text_model", "num_hidden_layers": 3,
                         "cross_attention_layers": [1], "rope_scaling": LLAMA_3, "rope_theta": 500000.0},
         "vision_config": {
             "model_type": "mllama_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
             "num_global_layers": 1, "attention_heads": 2, "image_size": 28, "patch_size": 14,
             "intermediate_layers_indices": [0, 1]}},
        "llama", "; ".join([
            "language_model.model.embed_tokens 328 64", "language_model.model.norm 64", "language_model.lm_head 320 64",
            *(f"language_model.model.layers.{layer}.{entry}" for layer in (0, 2) for entry in LLAMA_LAYER.split("; ")),
            *(f"language_model.model.layers.1.{entry}" for entry in LLAMA_LAYER.split("; ")
              if "self_attn" not in entry),
            *(f"language_model.model.layers.1.cross_attn{entry}" for entry in (
                ".q_proj 64 64", ".k_proj 32 64", ".v_proj 32 64", ".o_proj 64 64", ".q_norm 16", ".k_norm 16",
                "_attn_gate:: 1", "_mlp_gate:: 1")),
            "vision_model:class_embedding 32", "vision_model.patch_embedding 32 3 14 14",
            "vision_model.gated_positional_embedding:embedding 5 32", "vision_model.gated_positional_embedding:gate 1",
            "vision_model.gated_positional_embedding.tile_embedding 9 640",
            *(f"vision_model.{place}_tile_positional_embedding.embedding 9 128" for place in ("pre", "post")),
            *(f"vision_model.{place}_tile_positional_embedding:gate 1" for place in ("pre", "post")),
            *(f"vision_model.layernorm_{place}{kind} 32" for place in ("pre", "post") for kind in ("", ":bias")),
            *(f"vision_model.global_transformer.layers.0:gate_{part} 1" for part in ("attn", "ffn")),
            *(f"vision_model.{place}.{entry}" for place in (
                "transformer.layers.0", "transformer.layers.1", "global_transformer.layers.0")
              for entry in MLLAMA_VISION.split("; ")),
            "multi_modal_projector 64 96", "multi_modal_projector:bias 64"]), "", ""),
    "deci": (
        {**GROUPED, "num_hidden_layers": 4, "architectures": ["DeciLMForCausalLM"], "model_type": "nemotron-nas-1",
         "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": LLAMA_3, "block_configs": [
             {"attention": {"n_heads_in_group": 2, "replace_with_linear": False}, "ffn": {"ffn_mult": 1.5}},
             {"attention": {"n_heads_in_group": None, "replace_with_linear": True}, "ffn": {"ffn_mult": 6.1}},
             {"attention": {"n_heads_in_group": None, "replace_with_linear": False}, "ffn": {"ffn_mult": 0.5}},
             {"attention": {"n_heads_in_group": 4, "replace_with_linear": False}, "ffn": {"ffn_mult": 1.0}}]},
        "llama", "; ".join([WHOLE, *(f"model.layers.{layer}.{entry}" for layer, entries in enumerate((
            (ATTENTION, NETWORK.format(256)),
            ("input_layernorm 64; post_attention_layernorm 64; self_attn.linear_attn 64 64", NETWORK.format(512)),
            ("post_attention_layernorm 64", NETWORK.format(256)),
            (ONE_GROUP, NETWORK.format(256)))) for entry in "; ".join(entries).split("; "))]),
        "", ""),
    "deci-7b": (
        {**GROUPED, "architectures": ["DeciLMForCausalLM"], "model_type": "deci", "rms_norm_eps": 1e-5,
         "num_key_value_heads_per_layer": [2, 1], "rope_theta": 10000.0},
        "llama", "; ".join([WHOLE, *(f"model.layers.{layer}.{entry}" for layer, attention in enumerate(
            (ATTENTION, ONE_GROUP)) for entry in f"{attention}; {NETWORK.format(96)}".split("; "))]),
        "", ""),
    "gpt-oss-mxfp4": (
        {**GROUPED, "head_dim": 16, "intermediate_size": 64, "architectures": ["GptOssForCausalLM"],
         "model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2,
         "quantization_config": {"quant_method": "mxfp4"}},
        "words", WHOLE, "model.layers.",
        f"{ATTENTION}; self_attn.q_proj:bias 64; self_attn.k_proj:bias 32; self_attn.v_proj:bias 32; "
        "self_attn.o_proj:bias 64; self_attn:sinks 4; mlp.router 4 64; mlp.router:bias 4; "
        "mlp.experts:gate_up_proj_blocks 4 128 2 16 U8; mlp.experts:gate_up_proj_scales 4 128 2 U8; "
        "mlp.experts:gate_up_proj_bias 4 128; mlp.experts:down_proj_blocks 4 64 2 16 U8; "
        "mlp.experts:down_proj_scales 4 64 2 U8; mlp.experts:down_proj_bias 4 64"),
    "glm4moe-mtp": (
        {**GROUPED, **EXPERTS, **ENDS, "head_dim": 16, "architectures": ["Glm4MoeForCausalLM"],
         "model_type": "glm4_moe", "n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
         "num_nextn_predict_layers": 1,
         "use_qk_norm": False, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        "glm", "; ".join([WHOLE, *(f"model.layers.0.{entry}" for entry in LLAMA_LAYER.split("; ")), *(
            f"model.layers.{layer}.{entry}" for layer in (1, 2) for entry in MOE_LAYER.split("; ")), *(
            f"model.layers.2.{entry}" for entry in (
                "eh_proj 64 128", "enorm 64", "hnorm 64", "embed_tokens 320 64", "shared_head.head 320 64",
                "shared_head.norm 64"))]), "", ""),
    "exaone-moe-mtp": (
        {**GROUPED, **EXPERTS, **ENDS, "head_dim": 16, "architectures": ["ExaoneMoEForCausalLM"],
         "model_type": "exaone_moe", "num_experts": 4, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1,
         "sliding_window": 32, "layer_types": ["sliding_attention", "full_attention"]},
        "words", "; ".join([WHOLE, *(
            f"model.layers.0.{entry}" for entry in (LLAMA_LAYER + NORMS_OF_HEADS).split("; ")), *(
            f"{prefix}.{entry}" for prefix, layer in (("model.layers.1", MOE_LAYER), ("mtp.layers.0", LLAMA_LAYER))
            for entry in (layer + NORMS_OF_HEADS).split("; ")),
            "mtp.fc 64 128", "mtp.pre_fc_norm_embedding 64", "mtp.pre_fc_norm_hidden 64", "mtp.norm 64"]), "", ""),
    "nomic-bert-moe": (
        {"architectures": ["NomicBertModel"], "model_type": "nomic_bert_x", "n_embd": 64, "n_head": 4, "n_layer": 2,
         "n_inner": 96, "n_positions": 2048, "max_trained_positions": 2048, "vocab_size": 122, "type_vocab_size": 1,
         "activation_function": "gelu", "causal": False, "prenorm": False, "qkv_proj_bias": True, "mlp_fc1_bias": True,
         "mlp_fc2_bias": True, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False, "moe_every_n_layers": 2,
         "rotary_emb_scale_base": None, "rotary_emb_base": 10000.0, "layer_norm_epsilon": 1e-5, "num_experts": 4,
         "moe_top_k": 2, "pad_token_id": 1},
        "unigram in JSON", "; ".join([
            "embeddings.word_embeddings 122 64; embeddings.token_type_embeddings 1 64; emb_ln 64; emb_ln:bias 64",
            "encoder.layers.0.mlp.fc1 96 64; encoder.layers.0.mlp.fc1:bias 96; encoder.layers.0.mlp.fc2 64 96",
            "encoder.layers.0.mlp.fc2:bias 64; encoder.layers.1.mlp.router.layer 4 64",
            "encoder.layers.1.mlp.experts.mlp:w1 384 64; encoder.layers.1.mlp.experts.mlp:w2 384 64",
            "encoder.layers.1.mlp.experts:bias 64"]), "encoder.layers.",
        "attn.Wqkv 192 64; attn.Wqkv:bias 192; attn.out_proj 64 64; attn.out_proj:bias 64; norm1 64; norm1:bias 64; "
        "norm2 64; norm2:bias 64"),
    "iquestcoder": (
        {**GROUPED, "architectures": ["IQuestCoderForCausalLM"], "model_type": "iquestcoder", "rms_norm_eps": 1e-5,
         "rope_theta": 500000.0, "head_dim": 16},
        "words", WHOLE, "model.layers.", LLAMA_LAYER),
    "kormo": (
        {**GROUPED, "architectures": ["KORMoForCausalLM"], "model_type": "kormo", "rms_norm_eps": 1e-5,
         "rope_theta": 500000.0, "head_dim": 16},
        "words", WHOLE, "model.layers.",
        LLAMA_LAYER.replace("input_layernorm", "pre_attention_layernorm").replace(
            "post_attention_layernorm", "pre_mlp_layernorm")),
    "qwen2-audio": (
        {"architectures": ["Qwen2AudioForConditionalGeneration"], "model_type": "qwen2_audio", "num_layers": 2,
         "text_config": {**GROUPED, "model_type": "qwen2", "rms_norm_eps": 1e-5}},
        "words", "language_model.model.embed_tokens 320 64; language_model.model.norm 64; "
        "language_model.lm_head 320 64; audio_tower.conv1 8 4 3; multi_modal_projector.linear 64 32",
        "language_model.model.layers.",
        f"{LLAMA_LAYER}; self_attn.q_proj:bias 64; self_attn.k_proj:bias 32; self_attn.v_proj:bias 32"),
    "mistral-tekken": (
        {**GROUPED, "architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None,
         "head_dim": 16},
        "tekken", WHOLE, "model.layers.", LLAMA_LAYER),
    "xverse": (
        {**GROUPED, "architectures": ["XverseForCausalLM"], "model_type": "xverse", "rms_norm_eps": 1e-6,
         "num_key_value_heads": 4, "vocab_size": 342},
        "characters", WHOLE.replace("320", "342"), "model.layers.", LLAMA_LAYER.replace(" 32 64", " 64 64")),
}  # fmt: skip
