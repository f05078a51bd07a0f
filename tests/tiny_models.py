"""Writes tiny seeded model files, one variant for every switch of the `llama` architecture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize

import gguf_types  # noqa: F401 (adds types)
from deterministic import Stream
from tiny_tokenizers import add_tokenizer, token_count

Type = GGMLQuantizationType


@dataclass(frozen=True)
class Shape:
    """Sizes and switches of a tiny model."""

    width: int = 64
    feed_forward: int | tuple[int, ...] = 96
    layers: int = 2
    heads: int | tuple[int, ...] = 4
    kv_heads: int | tuple[int, ...] = 4
    head_size: int | None = None
    value_size: int | None = None
    tied: bool = False
    bias: bool = False
    fused: bool = False
    experts: int = 0
    experts_used: int = 0
    expert_layout: str = "stacked"
    """stacked, fused (gate above up) or single (one tensor an expert)"""
    rope_size: int | None = None
    rope_base: float = 10000.0
    rope_freqs: bool = False
    context: int = 512
    tokenizer: str = "spm"
    extra: dict[str, Any] = field(default_factory=dict)
    """more metadata: key without "llama." to int, float, bool or str"""


VARIANTS: dict[str, Shape] = {
    "mha": Shape(),
    "gqa": Shape(heads=8, kv_heads=2, tied=True),
    "bpe": Shape(kv_heads=1, tokenizer="bpe"),
    "bias": Shape(kv_heads=2, bias=True),
    "fused": Shape(kv_heads=2, bias=True, fused=True),
    "headdim": Shape(kv_heads=2, head_size=32, rope_base=1e6),
    "valuedim": Shape(kv_heads=2, head_size=32, value_size=24),
    "partial": Shape(rope_size=8),
    "layers": Shape(layers=3, heads=(4, 2, 4), kv_heads=(2, 2, 1), head_size=16, feed_forward=(96, 64, 32)),
    "freqs": Shape(kv_heads=2, rope_freqs=True, rope_base=5e5),
    "linear": Shape(extra={"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}),
    "old-linear": Shape(extra={"rope.scale_linear": 2.0}),
    "yarn": Shape(
        head_size=32,
        extra={"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64},
    ),
    "scaled": Shape(
        extra={"attention.scale": 0.3, "embedding_scale": 2.0, "residual_scale": 0.5, "logit_scale": 4.0},
    ),
    "mixtral": Shape(kv_heads=2, experts=4, experts_used=2),
    "experts-fused": Shape(experts=3, experts_used=1, expert_layout="fused"),
    "experts-single": Shape(experts=3, experts_used=2, expert_layout="single"),
    "experts-sigmoid": Shape(
        experts=4,
        experts_used=3,
        extra={"expert_gating_func": 2, "expert_weights_norm": False, "expert_weights_scale": 2.5},
    ),
    "experts-selected": Shape(experts=4, experts_used=2, extra={"expert_gating_func": 3}),
}
"""In F32, except where the caller asks for another type."""

QUANTIZABLE = replace(VARIANTS["gqa"], width=256, feed_forward=512)
"""Rows of a multiple of 256, which every block format divides."""

# Where a block keeps its float16 scales, of the types that the gguf package cannot quantize to.
_SCALES = {
    Type.Q2_K: {80: 0.006, 82: 0.009},
    Type.Q3_K: {108: 0.0016},
    Type.Q4_K: {0: 0.0003, 2: 0.00225},
    Type.Q5_K: {0: 0.00015, 2: 0.00233},
    Type.Q6_K: {208: 0.00006},
    Type.IQ4_NL: {0: 0.001},
    Type.IQ4_XS: {0: 0.00005},
    Type.IQ3_S: {0: 0.0005},
    Type.IQ3_XXS: {0: 0.0006},
    Type.IQ2_S: {0: 0.0015},
    Type.IQ2_XS: {0: 0.0015},
    Type.IQ2_XXS: {0: 0.0015},
    Type.IQ1_S: {0: 0.008},
    Type.IQ1_M: {},
    Type["NVFP4"]: {},
    Type["Q2_0"]: {0: 0.03},
}
# The float16 scale of IQ1_M lies in the high nibbles of four bytes, lowest bits first: here it is 2^-7.
_IQ1_M_SCALE = {49: 0x00, 51: 0x00, 53: 0x00, 55: 0x20}


def write_model(
    path: Path, shape: Shape, weight_type: Type = Type.F32, seed: int | Stream = 0, tensors_per_file: int = 0
) -> Path:
    """Writes a model of random weights to `path` and returns it. Matrices are stored as `weight_type`.

    With `tensors_per_file` the model is split: the files get the usual endings, and the first one is returned.
    """
    model = _Writer(path, shape, weight_type, seed, tensors_per_file)
    model.metadata()
    model.tensors()
    model.finish()
    return path if not tensors_per_file else min(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))


def stored(kind: Type, shape: tuple[int, ...], random: np.random.Generator | Stream, spread: float) -> np.ndarray:
    """A random matrix in the form of `kind`.

    Where the gguf package cannot quantize to it, random blocks with small scales: every bit pattern of the quants
    occurs, and values stay moderate.
    """
    if kind not in _SCALES:
        return quantize((random.standard_normal(shape) * spread).astype(np.float32), kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    count = int(np.prod(shape)) // elements
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    for position, scale in _SCALES[kind].items():
        scales = (scale * random.uniform(0.7, 1.3, count)).astype("<f2")
        blocks[:, position : position + 2] = scales[:, None].view(np.uint8)
    if kind.name == "NVFP4":
        # From 2^-6 to less than 2^-3, of which quants are multiples of a half.
        blocks[:, :4] = 8 + blocks[:, :4] % 24
    if kind == Type.IQ1_M:
        for position, nibble in _IQ1_M_SCALE.items():
            blocks[:, position] = blocks[:, position] & 15 | nibble
    return blocks.reshape(*shape[:-1], -1)


def _list(value: int | tuple[int, ...], layers: int) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value] * layers


class _Writer:
    def __init__(self, path: Path, shape: Shape, weight_type: Type, seed: int | Stream, tensors_per_file: int) -> None:
        self.writer = GGUFWriter(path, "llama", split_max_tensors=tensors_per_file)
        self.shape = shape
        self.type = weight_type
        self.random = seed if isinstance(seed, Stream) else np.random.default_rng(seed)
        self.vocabulary = token_count(shape.tokenizer)
        self.heads = _list(shape.heads, shape.layers)
        self.kv_heads = _list(shape.kv_heads, shape.layers)
        self.feed_forward = _list(shape.feed_forward, shape.layers)
        self.head_size = shape.head_size or shape.width // self.heads[0]
        self.value_size = shape.value_size or self.head_size

    def metadata(self) -> None:
        writer, shape = self.writer, self.shape
        writer.add_name("tiny")
        writer.add_context_length(shape.context)
        writer.add_embedding_length(shape.width)
        writer.add_block_count(shape.layers)
        writer.add_feed_forward_length(shape.feed_forward if isinstance(shape.feed_forward, int) else self.feed_forward)
        writer.add_head_count(shape.heads if isinstance(shape.heads, int) else self.heads)
        writer.add_head_count_kv(shape.kv_heads if isinstance(shape.kv_heads, int) else self.kv_heads)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_dimension_count(shape.rope_size or self.head_size)
        writer.add_rope_freq_base(shape.rope_base)
        if shape.head_size:
            writer.add_key_length(self.head_size)
            writer.add_value_length(self.value_size)
        if shape.experts:
            writer.add_expert_count(shape.experts)
            writer.add_expert_used_count(shape.experts_used)
        for key, value in shape.extra.items():
            add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            add[type(value)](f"llama.{key}", value)
        add_tokenizer(writer, shape.tokenizer)

    def tensors(self) -> None:
        shape = self.shape
        self.matrix("token_embd.weight", self.vocabulary, shape.width, spread=0.6)
        self.vector("output_norm.weight", shape.width, mean=1.0)
        if not shape.tied:
            self.matrix("output.weight", self.vocabulary, shape.width, spread=0.2)
        if shape.rope_freqs:
            pairs = (shape.rope_size or self.head_size) // 2
            divisors = np.concatenate([np.ones(pairs // 2), np.linspace(1, 8, pairs - pairs // 2)])
            self.writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))
        for layer in range(shape.layers):
            self.attention(layer)
            self.vector(f"blk.{layer}.ffn_norm.weight", shape.width, mean=1.0)
            if shape.experts:
                self.experts(f"blk.{layer}.ffn", self.feed_forward[layer])
            else:
                inner = self.feed_forward[layer]
                self.matrix(f"blk.{layer}.ffn_gate.weight", inner, shape.width)
                self.matrix(f"blk.{layer}.ffn_up.weight", inner, shape.width)
                self.matrix(f"blk.{layer}.ffn_down.weight", shape.width, inner)

    def attention(self, layer: int) -> None:
        shape, prefix = self.shape, f"blk.{layer}.attn"
        rows = {
            "q": self.heads[layer] * self.head_size,
            "k": self.kv_heads[layer] * self.head_size,
            "v": self.kv_heads[layer] * self.value_size,
        }
        if shape.fused:
            rows = {"qkv": sum(rows.values())}
        self.vector(f"{prefix}_norm.weight", shape.width, mean=1.0)
        for part, count in rows.items():
            self.matrix(f"{prefix}_{part}.weight", count, shape.width, spread=2 * shape.width**-0.5)
            if shape.bias:
                self.vector(f"{prefix}_{part}.bias", count)
        self.matrix(f"{prefix}_output.weight", shape.width, self.heads[layer] * self.value_size)
        if shape.bias:
            self.vector(f"{prefix}_output.bias", shape.width)

    def experts(self, prefix: str, inner: int) -> None:
        count, width = self.shape.experts, self.shape.width
        self.writer.add_tensor(f"{prefix}_gate_inp.weight", self.normal((count, width), width**-0.5))
        if self.shape.expert_layout == "single":
            for expert in range(count):
                self.matrix(f"{prefix}_gate.{expert}.weight", inner, width)
                self.matrix(f"{prefix}_up.{expert}.weight", inner, width)
                self.matrix(f"{prefix}_down.{expert}.weight", width, inner)
            return
        if self.shape.expert_layout == "fused":
            self.matrix(f"{prefix}_gate_up_exps.weight", 2 * inner, width, stack=count)
        else:
            self.matrix(f"{prefix}_gate_exps.weight", inner, width, stack=count)
            self.matrix(f"{prefix}_up_exps.weight", inner, width, stack=count)
        self.matrix(f"{prefix}_down_exps.weight", width, inner, stack=count)

    def normal(self, shape: tuple[int, ...], spread: float) -> np.ndarray:
        return (self.random.standard_normal(shape) * spread).astype(np.float32)

    def vector(self, name: str, count: int, mean: float = 0.0) -> None:
        self.writer.add_tensor(name, (mean + self.normal((count,), 0.1)).astype(np.float32))

    def matrix(self, name: str, rows: int, columns: int, spread: float | None = None, stack: int = 0) -> None:
        shape = (stack, rows, columns) if stack else (rows, columns)
        data = stored(self.type, shape, self.random, spread or columns**-0.5)
        self.writer.add_tensor(name, data, raw_dtype=self.type)

    def finish(self) -> None:
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()
