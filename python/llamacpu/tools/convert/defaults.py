"""What config.json may leave out: the defaults of the configuration classes of transformers, by model_type.

A number is a value; `heads` stands for num_attention_heads, `hidden/heads` for hidden_size // num_attention_heads.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["with_defaults"]

_DEFAULTS = {
    "llama": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads head_dim=hidden/heads rms_norm_eps=1e-06"
    " vocab_size=32000 tie_word_embeddings=False rope_theta=10000.0",
    "mistral": "num_hidden_layers=32 max_position_embeddings=131072 hidden_size=4096 intermediate_size=14336"
    " num_attention_heads=32 num_key_value_heads=8 head_dim=hidden/heads rms_norm_eps=1e-06 vocab_size=32000"
    " tie_word_embeddings=False sliding_window=4096 rope_theta=10000.0",
    "mixtral": "num_hidden_layers=32 max_position_embeddings=131072 hidden_size=4096 intermediate_size=14336"
    " num_attention_heads=32 num_key_value_heads=8 rms_norm_eps=1e-05 num_local_experts=8 num_experts_per_tok=2"
    " vocab_size=32000 tie_word_embeddings=False rope_theta=1000000.0",
    "ministral3": "num_hidden_layers=34 max_position_embeddings=262144 hidden_size=4096 intermediate_size=14336"
    " num_attention_heads=32 num_key_value_heads=8 head_dim=128 rms_norm_eps=1e-05 vocab_size=131072"
    " tie_word_embeddings=False pad_token_id=11 rope_theta=1000000.0",
    "llama4_text": "num_hidden_layers=48 max_position_embeddings=131072 hidden_size=5120 intermediate_size=8192"
    " num_attention_heads=40 num_key_value_heads=8 head_dim=128 rms_norm_eps=1e-05 num_local_experts=16"
    " num_experts_per_tok=1 vocab_size=202048 tie_word_embeddings=False interleave_moe_layer_step=1"
    " intermediate_size_mlp=16384 rope_theta=500000.0",
    "qwen2": "num_hidden_layers=32 max_position_embeddings=32768 hidden_size=4096 intermediate_size=22016"
    " num_attention_heads=32 num_key_value_heads=32 rms_norm_eps=1e-06 vocab_size=151936"
    " tie_word_embeddings=False rope_theta=10000.0",
    "qwen2_moe": "num_hidden_layers=24 max_position_embeddings=32768 hidden_size=2048 intermediate_size=5632"
    " num_attention_heads=16 num_key_value_heads=16 rms_norm_eps=1e-06 num_experts=60 num_experts_per_tok=4"
    " vocab_size=151936 tie_word_embeddings=False sliding_window=0 moe_intermediate_size=1408"
    " shared_expert_intermediate_size=5632 norm_topk_prob=False rope_theta=10000.0",
    "qwen3": "num_hidden_layers=32 max_position_embeddings=32768 hidden_size=4096 intermediate_size=22016"
    " num_attention_heads=32 num_key_value_heads=32 head_dim=128 rms_norm_eps=1e-06 vocab_size=151936"
    " tie_word_embeddings=False rope_theta=10000.0",
    "qwen3_moe": "num_hidden_layers=24 max_position_embeddings=32768 hidden_size=2048 intermediate_size=6144"
    " num_attention_heads=32 num_key_value_heads=4 rms_norm_eps=1e-06 num_local_experts=128"
    " num_experts_per_tok=8 vocab_size=151936 tie_word_embeddings=False moe_intermediate_size=768"
    " norm_topk_prob=False rope_theta=10000.0",
    "qwen3_vl_text": "num_hidden_layers=32 max_position_embeddings=128000 hidden_size=4096 intermediate_size=22016"
    " num_attention_heads=32 num_key_value_heads=32 head_dim=128 rms_norm_eps=1e-06 vocab_size=151936"
    " rope_theta=500000.0",
    "qwen3_vl_moe_text": "num_hidden_layers=24 max_position_embeddings=128000 hidden_size=2048 intermediate_size=5632"
    " num_attention_heads=16 num_key_value_heads=16 head_dim=hidden/heads rms_norm_eps=1e-06 num_experts=60"
    " num_experts_per_tok=4 vocab_size=151936 tie_word_embeddings=True moe_intermediate_size=1408"
    " rope_theta=500000.0",
    "gemma": "num_hidden_layers=28 max_position_embeddings=8192 hidden_size=3072 intermediate_size=24576"
    " num_attention_heads=16 num_key_value_heads=16 head_dim=256 rms_norm_eps=1e-06 vocab_size=256000"
    " tie_word_embeddings=True pad_token_id=0 rope_theta=10000.0",
    "gemma2": "num_hidden_layers=26 max_position_embeddings=8192 hidden_size=2304 intermediate_size=9216"
    " num_attention_heads=8 num_key_value_heads=4 head_dim=256 rms_norm_eps=1e-06 vocab_size=256000"
    " tie_word_embeddings=True sliding_window=4096 attn_logit_softcapping=50.0 final_logit_softcapping=30.0"
    " hidden_activation=gelu_pytorch_tanh pad_token_id=0 rope_theta=10000.0",
    "gemma3_text": "num_hidden_layers=26 max_position_embeddings=131072 hidden_size=2304 intermediate_size=9216"
    " num_attention_heads=8 num_key_value_heads=4 head_dim=256 rms_norm_eps=1e-06 vocab_size=262208"
    " tie_word_embeddings=True sliding_window=4096 hidden_activation=gelu_pytorch_tanh pad_token_id=0"
    " rope_theta=1000000.0 rope_local=10000.0",
    "phi": "num_hidden_layers=24 max_position_embeddings=2048 hidden_size=2048 intermediate_size=8192"
    " num_attention_heads=32 num_key_value_heads=heads layer_norm_eps=1e-05 vocab_size=51200"
    " tie_word_embeddings=False rope_theta=10000.0 partial_rotary_factor=0.5",
    "phi3": "num_hidden_layers=32 max_position_embeddings=4096 hidden_size=3072 intermediate_size=8192"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-05 vocab_size=32064"
    " tie_word_embeddings=False pad_token_id=32000 original_max_position_embeddings=4096 rope_theta=10000.0"
    " partial_rotary_factor=1.0",
    "deepseek_v2": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads head_dim=64 rms_norm_eps=1e-06 n_routed_experts=64"
    " vocab_size=102400 tie_word_embeddings=False moe_intermediate_size=1407 kv_lora_rank=512 q_lora_rank=1536"
    " qk_rope_head_dim=64 qk_nope_head_dim=128 v_head_dim=128 first_k_dense_replace=0 n_shared_experts=2"
    " routed_scaling_factor=1.0 norm_topk_prob=False rope_theta=10000.0",
    "deepseek_v3": "num_hidden_layers=61 max_position_embeddings=4096 hidden_size=7168 intermediate_size=18432"
    " num_attention_heads=128 num_key_value_heads=128 head_dim=64 rms_norm_eps=1e-06 n_routed_experts=256"
    " num_experts_per_tok=8 n_group=8 topk_group=4 vocab_size=129280 tie_word_embeddings=False"
    " moe_intermediate_size=2048 kv_lora_rank=512 q_lora_rank=1536 qk_rope_head_dim=64 qk_nope_head_dim=128"
    " v_head_dim=128 first_k_dense_replace=3 n_shared_experts=1 routed_scaling_factor=2.5 norm_topk_prob=True"
    " num_nextn_predict_layers=1 rope_theta=10000.0",
    "gpt_oss": "num_hidden_layers=36 max_position_embeddings=131072 hidden_size=2880 intermediate_size=2880"
    " num_attention_heads=64 num_key_value_heads=8 head_dim=64 rms_norm_eps=1e-05 num_local_experts=128"
    " num_experts_per_tok=4 vocab_size=201088 tie_word_embeddings=False sliding_window=128 rope_theta=150000.0",
    "granite": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-06 vocab_size=32000"
    " tie_word_embeddings=False attention_multiplier=1.0 embedding_multiplier=1.0 residual_multiplier=1.0"
    " logits_scaling=1.0 rope_theta=10000.0",
    "granitemoe": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-06 num_local_experts=8"
    " num_experts_per_tok=2 vocab_size=32000 tie_word_embeddings=False attention_multiplier=1.0"
    " embedding_multiplier=1.0 residual_multiplier=1.0 logits_scaling=1.0 rope_theta=10000.0",
    "granitemoeshared": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-06 num_local_experts=8"
    " num_experts_per_tok=2 vocab_size=32000 tie_word_embeddings=False attention_multiplier=1.0"
    " embedding_multiplier=1.0 residual_multiplier=1.0 logits_scaling=1.0 shared_intermediate_size=0"
    " rope_theta=10000.0",
    "smollm3": "num_hidden_layers=36 max_position_embeddings=32768 hidden_size=2048 intermediate_size=11008"
    " num_attention_heads=16 num_key_value_heads=4 rms_norm_eps=1e-06 vocab_size=128256"
    " tie_word_embeddings=True pad_token_id=128004 rope_theta=2000000.0",
    "olmo2": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-05 vocab_size=50304"
    " tie_word_embeddings=False pad_token_id=1 rope_theta=10000.0",
    "olmo3": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-05 vocab_size=50304"
    " tie_word_embeddings=False sliding_window=4096 pad_token_id=1 rope_theta=500000.0 rope_local=500000.0",
    "olmoe": "num_hidden_layers=16 max_position_embeddings=4096 hidden_size=2048 intermediate_size=2048"
    " num_attention_heads=16 num_key_value_heads=heads rms_norm_eps=1e-05 num_experts=64 num_experts_per_tok=8"
    " vocab_size=50304 tie_word_embeddings=False norm_topk_prob=False pad_token_id=1 rope_theta=10000.0",
    "cohere": "num_hidden_layers=40 max_position_embeddings=8192 hidden_size=8192 intermediate_size=22528"
    " num_attention_heads=64 num_key_value_heads=heads layer_norm_eps=1e-05 vocab_size=256000"
    " tie_word_embeddings=True logit_scale=0.0625 pad_token_id=0 rope_theta=500000.0",
    "cohere2": "num_hidden_layers=40 max_position_embeddings=8192 hidden_size=8192 intermediate_size=22528"
    " num_attention_heads=64 num_key_value_heads=heads head_dim=hidden/heads layer_norm_eps=1e-05"
    " vocab_size=256000 tie_word_embeddings=True sliding_window=4096 logit_scale=0.0625 pad_token_id=0"
    " rope_theta=10000.0",
    "glm4": "num_hidden_layers=40 max_position_embeddings=131072 hidden_size=4096 intermediate_size=13696"
    " num_attention_heads=32 num_key_value_heads=2 head_dim=128 rms_norm_eps=1.5625e-07 vocab_size=151552"
    " tie_word_embeddings=False pad_token_id=151329 rope_theta=10000.0 partial_rotary_factor=0.5",
    "glm4_moe": "num_hidden_layers=46 max_position_embeddings=131072 hidden_size=4096 intermediate_size=10944"
    " num_attention_heads=96 num_key_value_heads=8 rms_norm_eps=1e-05 n_routed_experts=128"
    " num_experts_per_tok=8 n_group=1 topk_group=1 vocab_size=151552 tie_word_embeddings=False"
    " moe_intermediate_size=1408 first_k_dense_replace=1 n_shared_experts=1 routed_scaling_factor=1.0"
    " norm_topk_prob=True num_nextn_predict_layers=1 rope_theta=10000.0 partial_rotary_factor=0.5",
    "nemotron": "num_hidden_layers=32 max_position_embeddings=4096 hidden_size=6144 intermediate_size=24576"
    " num_attention_heads=48 head_dim=hidden/heads norm_eps=1e-05 vocab_size=256000 tie_word_embeddings=False"
    " rope_theta=10000.0 partial_rotary_factor=0.5",
    "stablelm": "num_hidden_layers=32 max_position_embeddings=4096 hidden_size=2560 intermediate_size=6912"
    " num_attention_heads=32 num_key_value_heads=32 layer_norm_eps=1e-05 vocab_size=50304"
    " tie_word_embeddings=False use_parallel_residual=False rope_theta=10000.0 partial_rotary_factor=0.25",
    "starcoder2": "num_hidden_layers=30 max_position_embeddings=4096 hidden_size=3072 intermediate_size=12288"
    " num_attention_heads=24 num_key_value_heads=2 norm_epsilon=1e-05 vocab_size=49152 tie_word_embeddings=True"
    " rope_theta=10000.0",
    "seed_oss": "num_hidden_layers=64 max_position_embeddings=524288 hidden_size=4096 intermediate_size=27648"
    " num_attention_heads=80 num_key_value_heads=8 head_dim=128 rms_norm_eps=1e-06 vocab_size=155136"
    " tie_word_embeddings=False pad_token_id=1 rope_theta=10000.0",
    "ernie4_5": "num_hidden_layers=18 max_position_embeddings=131072 hidden_size=1024 intermediate_size=3072"
    " num_attention_heads=16 num_key_value_heads=2 head_dim=128 rms_norm_eps=1e-05 vocab_size=103424"
    " tie_word_embeddings=True pad_token_id=0 rope_theta=500000.0",
    "ernie4_5_moe": "num_hidden_layers=28 max_position_embeddings=131072 hidden_size=2560 intermediate_size=12288"
    " num_attention_heads=20 num_key_value_heads=4 rms_norm_eps=1e-05 vocab_size=103424"
    " tie_word_embeddings=True moe_intermediate_size=1536 pad_token_id=0 moe_num_experts=64 moe_k=6"
    " moe_layer_interval=1 moe_layer_start_index=1 moe_num_shared_experts=2 rope_theta=500000.0",
    "arcee": "num_hidden_layers=32 max_position_embeddings=4096 hidden_size=2560 intermediate_size=18432"
    " num_attention_heads=32 num_key_value_heads=heads head_dim=hidden/heads rms_norm_eps=1e-05"
    " vocab_size=32000 tie_word_embeddings=False rope_theta=10000.0",
    "exaone4": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=16384"
    " num_attention_heads=32 num_key_value_heads=32 rms_norm_eps=1e-05 vocab_size=102400"
    " tie_word_embeddings=False sliding_window=4096 rope_theta=10000.0",
    "exaone": "num_hidden_layers=32 max_position_embeddings=4096 hidden_size=4096 intermediate_size=14336"
    " num_attention_heads=32 num_key_value_heads=8 head_dim=hidden/heads rms_norm_eps=1e-05 vocab_size=102400"
    " tie_word_embeddings=False pad_token_id=0 rope_theta=500000.0",
    "falcon": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4544 num_attention_heads=71"
    " layer_norm_epsilon=1e-05 vocab_size=65024 tie_word_embeddings=True rope_theta=10000.0",
    "gpt2": "n_layer=12 n_positions=1024 n_embd=768 n_head=12 layer_norm_epsilon=1e-05 vocab_size=50257"
    " tie_word_embeddings=True",
    "gpt_bigcode": "n_layer=12 n_positions=1024 n_embd=768 n_head=12 num_key_value_heads=1 layer_norm_epsilon=1e-05"
    " vocab_size=50257 tie_word_embeddings=True",
    "dots1": "num_hidden_layers=62 max_position_embeddings=2048 hidden_size=4608 intermediate_size=10944"
    " num_attention_heads=32 num_key_value_heads=32 rms_norm_eps=1e-06 n_group=1 topk_group=1 vocab_size=152064"
    " tie_word_embeddings=False sliding_window=4096 moe_intermediate_size=1408 first_k_dense_replace=0"
    " routed_scaling_factor=1.0 norm_topk_prob=False rope_theta=10000.0",
    "hunyuan_v1_dense": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-05 vocab_size=290943"
    " tie_word_embeddings=False pad_token_id=0 eod_token_id=3 rope_theta=10000.0",
    "hunyuan_v1_moe": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=11008"
    " num_attention_heads=32 num_key_value_heads=heads rms_norm_eps=1e-05 vocab_size=290943"
    " tie_word_embeddings=False num_experts=1 moe_topk=1 pad_token_id=0 eod_token_id=3 rope_theta=10000.0",
    "jais2": "num_hidden_layers=32 max_position_embeddings=8192 hidden_size=3328 intermediate_size=26624"
    " num_attention_heads=26 num_key_value_heads=heads head_dim=hidden/heads layer_norm_eps=1e-05 vocab_size=150272"
    " tie_word_embeddings=False rope_theta=10000.0",
    "minimax_m2": "num_hidden_layers=62 max_position_embeddings=196608 hidden_size=3072 intermediate_size=1536"
    " num_attention_heads=48 num_key_value_heads=8 head_dim=128 rms_norm_eps=1e-06 num_local_experts=256"
    " num_experts_per_tok=8 vocab_size=200064 tie_word_embeddings=False rope_theta=5000000.0",
    "exaone_moe": "num_hidden_layers=32 max_position_embeddings=2048 hidden_size=4096 intermediate_size=16384"
    " num_attention_heads=32 num_key_value_heads=32 rms_norm_eps=1e-05 num_experts=64 num_experts_per_tok=8 n_group=1"
    " topk_group=1 vocab_size=102400 tie_word_embeddings=False sliding_window=4096 sliding_window_pattern=4"
    " moe_intermediate_size=1024 first_k_dense_replace=1 num_shared_experts=1 routed_scaling_factor=2.5"
    " norm_topk_prob=True pad_token_id=0 rope_theta=10000.0",
    "glm": "num_hidden_layers=40 max_position_embeddings=131072 hidden_size=4096 intermediate_size=13696"
    " num_attention_heads=32 num_key_value_heads=2 head_dim=128 rms_norm_eps=1.5625e-07 vocab_size=151552"
    " tie_word_embeddings=False pad_token_id=151329 rope_theta=10000.0 partial_rotary_factor=0.5",
    "qwen3_next": "num_hidden_layers=48 max_position_embeddings=32768 hidden_size=2048 intermediate_size=5632"
    " num_attention_heads=16 num_key_value_heads=2 head_dim=256 rms_norm_eps=1e-06 num_experts=512"
    " num_experts_per_tok=10 vocab_size=151936 tie_word_embeddings=False moe_intermediate_size=512"
    " shared_expert_intermediate_size=512 linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128"
    " linear_num_key_heads=16 linear_num_value_heads=32 rope_theta=10000.0 partial_rotary_factor=0.25",
    "qwen3_5_text": "num_hidden_layers=32 max_position_embeddings=32768 hidden_size=4096 intermediate_size=12288"
    " num_attention_heads=16 num_key_value_heads=4 head_dim=256 rms_norm_eps=1e-06 vocab_size=248320"
    " tie_word_embeddings=False linear_conv_kernel_dim=4 linear_key_head_dim=128 linear_value_head_dim=128"
    " linear_num_key_heads=16 linear_num_value_heads=32 rope_theta=10000.0 partial_rotary_factor=0.25",
    "qwen3_5_moe_text": "num_hidden_layers=40 max_position_embeddings=32768 hidden_size=2048 num_attention_heads=16"
    " num_key_value_heads=2 head_dim=256 rms_norm_eps=1e-06 num_experts=256 num_experts_per_tok=8 vocab_size=248320"
    " tie_word_embeddings=False moe_intermediate_size=512 shared_expert_intermediate_size=512 linear_conv_kernel_dim=4"
    " linear_key_head_dim=128 linear_value_head_dim=128 linear_num_key_heads=16 linear_num_value_heads=32"
    " rope_theta=10000.0 partial_rotary_factor=0.25",
    "gemma4_text": "num_hidden_layers=30 max_position_embeddings=131072 hidden_size=2304 intermediate_size=9216"
    " num_attention_heads=8 num_key_value_heads=4 head_dim=256 rms_norm_eps=1e-06 vocab_size=262144"
    " tie_word_embeddings=True sliding_window=512 hidden_size_per_layer_input=256 num_kv_shared_layers=0"
    " use_double_wide_mlp=False attention_k_eq_v=False pad_token_id=0",
    "gemma4_unified_text": "num_hidden_layers=30 max_position_embeddings=262144 hidden_size=2304 intermediate_size=9216"
    " num_attention_heads=8 num_key_value_heads=4 head_dim=256 rms_norm_eps=1e-06 vocab_size=262144"
    " tie_word_embeddings=True sliding_window=1024 num_kv_shared_layers=0 use_double_wide_mlp=False"
    " attention_k_eq_v=False pad_token_id=0",
    "mistral4": "num_hidden_layers=36 max_position_embeddings=1048576 hidden_size=4096 intermediate_size=12288"
    " num_attention_heads=32 num_key_value_heads=32 rms_norm_eps=1e-06 n_routed_experts=128 num_experts_per_tok=4"
    " n_group=1 topk_group=1 vocab_size=131072 tie_word_embeddings=False moe_intermediate_size=2048 kv_lora_rank=256"
    " q_lora_rank=1024 qk_rope_head_dim=64 qk_nope_head_dim=64 v_head_dim=128 first_k_dense_replace=0"
    " n_shared_experts=1 routed_scaling_factor=1.0 norm_topk_prob=True pad_token_id=11",
    "deepseek_v32": "num_hidden_layers=61 max_position_embeddings=163840 hidden_size=7168 intermediate_size=18432"
    " num_attention_heads=128 num_key_value_heads=128 rms_norm_eps=1e-06 n_routed_experts=256 num_experts_per_tok=8"
    " n_group=8 topk_group=4 vocab_size=129280 tie_word_embeddings=False moe_intermediate_size=2048 kv_lora_rank=512"
    " q_lora_rank=1536 qk_rope_head_dim=64 qk_nope_head_dim=128 v_head_dim=128 first_k_dense_replace=3"
    " n_shared_experts=1 routed_scaling_factor=2.5 norm_topk_prob=True index_topk=2048 index_head_dim=128"
    " index_n_heads=64 rope_theta=10000.0",
    "deepseek_v4": "num_hidden_layers=43 max_position_embeddings=1048576 hidden_size=4096 num_attention_heads=64"
    " num_key_value_heads=1 head_dim=512 rms_norm_eps=1e-06 n_routed_experts=256 num_experts_per_tok=6"
    " vocab_size=129280 tie_word_embeddings=False moe_intermediate_size=2048 q_lora_rank=1024 n_shared_experts=1"
    " scoring_func=sqrtsoftplus norm_topk_prob=True routed_scaling_factor=1.5 compress_rope_theta=160000.0"
    " hc_mult=4 hc_sinkhorn_iters=20 hc_eps=1e-06 swiglu_limit=10.0 sliding_window=128 o_groups=8 o_lora_rank=1024"
    " index_n_heads=64 index_head_dim=128 index_topk=512 rope_theta=10000.0",
    "glm_moe_dsa": "num_hidden_layers=78 max_position_embeddings=202752 hidden_size=6144 intermediate_size=12288"
    " num_attention_heads=64 num_key_value_heads=64 rms_norm_eps=1e-05 n_routed_experts=256 num_experts_per_tok=8"
    " n_group=1 topk_group=1 vocab_size=154880 tie_word_embeddings=False moe_intermediate_size=2048 kv_lora_rank=512"
    " q_lora_rank=2048 qk_rope_head_dim=64 qk_nope_head_dim=192 v_head_dim=256 first_k_dense_replace=3"
    " n_shared_experts=1 routed_scaling_factor=2.5 norm_topk_prob=True index_topk=2048 index_head_dim=128"
    " index_n_heads=32 rope_theta=10000.0",
    "glm4_moe_lite": "num_hidden_layers=47 max_position_embeddings=202752 hidden_size=2048 intermediate_size=10240"
    " num_attention_heads=20 num_key_value_heads=20 rms_norm_eps=1e-05 n_routed_experts=64 num_experts_per_tok=4"
    " n_group=1 topk_group=1 vocab_size=154880 tie_word_embeddings=False moe_intermediate_size=1536 kv_lora_rank=512"
    " q_lora_rank=768 qk_rope_head_dim=64 qk_nope_head_dim=192 v_head_dim=256 n_shared_experts=1"
    " routed_scaling_factor=1.8 norm_topk_prob=True rope_theta=10000.0",
    "muse_glimmer_text": "num_hidden_layers=52 max_position_embeddings=131072 hidden_size=6656 intermediate_size=19968"
    " num_attention_heads=32 num_key_value_heads=2 head_dim=128 rms_norm_eps=1e-05 vocab_size=202048"
    " tie_word_embeddings=False sliding_window=2048 final_logit_softcapping=20.0 qk_scale_factor=3.87"
    " output_multiplier=0.19611613513818404 rope_theta=10000.0",
    "muse_glimmer_assistant": "num_hidden_layers=5 max_position_embeddings=131072 hidden_size=6656"
    " intermediate_size=19968 num_attention_heads=32 num_key_value_heads=8 head_dim=128 rms_norm_eps=1e-05"
    " sliding_window=2048 block_size=16 mask_token_id=201818 rope_theta=500000.0",
    "dbrx": "n_layers=24 max_seq_len=2048 d_model=2048 n_heads=16 vocab_size=32000 tie_word_embeddings=False",
    "mllama_text_model": "num_hidden_layers=40 max_position_embeddings=131072 hidden_size=4096 intermediate_size=14336"
    " num_attention_heads=32 num_key_value_heads=8 rms_norm_eps=1e-05 vocab_size=128256 tie_word_embeddings=False"
    " rope_theta=500000.0",
    "deberta-v2": "num_hidden_layers=24 max_position_embeddings=512 hidden_size=1536 intermediate_size=6144"
    " num_attention_heads=24 layer_norm_eps=1e-07 vocab_size=128100 tie_word_embeddings=True type_vocab_size=0"
    " pad_token_id=0",
    "modernbert": "num_hidden_layers=22 max_position_embeddings=8192 hidden_size=768 intermediate_size=1152"
    " num_attention_heads=12 norm_eps=1e-05 vocab_size=50368 tie_word_embeddings=True local_attention=128"
    " hidden_activation=gelu classifier_pooling=cls pad_token_id=50283 rope_theta=160000.0 rope_local=10000.0",
    "eurobert": "num_hidden_layers=12 max_position_embeddings=8192 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 num_key_value_heads=heads head_dim=hidden/heads rms_norm_eps=1e-05"
    " vocab_size=128256 tie_word_embeddings=False classifier_pooling=late pad_token_id=128001"
    " rope_theta=10000.0",
    "bert": "num_hidden_layers=12 max_position_embeddings=512 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 layer_norm_eps=1e-12 vocab_size=30522 tie_word_embeddings=True type_vocab_size=2"
    " pad_token_id=0",
    "roberta": "num_hidden_layers=12 max_position_embeddings=512 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 layer_norm_eps=1e-12 vocab_size=50265 tie_word_embeddings=True type_vocab_size=2"
    " pad_token_id=1",
    "camembert": "num_hidden_layers=12 max_position_embeddings=512 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 layer_norm_eps=1e-12 vocab_size=30522 tie_word_embeddings=True type_vocab_size=2"
    " pad_token_id=1",
    "xlm-roberta": "num_hidden_layers=12 max_position_embeddings=512 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 layer_norm_eps=1e-12 vocab_size=30522 tie_word_embeddings=True type_vocab_size=2"
    " pad_token_id=1",
    "distilbert": "max_position_embeddings=512 vocab_size=30522 tie_word_embeddings=True pad_token_id=0 n_layers=6"
    " n_heads=12 dim=768 hidden_dim=3072",
    "nomic_bert": "num_hidden_layers=12 max_position_embeddings=2048 hidden_size=768 intermediate_size=3072"
    " num_attention_heads=12 head_dim=hidden/heads layer_norm_eps=1e-12 vocab_size=30528 type_vocab_size=2"
    " pad_token_id=0 rope_theta=1000.0",
}
_QWEN_VL = (
    "num_hidden_layers=80 max_position_embeddings=32768 hidden_size=8192 intermediate_size=29568 num_attention_heads=64"
    " num_key_value_heads=8 rms_norm_eps=1e-05 vocab_size=152064 tie_word_embeddings=False rope_theta=1000000.0"
)
_DEFAULTS |= dict.fromkeys(("qwen2_vl", "qwen2_vl_text", "qwen2_5_vl", "qwen2_5_vl_text"), _QWEN_VL)
_ROPE: dict[str, dict[str, Any]] = {
    "gpt_oss": {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0,
        "original_max_position_embeddings": 4096,
    },
    "gemma4_text": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
    "gemma4_unified_text": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
    "mistral4": {
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0, "original_max_position_embeddings": 8192,
        "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
    },
}  # fmt: skip


def with_defaults(config: dict[str, Any], model_type: str) -> dict[str, Any]:
    """`config` with the values that its class in transformers adds; unchanged for an unknown `model_type`."""
    result = dict(config)
    if model_type in _ROPE and not result.get("rope_parameters") and not result.get("rope_scaling"):
        result["rope_parameters"] = dict(_ROPE[model_type])
    for entry in _DEFAULTS.get(model_type, "").split():
        key, _, text = entry.partition("=")
        if text not in ("heads", "hidden/heads"):
            result.setdefault(key, _value(text))
    heads, hidden = result.get("num_attention_heads"), result.get("hidden_size")
    for entry in _DEFAULTS.get(model_type, "").split():
        key, _, text = entry.partition("=")
        if key == "num_key_value_heads" and result.get(key) is None:
            result[key] = heads
        if text == "hidden/heads" and result.get(key) is None and type(heads) is type(hidden) is int and heads > 0:
            result[key] = hidden // heads
    if model_type in ("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm_moe_dsa"):
        result["head_dim"] = result["qk_rope_head_dim"]
    if model_type == "mistral4" and type(result["qk_nope_head_dim"]) is type(result["qk_rope_head_dim"]) is int:
        result["head_dim"] = result["qk_nope_head_dim"] + result["qk_rope_head_dim"]
    return result


def _value(text: str) -> Any:
    return {"True": True, "False": False}.get(text) if text in ("True", "False") else _number_or_text(text)


def _number_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
