"""Writes tiny seeded encoders with the keys and tensor names that llama.cpp's converter gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

Type = GGMLQuantizationType
WORDS = ["once", "upon", "time", "there", "was", "little", "girl", "the", "dog", "runs", "sun", "moon"]
VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *(f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz.,!"),
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"▁{word}" for word in WORDS),
]
"""As converters write WordPiece: what begins a word has a mark, and the continuations of words have lost theirs."""


@dataclass(frozen=True)
class Encoder:
    """Sizes and switches of a tiny encoder."""

    architecture: str = "bert"
    width: int = 64
    inner: int = 96
    layers: int = 3
    heads: int = 4
    context: int = 128
    types: int = 2
    fused: bool = False
    gate: Literal["own", "fused", "none"] = "none"
    more_norms: bool = False
    """of queries and keys, and a second one after attention"""
    bias: bool = True
    experts: int = 0
    window: int = 0
    labels: tuple[str, ...] = ()
    buckets: int = 0
    distances: int = 0
    pooling: int | None = 1
    extra: dict[str, Any] = field(default_factory=dict)
    """more metadata: key without the architecture to int, float, bool or str"""


ENCODERS = {
    "bert": Encoder(),
    "bert-cls": Encoder(pooling=2, layers=2, types=1, context=40),
    "bert-wide": Encoder(width=96, inner=80, heads=3, pooling=None, types=0),
    "jina": Encoder("jina-bert-v2", gate="fused"),
    "jina-code": Encoder("jina-bert-v2", width=72, heads=6, gate="own", more_norms=True, layers=2),
    "jina-rank": Encoder("jina-bert-v2", heads=2, bias=False, layers=2, context=600),
    "jina-3": Encoder("jina-bert-v3", fused=True, types=1, extra={"rope.freq_base": 20000.0}),
    "nomic": Encoder("nomic-bert", gate="own", fused=True, bias=False, extra={"rope.freq_base": 1000.0}),
    "nomic-moe": Encoder("nomic-bert-moe", fused=True, experts=4, types=1, extra={"rope.freq_base": 1000.0}),
    "deberta": Encoder(
        "deberta-v2", types=0, context=90, buckets=16, distances=60, labels=("BENIGN", "BAD"), pooling=4
    ),
    "deberta-plain": Encoder(
        "deberta-v2", width=48, heads=3, layers=2, types=0, context=40, distances=12, labels=("a", "b", "c"), pooling=4
    ),
}


def write_encoder(path: Path, shape: Encoder, kind: Type = Type.F32, seed: int = 0) -> Path:
    """Writes an encoder of random weights to `path` and returns it. Matrices are stored as `kind`."""
    writer = GGUFWriter(path, shape.architecture)
    _metadata(writer, shape)
    random = np.random.default_rng(seed)

    def tensor(name: str, *sizes: int, spread: float = 0.15, mean: float = 0.0, stored: Type = Type.F32) -> None:
        values = (random.standard_normal(sizes) * spread + mean).astype(np.float32)
        data = values if stored == Type.F32 else quantize(values, stored)
        writer.add_tensor(name, data, raw_dtype=stored)

    def norm(name: str) -> None:  # of a state, or of all heads together
        tensor(f"{name}.weight", shape.width, mean=1.0)
        tensor(f"{name}.bias", shape.width)

    def linear(name: str, rows: int, columns: int, bias: bool = shape.bias) -> None:
        tensor(f"{name}.weight", rows, columns, stored=kind)
        if bias:
            tensor(f"{name}.bias", rows)

    width, inner = shape.width, shape.inner
    tensor("token_embd.weight", len(VOCABULARY), width, spread=0.6, stored=kind)
    norm("token_embd_norm")
    if shape.types:
        tensor("token_types.weight", shape.types, width, spread=0.3)
    if shape.architecture == "bert":
        tensor("position_embd.weight", shape.context, width, spread=0.3)
    if shape.distances:
        tensor("rel_embd.weight", 2 * (shape.buckets or shape.distances), width, spread=0.6)
        norm("rel_embd_norm")
    for layer in range(shape.layers):
        block = f"blk.{layer}"
        if shape.fused:
            linear(f"{block}.attn_qkv", 3 * width, width)
        else:
            for part in "qkv":
                linear(f"{block}.attn_{part}", width, width)
        linear(f"{block}.attn_output", width, width)
        norm(f"{block}.attn_output_norm")
        for part in ("attn_q_norm", "attn_k_norm", "attn_norm_2") if shape.more_norms else ():
            norm(f"{block}.{part}")
        if shape.experts and layer % 2:
            tensor(f"{block}.ffn_gate_inp.weight", shape.experts, width)
            tensor(f"{block}.ffn_up_exps.weight", shape.experts, inner, width, stored=kind)
            tensor(f"{block}.ffn_down_exps.weight", shape.experts, width, inner, stored=kind)
        else:
            linear(f"{block}.ffn_up", 2 * inner if shape.gate == "fused" else inner, width)
            if shape.gate == "own":
                linear(f"{block}.ffn_gate", inner, width)
            linear(f"{block}.ffn_down", width, inner)
        norm(f"{block}.layer_output_norm")
    if shape.labels:
        linear("cls", width, width, bias=True)
        linear("cls.output", len(shape.labels), width, bias=True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _metadata(writer: GGUFWriter, shape: Encoder) -> None:
    writer.add_name("tiny encoder")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.inner)
    writer.add_head_count(shape.heads)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if shape.pooling is not None:
        writer.add_pooling_type(gguf.PoolingType(shape.pooling))
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(2)
        writer.add_uint32(f"{shape.architecture}.moe_every_n_layers", 2)
    if shape.labels:
        writer.add_classifier_output_labels(list(shape.labels))
    if shape.distances:
        writer.add_uint32(f"{shape.architecture}.attention.relative_positions_max", shape.distances)
        writer.add_uint32(f"{shape.architecture}.attention.relative_buckets_count", shape.buckets)
    for key, value in shape.extra.items():
        add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        add[type(value)](f"{shape.architecture}.{key}", value)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3] * 5 + [1] * (len(VOCABULARY) - 5))
    writer.add_token_type_count(shape.types)
    for name, id in {"bos": 2, "unknown": 1, "seperator": 3, "padding": 0, "cls": 2, "mask": 4}.items():
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", id)
