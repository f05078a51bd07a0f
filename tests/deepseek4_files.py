"""Model files of DeepSeek V4 with random weights: what their metadata says, written down apart from the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from deterministic import Stream
from llamacpu.families.config import Config

__all__ = ["CONTEXT", "SMALL", "VOCABULARY", "config", "keys", "tensors", "write"]

VOCABULARY, CONTEXT, WIDTH, EXPERTS, EXPERT_WIDTH = 60, 512, 48, 6, 20
LOCAL, CHOSEN, FAR = 0, 4, 128
SMALL = (LOCAL, CHOSEN, FAR, CHOSEN)
"""One layer of each kind, and a second one that chooses."""


def config(compression: tuple[int, ...] = SMALL, **changes: Any) -> Config:
    """The configuration of the files, for layers of these compressions."""
    layers = len(compression)
    fields: dict[str, Any] = {
        "architecture": "deepseek4", "vocab_size": VOCABULARY, "context_length": CONTEXT, "embedding_length": WIDTH,
        "layers": layers, "feed_forward": [EXPERT_WIDTH] * layers, "heads": [4] * layers, "kv_heads": [1] * layers,
        "key_size": 24, "value_size": 24, "query_latent_size": 20, "shared_rows": True, "output_groups": 2,
        "output_rank": 12, "compression": list(compression), "indexer": [size == CHOSEN for size in compression],
        "indexer_heads": 16, "indexer_size": 16, "indexer_top": 5, "norm_epsilon": 1e-6, "rope_size": 8,
        "rotation": ["global" if size else "local" for size in compression], "rope_base": 1000.0,
        "rope_local_base": 100.0, "rope_scaling": "yarn", "rope_factor": 4.0, "rope_original_context": 32,
        "yarn_ext_factor": 1.0, "yarn_log_multiplier": 1.0, "window": [12] * layers, "streams": 4,
        "stream_iterations": 20, "stream_epsilon": 1e-6, "activation": "limited_silu", "activation_limit": 1.5,
        "experts": EXPERTS, "experts_used": 2, "expert_feed_forward": EXPERT_WIDTH,
        "shared_feed_forward": EXPERT_WIDTH, "expert_weights_scale": 1.5, "expert_gating": "sqrt_softplus",
        "hashed_layers": 2,
    }  # fmt: skip
    return Config(**fields | changes)


def tensors(config: Config, random: np.random.Generator | Stream) -> dict[str, Any]:
    """Every tensor by name, in NumPy's order of sizes."""
    width, streams, size, inner = config.embedding_length, config.streams, config.key_size, config.expert_feed_forward
    found: dict[str, Any] = {}

    def matrix(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = random.standard_normal(shape) * shape[-1] ** -0.5

    def norm(name: str, length: int) -> None:
        found[f"{name}.weight"] = 1 + 0.2 * random.standard_normal(length)

    def connections(name: str, rows: int, parts: int) -> None:
        matrix(f"{name}_fn", rows, streams * width)
        found[f"{name}_base.weight"] = 0.5 * random.standard_normal(rows)
        found[f"{name}_scale.weight"] = 1 + 0.3 * random.standard_normal(parts)

    def compressor(name: str, length: int, parts: int, ratio: int) -> None:
        matrix(f"{name}_kv", parts * length, width)
        matrix(f"{name}_gate", parts * length, width)
        found[f"{name}_ape.weight"] = 0.5 * random.standard_normal((ratio, parts * length))
        norm(f"{name}_norm", length)

    matrix("token_embd", config.vocab_size, width)
    matrix("output", config.vocab_size, width)
    norm("output_norm", width)
    connections("output_hc", streams, 1)
    for layer in range(config.layers):
        prefix, heads, ratio = f"blk.{layer}", config.heads[layer], config.compression[layer]
        chooses = config.indexer[layer] if config.indexer else False
        norm(f"{prefix}.attn_norm", width)
        norm(f"{prefix}.ffn_norm", width)
        for part in ("attn", "ffn"):
            connections(f"{prefix}.hc_{part}", (2 + streams) * streams, 3)
        matrix(f"{prefix}.attn_q_a", config.query_latent_size, width)
        norm(f"{prefix}.attn_q_a_norm", config.query_latent_size)
        matrix(f"{prefix}.attn_q_b", heads * size, config.query_latent_size)
        matrix(f"{prefix}.attn_kv", size, width)
        norm(f"{prefix}.attn_kv_a_norm", size)
        found[f"{prefix}.attn_sinks.weight"] = random.standard_normal(heads)
        groups, rank = config.output_groups, config.output_rank
        matrix(f"{prefix}.attn_output_a", groups * rank, heads * size // groups)
        matrix(f"{prefix}.attn_output_b", width, groups * rank)
        if ratio:
            compressor(f"{prefix}.attn_compressor", size, 1 + chooses, ratio)
        if chooses:
            compressor(f"{prefix}.indexer_compressor", config.indexer_size, 2, ratio)
            matrix(f"{prefix}.indexer.attn_q_b", config.indexer_heads * config.indexer_size, config.query_latent_size)
            matrix(f"{prefix}.indexer.proj", config.indexer_heads, width)
        matrix(f"{prefix}.ffn_gate_inp", config.experts, width)
        if layer < config.hashed_layers:
            order = random.standard_normal((config.vocab_size, config.experts)).argsort(axis=1)
            found[f"{prefix}.ffn_gate_tid2eid.weight"] = order[:, : config.experts_used].astype(np.int32)
        else:
            found[f"{prefix}.exp_probs_b.bias"] = 0.3 * random.standard_normal(config.experts)
        for kind, stack, rows in (("exps", (config.experts,), inner), ("shexp", (), config.shared_feed_forward)):
            matrix(f"{prefix}.ffn_gate_{kind}", *stack, rows, width)
            matrix(f"{prefix}.ffn_up_{kind}", *stack, rows, width)
            matrix(f"{prefix}.ffn_down_{kind}", *stack, width, rows)
    return found


def keys(config: Config) -> dict[str, Any]:
    """The keys of the architecture, as llama.cpp's converter spells them."""
    layers, limit = config.layers, config.activation_limit
    return {
        "block_count": layers, "context_length": config.context_length, "embedding_length": config.embedding_length,
        "attention.head_count": config.heads[0], "attention.head_count_kv": 1, "rope.scaling.type": "yarn",
        "rope.scaling.factor": config.rope_factor,
        "rope.scaling.original_context_length": config.rope_original_context, "rope.freq_base": config.rope_local_base,
        "attention.layer_norm_rms_epsilon": config.norm_epsilon, "expert_count": config.experts,
        "expert_used_count": config.experts_used, "expert_gating_func": 4, "attention.key_length": config.key_size,
        "attention.value_length": config.value_size, "rope.dimension_count": config.rope_size,
        "attention.q_lora_rank": config.query_latent_size, "attention.sliding_window": config.window[0],
        "expert_feed_forward_length": config.expert_feed_forward,
        "expert_shared_count": config.shared_feed_forward // config.expert_feed_forward,
        "expert_weights_scale": config.expert_weights_scale, "expert_weights_norm": config.expert_weights_norm,
        "swiglu_clamp_exp": [limit] * layers, "swiglu_clamp_shexp": [limit] * layers,
        "attention.indexer.head_count": config.indexer_heads or 1,
        "attention.indexer.key_length": config.indexer_size or 8, "attention.indexer.top_k": config.indexer_top or 1,
        "attention.output_group_count": config.output_groups, "attention.output_lora_rank": config.output_rank,
        "attention.compress_ratios": config.compression, "attention.compress_rope_freq_base": config.rope_base,
        "hyper_connection.count": config.streams,
        "hyper_connection.sinkhorn_iterations": config.stream_iterations,
        "hyper_connection.epsilon": config.stream_epsilon, "hash_layer_count": config.hashed_layers,
        "embedding_length_out": config.embedding_length * config.streams,
    }  # fmt: skip


def write(
    path: Path,
    config: Config,
    seed: int = 0,
    changes: dict[str, Any] | None = None,
    values: dict[str, Any] | None = None,
) -> Path:
    """A file of this configuration; `changes` replace keys (None: without it), `values` replace or add tensors."""
    writer = gguf.GGUFWriter(path, "deepseek4")
    writer.add_token_list([f"t{index}" for index in range(config.vocab_size)])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_merges(["t 1"])
    for key, value in {**keys(config), **(changes or {})}.items():
        add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add[list] = writer.add_array
        if value is not None:
            add.get(type(value), writer.add_string)(f"deepseek4.{key}", value)
    for name, tensor in {**tensors(config, np.random.default_rng(seed)), **(values or {})}.items():
        if tensor is not None:
            writer.add_tensor(name, tensor if tensor.dtype == np.int32 else tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
