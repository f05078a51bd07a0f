"""Model files of random weights that fit a configuration, and models that run them without a family of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import gguf
import numpy as np

import deepseek4_files
from deterministic import Stream
from llamacpu import Model
from llamacpu.families import registry
from llamacpu.families.config import Config


def write_config_model(
    path: Path,
    config: Config,
    seed: int = 0,
    biases: bool = False,
    tied: bool = False,
    values: dict[str, Any] | None = None,
) -> Path:
    """Writes the tensors that the configuration asks for, or these, in F32, with a vocabulary of as many tokens."""
    writer = gguf.GGUFWriter(path, "test")
    writer.add_token_list([f"t{index}" for index in range(config.vocab_size)])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_merges(["t 0"])
    for name, tensor in sorted((values or tensors(config, np.random.default_rng(seed), biases, tied)).items()):
        writer.add_tensor(name, tensor if tensor.dtype == np.int32 else tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def open_config_model(path: Path, config: Config, threads: int = 2) -> Model:
    """A model of that file and configuration."""
    family = ModuleType("test")
    family.test = lambda file, name: config  # type: ignore[attr-defined]
    sys.modules["llamacpu.families.test"] = family
    registry.FAMILIES["test"] = "test"
    try:
        return Model(path, threads=threads)
    finally:
        del registry.FAMILIES["test"], sys.modules["llamacpu.families.test"]


def tensors(config: Config, random: np.random.Generator | Stream, biases: bool, tied: bool) -> dict[str, Any]:
    """Every tensor by name, in NumPy's order of sizes."""
    if config.shared_rows:
        return deepseek4_files.tensors(config, random)
    found: dict[str, Any] = {}
    width = config.embedding_length

    def matrix(name: str, rows: int, columns: int, *, stack: int = 0, bias: bool = biases) -> None:
        shape = (stack, rows, columns) if stack else (rows, columns)
        found[f"{name}.weight"] = random.standard_normal(shape) * columns**-0.5
        if bias:
            found[f"{name}.bias"] = random.standard_normal(shape[:-1]) * 0.2

    def norm(name: str, *shape: int) -> None:
        if not config.norm_weights and len(shape) == 1:
            return
        found[f"{name}.weight"] = 1 + 0.2 * random.standard_normal(shape)
        if config.norm == "layer" and biases and len(shape) == 1:
            found[f"{name}.bias"] = 0.2 * random.standard_normal(shape)

    def network(prefix: str, suffix: str, inner: int, stack: int = 0) -> None:
        if config.gate == "own" or (stack and config.gate == "fused"):
            matrix(f"{prefix}_gate{suffix}", inner, width, stack=stack)
        double = 2 if config.gate == "fused" and not stack else 1
        matrix(f"{prefix}_up{suffix}", double * inner, width, stack=stack)
        matrix(f"{prefix}_down{suffix}", width, inner, stack=stack)

    matrix("token_embd", config.vocab_size, width, bias=False)
    if config.learned_positions:
        matrix("position_embd", config.context_length, width, bias=False)
    if not tied:
        matrix("output", config.vocab_size, width)
    norm("output_norm", width)
    if config.embedding_norm and config.embedding_norm_weights:
        norm("token_embd_norm", width)
    if config.per_layer_input:
        all_layers = config.layers * config.per_layer_input
        matrix("per_layer_token_embd", config.vocab_size, all_layers, bias=False)
        matrix("per_layer_model_proj", all_layers, width)
        norm("per_layer_proj_norm", config.per_layer_input)
    if config.rope_scaling == "longrope":
        for name in ("short", "long"):
            found[f"rope_factors_{name}.weight"] = random.uniform(1, 8, config.rope_size // 2)
    before, behind = config.norms != "behind", config.norms != "before"
    for layer in range(config.layers):
        prefix = f"blk.{layer}"
        heads, shared = config.heads[layer], config.kv_heads[layer]
        starts = layer > 0 or config.first_attention_norm
        shared_norm = config.parallel and not config.parallel_norm
        recurrent = config.recurrent_heads[layer] if config.recurrent_heads else 0
        if before and starts and (heads or recurrent or shared_norm):
            norm(f"{prefix}.{config.attention_norm}", width)
        if behind and (heads or recurrent):
            norm(f"{prefix}.post_attention_norm", width)
        if recurrent:
            _recurrent(config, layer, recurrent, matrix, found, random)
        elif heads and not shared:
            matrix(f"{prefix}.attn_output", width, width)
        elif heads:
            _attention(config, layer, matrix, norm, found)
            if biases and not config.latent_size:
                found[f"{prefix}.attn_sinks.weight"] = random.standard_normal(heads)
        if config.layer_scale and config.layer_scale[layer]:
            found[f"{prefix}.layer_output_scale.weight"] = random.uniform(0.5, 1.5, 1)
        if config.per_layer_input:
            matrix(f"{prefix}.inp_gate", config.per_layer_input, width)
            matrix(f"{prefix}.proj", width, config.per_layer_input)
            norm(f"{prefix}.post_norm", width)
        if not config.feed_forward[layer]:
            continue
        if before and not shared_norm:
            norm(f"{prefix}.{config.feed_forward_norm}", width)
        if behind:
            norm(f"{prefix}.post_ffw_norm", width)
        if config.experts and layer % 2 == 0:
            matrix(f"{prefix}.ffn_gate_inp", config.experts, width)
            network(f"{prefix}.ffn", "_exps", config.expert_feed_forward, config.experts)
            if config.expert_groups:
                found[f"{prefix}.exp_probs_b.bias"] = random.standard_normal(config.experts) * 0.1
            if config.experts_beside:
                network(f"{prefix}.ffn", "", config.feed_forward[layer])
                found[f"{prefix}.ffn_gate_inp.scale"] = 1 + random.standard_normal(width) * 0.2
                for name in ("post_ffw_norm_1", "pre_ffw_norm_2", "post_ffw_norm_2"):
                    norm(f"{prefix}.{name}", width)
                if biases:
                    found[f"{prefix}.ffn_down_exps.scale"] = 1 + random.standard_normal(config.experts) * 0.2
            if config.shared_feed_forward:
                network(f"{prefix}.ffn", "_shexp", config.shared_feed_forward)
                if biases:
                    matrix(f"{prefix}.ffn_gate_inp_shexp", 1, width, bias=False)
        else:
            network(f"{prefix}.ffn", "", config.feed_forward[layer])
    return found


def _attention(config: Config, layer: int, matrix: Any, norm: Any, found: dict[str, Any]) -> None:
    prefix, width = f"blk.{layer}.attn", config.embedding_length
    heads, shared = config.heads[layer], config.kv_heads[layer]
    size = config.key_sizes[layer] if config.key_sizes else config.key_size
    value_size = config.value_sizes[layer] if config.value_sizes else config.value_size
    own = not config.kv_source or config.kv_source[layer] == layer
    matrix(f"{prefix}_output", width, heads * value_size)
    if config.latent_size:
        between, latent, turned = config.query_latent_size, config.latent_size, config.rope_size
        if between:
            matrix(f"{prefix}_q_a", between, width)
            norm(f"{prefix}_q_a_norm", between)
        matrix(f"{prefix}_q_b" if between else f"{prefix}_q", heads * size, between or width)
        matrix(f"{prefix}_kv_a_mqa", latent + turned, width)
        norm(f"{prefix}_kv_a_norm", latent)
        matrix(f"{prefix}_k_b", latent, size - turned, stack=heads, bias=False)
        matrix(f"{prefix}_v_b", config.value_size, latent, stack=heads, bias=False)
        if config.indexer and config.indexer[layer]:
            prefix = f"blk.{layer}.indexer"
            matrix(f"{prefix}.attn_q_b", config.indexer_heads * config.indexer_size, between)
            matrix(f"{prefix}.attn_k", config.indexer_size, width)
            matrix(f"{prefix}.proj", config.indexer_heads, width)
            found[f"{prefix}.k_norm.weight"] = np.linspace(0.7, 1.3, config.indexer_size)
            found[f"{prefix}.k_norm.bias"] = np.linspace(0.2, -0.2, config.indexer_size)
        return
    gate = value_size if config.attention_gate == "query" else 0
    matrix(f"{prefix}_q", heads * (size + gate), width)
    if own:
        matrix(f"{prefix}_k", shared * size, width)
    if own and not (config.keys_as_values and config.keys_as_values[layer]):
        matrix(f"{prefix}_v", shared * value_size, width)
    if config.attention_gate == "own":
        matrix(f"{prefix}_gate", heads * value_size, width)
    kind = config.query_key_norm[layer] if config.query_key_norm else "none"
    for part, count in (("q", heads), ("k", shared))[: 1 + own]:
        if kind in ("head", "rotated_head"):
            norm(f"{prefix}_{part}_norm", size)
        elif kind == "each_head":
            norm(f"{prefix}_{part}_norm", count, size)
        elif kind == "width":
            norm(f"{prefix}_{part}_norm", count * size)


def _recurrent(
    config: Config, layer: int, heads: int, matrix: Any, found: dict[str, Any], random: np.random.Generator | Stream
) -> None:
    prefix, width = f"blk.{layer}", config.embedding_length
    inner = heads * config.recurrent_value_size
    channels = 2 * config.recurrent_key_heads * config.recurrent_key_size + inner
    if random.random() < 0.3:
        matrix(f"{prefix}.ssm_in", channels + inner, width)
    else:
        matrix(f"{prefix}.attn_qkv", channels, width)
        matrix(f"{prefix}.attn_gate", inner, width)
    if random.random() < 0.5:
        matrix(f"{prefix}.ssm_ba", 2 * heads, width)
    else:
        matrix(f"{prefix}.ssm_beta", heads, width)
        matrix(f"{prefix}.ssm_alpha", heads, width)
    matrix(f"{prefix}.ssm_conv1d", channels, config.convolution_size, bias=False)
    matrix(f"{prefix}.ssm_out", width, inner)
    found[f"{prefix}.ssm_a"] = -random.uniform(0.01, 2, heads)
    found[f"{prefix}.ssm_dt.bias"] = random.standard_normal(heads)
    found[f"{prefix}.ssm_norm.weight"] = 1 + 0.2 * random.standard_normal(config.recurrent_value_size)
