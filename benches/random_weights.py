"""Blocks of random bits that are valid weights, and the type that each tensor of a published file has."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

__all__ = ["TYPES", "kind_of", "random_blocks"]

Type = GGMLQuantizationType
SPREAD = 0.02
DISTINCT = 1 << 16
"""Number of distinct blocks per tensor; they repeat, which does not affect timings."""

# Offsets of the 16-bit factors in a block, each with its value as a multiple of the spread, divided by the average
# magnitude of quants of random bits.
FACTORS: dict[Type, tuple[tuple[int, float], ...]] = {
    Type.Q4_0: ((0, 1 / 4.6),),
    Type.Q5_0: ((0, 1 / 9.2),),
    Type.Q8_0: ((0, 1 / 74),),
    Type.Q4_K: ((0, 1 / (31 * 4.6)), (2, 7.5 / (31 * 4.6))),
    Type.Q5_K: ((0, 1 / (31 * 9.2)), (2, 15.5 / (31 * 9.2))),
    Type.Q6_K: ((208, 1 / 90),),
}
TYPES: dict[str, tuple[int, Type]] = {
    "q4_k_m": (15, Type.Q4_K),
    "q4_0": (2, Type.Q4_0),
    "q8_0": (7, Type.Q8_0),
    "q6_k": (18, Type.Q6_K),
    "f16": (1, Type.F16),
}
"""File type number, and the type of most tensors."""

FALLBACKS = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q8_0, Type.Q6_K: Type.Q8_0}
"""Types for rows whose length is not a multiple of 256."""


def kind_of(name: str, columns: int, layers: int, mixture: str, tied: bool) -> Type:
    """Return the type of a matrix in a file of `mixture`, as the usual quantization tools choose it."""
    parts = name.split(".")
    layer, part = (int(parts[1]), parts[2]) if parts[0] == "blk" else (0, parts[0])
    base = TYPES[mixture][1]
    if part in ("ffn_gate_inp", "token_types", "position_embd", "ssm_conv1d", "per_layer_model_proj"):
        return Type.F32
    if part in ("attn_k_b", "attn_v_b"):
        return Type.F16
    if base in (Type.F16, Type.Q8_0):
        return base
    kind = base
    if part == "output" or (tied and part in ("token_embd", "per_layer_token_embd")):
        kind = Type.Q6_K
    elif mixture == "q4_k_m" and part in ("attn_v", "attn_qkv", "ffn_down", "ffn_down_exps", "ffn_down_shexp"):
        eighth = layers // 8
        if layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2:
            kind = Type.Q6_K
    return kind if columns % GGML_QUANT_SIZES[kind][0] == 0 else FALLBACKS[kind]


def random_blocks(kind: Type, sizes: Iterable[int], random: np.random.Generator) -> np.ndarray:
    """Return the bytes of a tensor of `sizes` (row length last), its values spread about like trained weights."""
    *rows, columns = sizes
    if kind in (Type.F32, Type.F16):
        values = (random.standard_normal(DISTINCT) * SPREAD).astype(np.float32 if kind == Type.F32 else np.float16)
        return np.resize(values, (*rows, columns))
    length, size = GGML_QUANT_SIZES[kind]
    count = int(np.prod(rows)) * columns // length
    blocks = random.integers(0, 256, (min(count, DISTINCT), size), dtype=np.uint8)
    if kind == Type.Q6_K:
        blocks[:, 192:208] = random.integers(-8, 9, (len(blocks), 16)).astype(np.int8).view(np.uint8)
    for place, factor in FACTORS[kind]:
        values = (SPREAD * factor * random.uniform(0.7, 1.3, len(blocks))).astype("<f2")
        blocks[:, place : place + 2] = values.view(np.uint8).reshape(-1, 2)
    return np.resize(blocks, (*rows, columns // length * size))
