"""Makes converted.json.gz: tiny models of every family, and the digests of what llama.cpp's converter makes of them.

    python tests/golden/make_converted.py LLAMA_CPP

needs torch, transformers, sentencepiece, protobuf and llama.cpp's sources (the folder with convert_hf_to_gguf.py). It
prints for each model and type whether our converter writes the same bytes. The tokenizers are too small for llama.cpp
to know them, so the name of the rule that cuts text into words is taken from our file.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import logging
import shutil
import struct
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "python")]

from converted_checkpoints import GOLDEN, write_checkpoint  # noqa: E402
from llamacpu import convert  # noqa: E402
from llamacpu.gguf.file import GGUFFile  # noqa: E402

TEXT = (
    "The quick brown fox jumps over the lazy dog. Hello world, it's 3 o'clock in 2024! "
    "na\u00efve caf\u00e9 d\u00e9j\u00e0 vu "
    "\u4f60\u597d \u043c\u0438\u0440 def f(x):\n    return x + 1\n\n\n  for i in range(100): print(i)\n"
) * 30
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
CARD = """---
license: [apache-2.0]
language:
- en
- no
base_model: meta-llama/Llama-3.2-1B-Instruct
datasets:
- org/some-data-v1.5
- https://huggingface.co/datasets/other
tags: [chat]
pipeline_tag: text-generation
model_creator: Somebody
---
# A model
"""
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
ENCODERS = ("bert", "distilbert", "roberta", "xlm-roberta", "modern-bert", "gemma-embedding")
TYPES = ("f32", "f16", "bf16", "q8_0", "auto")


def save_pieces(folder: Path, name: str, **settings: Any) -> None:
    """A vocabulary of SentencePiece, with tokens that were added to it."""
    import sentencepiece

    text = folder / "text.txt"
    text.write_text(TEXT, "utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "m"), unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        hard_vocab_limit=False, normalization_rule_name="identity", **settings,
    )  # fmt: skip
    (folder / "m.model").rename(folder / name)
    for left in ("text.txt", "m.vocab"):
        (folder / left).unlink()


def save_tokenizer(folder: Path, kind: str) -> None:
    """Write the files of a tokenizer of a kind."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    if kind in ("pieces", "pieces alone"):
        save_pieces(
            folder, "tokenizer.model", vocab_size=312, model_type="bpe", byte_fallback=True, character_coverage=0.99,
            user_defined_symbols=["<|im_start|>"],
        )  # fmt: skip
        added = {"0": ("<unk>", True), "1": ("<s>", True), "2": ("</s>", True), "313": ("<|more|>", False),
                 "314": ("\u2581word", False)}  # fmt: skip
        if kind == "pieces alone":
            added = dict(list(added.items())[:3])
        settings = {
            "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
            "add_bos_token": True, "add_eos_token": False, "chat_template": "{{ messages[0].content }}",
            "added_tokens_decoder": {id: {"content": text, "special": s} for id, (text, s) in added.items()},
        }  # fmt: skip
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        return
    if kind == "unigram":
        save_pieces(folder, "sentencepiece.bpe.model", vocab_size=120, model_type="unigram")
        names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "pad": "<pad>"}
        settings = {"tokenizer_class": "XLMRobertaTokenizer", **{f"{key}_token": text for key, text in names.items()}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
        return
    special: dict[str, str] = {}
    if kind == "pieces of words":
        trained = BertWordPieceTokenizer(lowercase=True)
        trained.train_from_iterator([TEXT], vocab_size=300, show_progress=False)
        tokenizer = trained._tokenizer
        ids = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
        )
        special = {f"{key}_token": f"[{key.upper()}]" for key in ("cls", "sep", "unk", "pad", "mask")}
    elif kind == "roberta":
        trained = ByteLevelBPETokenizer()
        texts = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        trained.train_from_iterator([TEXT], vocab_size=310, special_tokens=texts, show_progress=False)
        tokenizer = trained._tokenizer
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
        names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>"}
        special = {f"{key}_token": text for key, text in names.items()}
    else:
        tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama"))
        digits = "{1,3}" if kind == "llama" else ""
        expression = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits
            + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )  # fmt: skip
        split = pre_tokenizers.Split(Regex(expression), "isolated")
        letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt-2")
        tokenizer.pre_tokenizer = letters if kind == "gpt-2" else pre_tokenizers.Sequence([split, letters])
        tokenizer.decoder = decoders.ByteLevel()
        texts = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        texts += ["<|user|>", "<|observation|>", "[gMASK]", "<sop>"] if kind == "glm" else []
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=310, special_tokens=texts, initial_alphabet=alphabet)
        tokenizer.train_from_iterator([TEXT], trainer)
        tokenizer.add_tokens(["<tool>"])
        special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        if kind == "llama":
            start = "<|im_start|>"
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{start} $A", pair=f"{start} $A $B", special_tokens=[(start, tokenizer.token_to_id(start))]
            )
            special["bos_token"] = start
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    if kind in ("words", "glm", "llama"):
        fast.chat_template = "{{ messages[0].content }}"
    fast.save_pretrained(folder)


def stored_tokenizer(kind: str) -> dict[str, str]:
    """The files of a tokenizer: name to text, or to base64."""
    with tempfile.TemporaryDirectory() as folder:
        save_tokenizer(Path(folder), kind)
        return {
            path.name: f"base64:{base64.b64encode(path.read_bytes()).decode()}"
            if path.suffix == ".model"
            else path.read_text("utf-8")
            for path in sorted(Path(folder).iterdir())
        }


def stored_model(name: str) -> dict[str, Any]:
    """The configuration of a model and the shapes of its tensors, as transformers saves them."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    model_type, tokenizer, dtype, settings = MODELS[name]
    kind = AutoModel if name in ENCODERS else AutoModelForCausalLM
    model = kind.from_config(AutoConfig.for_model(model_type, **settings), dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        raw = (Path(folder) / "model.safetensors").read_bytes()
        config = json.loads((Path(folder) / "config.json").read_text("utf-8")) | PUBLISHED.get(name, {})
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    header.pop("__metadata__", None)
    groups: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for tensor in sorted(header):
        groups.setdefault((header[tensor]["dtype"], tuple(header[tensor]["shape"])), []).append(tensor)
    found = {"config": config, "tokenizer": tokenizer, "tensors": [[t, list(s), n] for (t, s), n in groups.items()]}
    if name.startswith("Tiny"):
        found["files"] = {"README.md": CARD, "generation_config.json": json.dumps({"temperature": 0.6, "top_k": 40})}
    return found


def model_by_hand(name: str) -> dict[str, Any]:
    """The same for a model that transformers has no class for."""
    config, tokenizer, whole, prefix, layer = BY_HAND[name]
    count = config.get("num_hidden_layers", config.get("n_layer"))
    entries = [entry.split() for entry in whole.split("; ")]
    for number in range(count):
        entries += [f"{prefix}{number}.{entry}".split() for entry in layer.split("; ")]
    tensors = []
    for text, *shape in entries:
        stem, _, suffix = text.partition(":")
        tensors.append(["F32", [int(size) for size in shape], [f"{stem}.{suffix or 'weight'}"]])
    return {"config": config, "tokenizer": tokenizer, "tensors": tensors}


def converted_by_llama_cpp(folder: Path, kind: str, output: Path, rule: str) -> None:
    """Run llama.cpp's converter, in this process."""
    import gguf
    import torch
    from conversion import get_model_class
    from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0", "auto": "GUESSED"}
    TextModel.get_vocab_base_pre = lambda _self, _tokenizer: rule
    hparams = ModelBase.load_hparams(folder, False)
    chosen = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    with torch.inference_mode():
        chosen(folder, gguf.LlamaFileType[types[kind]], output, eager=False).write()


def main() -> None:
    """Make the file and print the comparison."""
    sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/gguf-py"]
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    kinds = sorted({model[1] for model in (*MODELS.values(), *BY_HAND.values())})
    facts: dict[str, Any] = {"models": {}, "tokenizers": {kind: stored_tokenizer(kind) for kind in kinds}}
    for name in MODELS:
        facts["models"][name] = stored_model(name)
    for name in BY_HAND:
        facts["models"][name] = model_by_hand(name)
    work = Path(tempfile.mkdtemp())
    for name, model in facts["models"].items():
        folder = write_checkpoint(work / name, model, facts["tokenizers"])
        model["digests"] = {}
        for kind in TYPES:
            ours, theirs = work / "ours.gguf", work / "theirs.gguf"
            convert(folder, ours, type=kind)
            with GGUFFile(ours) as file:
                rule = str(file.metadata.get("tokenizer.ggml.pre"))
            try:
                converted_by_llama_cpp(folder, kind, theirs, rule)
            except Exception as error:  # it has faults of its own; there is nothing to compare then
                sys.stdout.write(f"{name:30} {kind:5} llama.cpp fails: {error!r:.80}\n")
                continue
            model["digests"][kind] = hashlib.sha256(theirs.read_bytes()).hexdigest()
            same = hashlib.sha256(ours.read_bytes()).hexdigest() == model["digests"][kind]
            sys.stdout.write(f"{name:30} {kind:5} {'equal' if same else 'DIFFERENT'}\n")
            sys.stdout.flush()
    shutil.rmtree(work)
    GOLDEN.write_bytes(gzip.compress(json.dumps(facts, separators=(",", ":")).encode(), mtime=0))


if __name__ == "__main__":
    main()
