"""The tiny models of make_converted.py: configurations, tokenizers and, where transformers has no class, tensors."""

from __future__ import annotations

from typing import Any

SIZES = {"hidden_size": 64, "num_attention_heads": 4, "vocab_size": 320, "max_position_embeddings": 128}
GROUPED = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 96, "num_hidden_layers": 2}
MLA = {
    **GROUPED, "num_key_value_heads": 4, "num_hidden_layers": 3, "kv_lora_rank": 32, "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32, "v_head_dim": 32, "moe_intermediate_size": 32, "n_routed_experts": 8, "n_shared_experts": 2,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 32, "num_experts_per_tok": 2}
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
LONG = {
    "rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.3, 2.84, 4.38, 5.92, 7.46, 9.0, 9.5, 10.0],
    "short_factor": [1.0, 1.3, 1.6, 1.9, 2.2, 2.5, 2.6, 2.7],
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 32}
# Name to model_type, tokenizer, type of the weights, configuration.
MODELS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "Tiny-Llama-1B-Instruct-v1.1": ("llama", "pieces", "bfloat16", {**GROUPED, "rope_parameters": LLAMA_3}),
    "llama-tied": ("llama", "words", "float32", {**GROUPED, "tie_word_embeddings": True, "attention_bias": True}),
    "llama4": ("llama4_text", "llama", "float32", {
        **GROUPED, "head_dim": 16, "num_hidden_layers": 4, "intermediate_size": 48, "intermediate_size_mlp": 96,
        "num_local_experts": 4, "interleave_moe_layer_step": 2}),
    "llama4-dense": ("llama4_text", "llama", "float32", {
        **GROUPED, "head_dim": 16, "num_local_experts": 0, "moe_layers": [], "intermediate_size_mlp": 96}),
    "mistral": ("mistral", "pieces", "bfloat16", {**GROUPED, "sliding_window": None}),
    "ministral3": ("ministral3", "words", "float32", {**GROUPED, "head_dim": 32, "rope_parameters": {
        **YARN, "rope_theta": 1e6, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1}}),
    "mixtral": ("mixtral", "pieces", "float16", {**GROUPED, "num_local_experts": 4}),
    "arcee": ("arcee", "llama", "float32", GROUPED),
    "smollm3": ("smollm3", "llama", "float32", {**GROUPED, "num_hidden_layers": 4, "pad_token_id": 0}),
    "granite": ("granite", "words", "float32", {**GROUPED, "attention_multiplier": 0.25, "logits_scaling": 8.0}),
    "granitemoe": ("granitemoe", "words", "float32", {**GROUPED, "num_local_experts": 4}),
    "granitemoeshared": ("granitemoeshared", "words", "float32", {
        **GROUPED, "num_local_experts": 4, "shared_intermediate_size": 48}),
    "qwen2": ("qwen2", "words", "bfloat16", GROUPED),
    "qwen2moe": ("qwen2_moe", "words", "float32", {
        **GROUPED, **EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 48}),
    "qwen3": ("qwen3", "words", "bfloat16", {**GROUPED, "head_dim": 32, "tie_word_embeddings": True}),
    "qwen3moe": ("qwen3_moe", "words", "float32", {**GROUPED, **EXPERTS, "head_dim": 32, "num_experts": 4}),
    "olmoe": ("olmoe", "words", "float32", {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, **ENDS}),
    "dots1": ("dots1", "words", "float32", {
        **GROUPED, **EXPERTS, "num_hidden_layers": 3, "n_routed_experts": 4, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "norm_topk_prob": True}),
    "gemma": ("gemma", "pieces", "float16", {**GROUPED, "head_dim": 16}),
    "gemma2": ("gemma2", "pieces", "bfloat16", {**GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3_text", "pieces", "float32", {
        **GROUPED, "head_dim": 32, "query_pre_attn_scalar": 32, "num_hidden_layers": 7}),
    "gemma3-linear": ("gemma3_text", "pieces", "float32", {
        **GROUPED, "head_dim": 32, "query_pre_attn_scalar": 32, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}),
    "phi2": ("phi", "gpt-2", "float32", {**SIZES, "num_hidden_layers": 2, "intermediate_size": 256}),
    "phi3": ("phi3", "pieces", "float32", {**GROUPED, **ENDS}),
    "phi3-long": ("phi3", "pieces", "float32", {
        **GROUPED, **ENDS, "rope_parameters": LONG, "original_max_position_embeddings": 64}),
    "deepseek2-v2": ("deepseek_v2", "words", "float32", {**MLA, "q_lora_rank": 48}),
    "deepseek2-lite": ("deepseek_v2", "words", "float32", {
        **MLA, "q_lora_rank": None, "rope_parameters": {
            **YARN, "rope_theta": 1e4, "mscale": 0.707, "mscale_all_dim": 0.707}}),
    "deepseek2-v3": ("deepseek_v3", "words", "float32", {**MLA, "q_lora_rank": 48}),
    "gpt-oss": ("gpt_oss", "words", "float32", {
        **GROUPED, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "olmo2": ("olmo2", "words", "float32", {**GROUPED, **ENDS}),
    "olmo3": ("olmo3", "words", "float32", {**GROUPED, **ENDS, "num_hidden_layers": 4, "sliding_window": 32}),
    "command-r": ("cohere", "words", "float32", {**GROUPED, **ENDS}),
    "cohere2": ("cohere2", "words", "float32", {**GROUPED, **ENDS, "num_hidden_layers": 4, "rotary_pct": 1.0}),
    "glm4": ("glm4", "glm", "float32", {**GROUPED, "head_dim": 16, **ENDS}),
    "glm4moe": ("glm4_moe", "glm", "float32", {
        **GROUPED, **EXPERTS, "head_dim": 16, "num_hidden_layers": 3, "n_routed_experts": 4, "n_shared_experts": 1,
        "first_k_dense_replace": 1, "num_nextn_predict_layers": 0}),
    "seed-oss": ("seed_oss", "words", "float32", {**GROUPED, "head_dim": 32, **ENDS}),
    "stablelm": ("stablelm", "words", "float32", {**GROUPED, **ENDS}),
    "stablelm-qk-norm": ("stablelm", "words", "float32", {**GROUPED, **ENDS, "qk_layernorm": True}),
    "starcoder2": ("starcoder2", "words", "float32", {**GROUPED, **ENDS}),
    "nemotron": ("nemotron", "pieces", "float32", GROUPED),
    "exaone4": ("exaone4", "gpt-2", "float32", {**GROUPED, **ENDS, "num_hidden_layers": 4, "sliding_window": 32}),
    "ernie4_5": ("ernie4_5", "pieces", "float32", {**GROUPED, "head_dim": 16}),
    "ernie4_5-moe": ("ernie4_5_moe", "pieces", "float32", {
        **GROUPED, "num_hidden_layers": 3, "moe_intermediate_size": 32, "moe_num_experts": 4, "moe_k": 2}),
    "gpt2": ("gpt2", "gpt-2", "float32", {
        "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "n_ctx": 128, "vocab_size": 320, **ENDS}),
    "starcoder": ("gpt_bigcode", "gpt-2", "float32", {
        "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "vocab_size": 320, **ENDS}),
    "falcon": ("falcon", "gpt-2", "float32", {
        **SIZES, **ENDS, "num_hidden_layers": 2, "multi_query": True, "num_kv_heads": 1, "parallel_attn": True,
        "new_decoder_architecture": False, "bias": False, "alibi": False}),
    "gptneox": ("gpt_neox", "gpt-2", "float32", {
        **SIZES, **ENDS, "num_hidden_layers": 2, "intermediate_size": 256, "rotary_pct": 0.25}),
    "bloom": ("bloom", "gpt-2", "float32", {**ENDS, "hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 320}),
    "mpt": ("mpt", "gpt-2", "float32", {
        **ENDS, "d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, "vocab_size": 320}),
    "olmo": ("olmo", "gpt-2", "float32", {**GROUPED, **ENDS, "clip_qkv": 8.0}),
    "phimoe": ("phimoe", "pieces", "float32", {
        **GROUPED, "num_local_experts": 4, "original_max_position_embeddings": 64, "rope_parameters": {
            **LONG, "short_mscale": 1.1, "long_mscale": 1.2}}),
    "bert": ("bert", "pieces of words", "float32", {
        **SIZES, "vocab_size": 300, "num_hidden_layers": 2, "intermediate_size": 96}),
    "distilbert": ("distilbert", "pieces of words", "float32", {
        "dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 96, "vocab_size": 300, "max_position_embeddings": 128}),
    "roberta": ("roberta", "roberta", "float32", {
        **SIZES, "num_hidden_layers": 2, "intermediate_size": 96, "max_position_embeddings": 130}),
    "xlm-roberta": ("xlm-roberta", "unigram", "float32", {
        **SIZES, "vocab_size": 130, "num_hidden_layers": 2, "intermediate_size": 96, "type_vocab_size": 1}),
    "modern-bert": ("modernbert", "roberta", "float32", {
        **SIZES, "num_hidden_layers": 4, "intermediate_size": 96, "local_attention": 32, "layer_norm_eps": 1e-5,
        "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}),
    "gemma-embedding": ("gemma3_text", "pieces", "float32", {
        **GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 7,
        "sliding_window": 32, "use_bidirectional_attention": True}),
}  # fmt: skip
# What published configurations have and those of newer transformers do not; other names keep its classes away.
PUBLISHED: dict[str, dict[str, Any]] = {
    "gptneox": {"model_type": "gpt_neox_1", "rotary_pct": 0.25},
    "mpt": {"architectures": ["MPTForCausalLM"]},
    "phimoe": {"architectures": ["PhiMoEForCausalLM"]},
}
LLAMA_LAYER = (
    "input_layernorm 64; post_attention_layernorm 64; self_attn.q_proj 64 64; self_attn.k_proj 32 64; "
    "self_attn.v_proj 32 64; self_attn.o_proj 64 64; mlp.gate_proj 96 64; mlp.up_proj 96 64; mlp.down_proj 64 96"
)
# Models without a class in transformers: configuration, tokenizer, and their tensors, those of a layer with its prefix.
BY_HAND: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    "internlm2": (
        {**GROUPED, "architectures": ["InternLM2ForCausalLM"], "model_type": "internlm2", "rms_norm_eps": 1e-5,
         "vocab_size": 312,
         "rope_theta": 1000000, "eos_token_id": 2},
        "pieces alone", "model.tok_embeddings 312 64; model.norm 64; output 312 64", "model.layers.",
        "attention_norm 64; ffn_norm 64; attention.wqkv 128 64; attention.wo 64 64; feed_forward.w1 96 64; "
        "feed_forward.w3 96 64; feed_forward.w2 64 96"),
    "orion": (
        {**GROUPED, "architectures": ["OrionForCausalLM"], "model_type": "orion", "rms_norm_eps": 1e-5,
         "max_sequence_length": 256},
        "pieces", "model.embed_tokens 320 64; model.norm 64; model.norm:bias 64; lm_head 320 64", "model.layers.",
        f"{LLAMA_LAYER}; input_layernorm:bias 64; post_attention_layernorm:bias 64"),
    "minicpm": (
        {**GROUPED, "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "rms_norm_eps": 1e-5,
         "scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 16, "rope_scaling": {
             "type": "longrope", "long_factor": [1.5] * 8, "short_factor": [1.0] * 8,
             "original_max_position_embeddings": 64}},
        "pieces", "model.embed_tokens 320 64; model.norm 64; lm_head 320 64", "model.layers.", LLAMA_LAYER),
    "deepseek": (
        {**GROUPED, "architectures": ["DeepseekForCausalLM"], "model_type": "deepseek_1", "rms_norm_eps": 1e-5,
         "n_routed_experts": 2, "n_shared_experts": 1, "num_experts_per_tok": 1, "first_k_dense_replace": 0,
         "moe_intermediate_size": 32},
        "words", "model.embed_tokens 320 64; model.norm 64; lm_head 320 64", "model.layers.",
        LLAMA_LAYER.partition("; mlp")[0] + "; mlp.gate 2 64; mlp.experts.0.gate_proj 32 64; "
        "mlp.experts.0.up_proj 32 64; mlp.experts.0.down_proj 64 32; mlp.experts.1.gate_proj 32 64; "
        "mlp.experts.1.up_proj 32 64; mlp.experts.1.down_proj 64 32; mlp.shared_experts.gate_proj 32 64; "
        "mlp.shared_experts.up_proj 32 64; mlp.shared_experts.down_proj 64 32"),
    "exaone": (
        {**GROUPED, "architectures": ["ExaoneForCausalLM"], "model_type": "exaone_1", "layer_norm_epsilon": 1e-5,
         "rms_norm_eps": 1e-5,
         "num_layers": 2, "activation_function": "silu", "rope_theta": 1000000},
        "gpt-2", "transformer.wte 320 64; transformer.ln_f 64; lm_head 320 64", "transformer.h.",
        "ln_1 64; ln_2 64; attn.attention.q_proj 64 64; attn.attention.k_proj 32 64; attn.attention.v_proj 32 64; "
        "attn.attention.out_proj 64 64; mlp.c_fc_0 96 64; mlp.c_fc_1 96 64; mlp.c_proj 64 96"),
    "nomic-bert": (
        {"architectures": ["NomicBertModel"], "model_type": "nomic_bert_x", "n_embd": 64, "n_head": 4, "n_layer": 2,
         "n_inner": 96, "n_positions": 8192, "max_trained_positions": 2048, "vocab_size": 300, "type_vocab_size": 2,
         "activation_function": "swiglu", "causal": False, "prenorm": False, "qkv_proj_bias": False,
         "mlp_fc1_bias": False, "mlp_fc2_bias": False, "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
         "rotary_emb_scale_base": None, "rotary_emb_base": 1000, "layer_norm_epsilon": 1e-12},
        "pieces of words", "embeddings.word_embeddings 300 64; embeddings.token_type_embeddings 2 64; emb_ln 64; "
        "emb_ln:bias 64", "encoder.layers.",
        "attn.Wqkv 192 64; attn.out_proj 64 64; mlp.fc11 96 64; mlp.fc12 96 64; mlp.fc2 64 96; norm1 64; norm2 64; "
        "norm1:bias 64; norm2:bias 64"),
}  # fmt: skip
