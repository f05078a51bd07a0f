"""The engine's kernels on NumPy arrays, for testing, benchmarking and building other things on them.

    blocks = quantize(weights, "Q8_0")              # float32[rows, columns] -> uint8[rows, bytes of a row]
    y = matmul(x, blocks, "Q8_0")                    # float32[tokens, columns] -> float32[tokens, rows]

Arrays are float32 (quantization blocks uint8) and contiguous in memory; results are new arrays. `isa` names the
instruction set to use instead of the fastest ("scalar", "avx2", "avx512", ...); the results are bit-identical. Raises
ValueError for invalid shapes, formats and names, and TypeError for arrays of another type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llamacpu import _native

__all__ = [
    "FORMATS",
    "Activation",
    "Format",
    "activate",
    "attention",
    "clamped_swiglu",
    "dequantize",
    "gated",
    "layer_norm",
    "matmul",
    "quantize",
    "requantize",
    "rms_norm",
    "rope",
    "soft_cap",
    "softmax",
    "swiglu",
]

_kernels = _native.kernels
Floats = NDArray[np.float32]
Blocks = NDArray[np.uint8]
Activation = Literal["silu", "gelu", "gelu_tanh", "gelu_sigmoid", "relu", "relu_squared", "sigmoid", "tanh"]
"""Activation functions of a feed-forward network. GELU (Hendrycks and Gimpel, 2016) has three forms: `x Φ(x)`
("gelu"), `x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2` ("gelu_tanh") and `x / (1 + exp(-1.702 x))` ("gelu_sigmoid")."""


class Format(NamedTuple):
    """A tensor type of GGUF."""

    name: str
    number: int
    """the type number in the tensor table of a file"""
    block_elements: int
    """weights in a block; rows consist of whole blocks"""
    block_bytes: int


FORMATS: dict[str, Format] = {row[0]: Format(*row) for row in _kernels.formats()}
"""Every format that can be read, by name."""


def quantize(
    x: Floats, format: str, importance: Floats | None = None, *, threads: int = 1, isa: str | None = None
) -> Blocks:
    """Quantize rows of weights (last axis) to blocks of `format`.

    importance  float32[columns]: how much an error in each column counts, as in an importance matrix; only the ratios
                matter. `None` for none. Q8_0, MXFP4, TQ1_0, TQ2_0 and plain floats do not use it.

    NVFP4 holds magnitudes up to 2688, and small ones badly: files store a factor of each matrix beside it, by which its
    weights are divided before.

    Q4_0 to Q8_0, MXFP4 and the ternary formats without importance are written as by the `gguf` package, byte for byte.
    The other formats, and all with importance, search for the scales and quants with the least weighted squared error.
    The result is the same for any number of threads. Raises ValueError for weights that are NaN, infinite or too large
    for the format's scales (halves: 65504; NVFP4: 2688), and for importance that is negative, not finite or of another
    length.
    """
    if not isinstance(x, np.ndarray) or x.dtype != np.float32:
        raise TypeError(f"x is {getattr(x, 'dtype', type(x).__name__)}; expected a float32 array")
    if x.ndim == 0:
        raise ValueError("x is a single number; expected an array of at least one dimension")
    if not x.flags.c_contiguous:
        raise ValueError("x is not contiguous in memory; pass numpy.ascontiguousarray(x)")
    return requantize(x.view(np.uint8), "F32", format, importance, threads=threads, isa=isa)


def requantize(
    data: Blocks,
    source: str,
    format: str,
    importance: Floats | None = None,
    *,
    threads: int = 1,
    isa: str | None = None,
) -> Blocks:
    """Convert rows of blocks (last axis, in bytes) of the format `source` to blocks of `format`: see `quantize`."""
    return _kernels.convert(data, source, format, importance, _threads(threads), isa)


def dequantize(data: Blocks, format: str) -> Floats:
    """Dequantize rows of blocks (last axis, in bytes) to weights."""
    return _kernels.dequantize(data, format)


def matmul(
    x: Floats, weights: Blocks | Floats, format: str | None = None, *, threads: int = 1, isa: str | None = None
) -> Floats:
    """Compute `x @ W.T`: activations float32[tokens, columns] times a matrix W[rows, columns].

    weights  uint8[rows, bytes of a row] in `format`, or float32[rows, columns] without one

    With quantized weights the activations are rounded to 8 bits, with one scale per 32 elements, as in the engine.
    """
    if format is None:
        if weights.dtype != np.float32:
            raise TypeError(f"weights are {weights.dtype}; expected float32, or uint8 blocks and their format")
        weights, format = np.ascontiguousarray(weights).view(np.uint8), "F32"
    return _kernels.matmul(x, weights, format, _threads(threads), isa)


def rms_norm(x: Floats, weight: Floats | None = None, epsilon: float = 1e-5, *, isa: str | None = None) -> Floats:
    """Compute `x / sqrt(mean(x²) + epsilon) * weight` for every row (last axis); `weight` may be omitted.

    B. Zhang and R. Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    return _kernels.norm(x, False, weight, None, epsilon, isa)


def layer_norm(
    x: Floats,
    weight: Floats | None = None,
    bias: Floats | None = None,
    epsilon: float = 1e-5,
    *,
    isa: str | None = None,
) -> Floats:
    """Compute `(x - mean) / sqrt(mean((x - mean)²) + epsilon) * weight + bias` for every row (last axis).

    Weight and bias, float32[row], may be omitted. J. Ba et al., "Layer Normalization", 2016.
    """
    return _kernels.norm(x, True, weight, bias, epsilon, isa)


def rope(
    x: Floats,
    positions: Sequence[int],
    *,
    base: float = 10000.0,
    size: int | None = None,
    style: Literal["interleaved", "neox"] = "interleaved",
    scaling: Literal["none", "linear", "yarn"] = "none",
    factor: float = 1.0,
    original_context: int = 4096,
    factors: Sequence[float] | None = None,
    isa: str | None = None,
) -> Floats:
    """Rotate the heads x[tokens, heads, head size] by the positions of their tokens.

    size     elements of a head that are rotated, the rest are left unchanged; `None` for all
    style    rotate pairs of adjacent elements, or of elements half the size apart ("neox")
    scaling  how positions are scaled for contexts longer than the original one, by `factor`
    factors  divisors of the frequencies, one per pair (Llama 3.1 and later)
    """
    settings = {
        "rope_size": x.shape[-1] if size is None else size,
        "rope_base": base,
        "rope_style": style,
        "rope_scaling": scaling,
        "rope_factor": factor,
        "rope_original_context": original_context,
        "yarn_ext_factor": 1.0,
        "yarn_attn_factor": 1.0,
        "yarn_beta_fast": 32.0,
        "yarn_beta_slow": 1.0,
    }
    numbers = [int(position) for position in positions]
    if any(position < 0 for position in numbers):
        raise ValueError(f"position {min(numbers)}; expected none below 0")
    return _kernels.rope(x, numbers, settings, None if factors is None else [float(f) for f in factors], isa)


def attention(
    queries: Floats,
    keys: Floats,
    values: Floats | None,
    *,
    scale: float | None = None,
    kv_type: Literal["f32", "f16", "i16", "q8_0"] = "f32",
    causal: bool = True,
    window: int | None = None,
    chunk: int | None = None,
    soft_cap: float | None = None,
    sinks: Floats | None = None,
    bias: Floats | None = None,
    slopes: Floats | None = None,
    value_size: int | None = None,
    threads: int = 1,
    isa: str | None = None,
) -> Floats:
    """Compute the attention of the last n of m tokens: float32[n, heads, value size].

    queries     float32[n, heads, key size]; the first belongs to token m - n
    keys        float32[m, kv heads, key size]; each group of heads / kv heads adjacent query heads shares one
    values      float32[m, kv heads, value size]; `None`: the first `value_size` elements of the keys, stored once
    scale       factor of the scores; `None` for 1 / sqrt(key size)
    kv_type     how keys and values are stored for the computation; "i16" (16-bit integers with a scale for each row) is
                that of vision encoders with quantized weights, and needs `values`
    causal      whether a token attends only to tokens up to itself; otherwise to all m
    window      how many of the last tokens a token attends to, including itself
    chunk       length of the chunks, counted from the first token, within which tokens attend to each other
    soft_cap    scores become `soft_cap * tanh(score / soft_cap)`
    sinks       float32[heads]: scores without values that take part in the softmax
    bias        float32[heads, n, m]: added to the scores, after the soft cap
    slopes      float32[heads]: their products with the distance between the two tokens are subtracted from the scores,
                after the soft cap (ALiBi, Press et al. 2021)
    """
    if (not causal) + (window is not None) + (chunk is not None) > 1:
        raise ValueError("more than one of causal=False, window and chunk; expected one of them")
    seen, span = "causal" if causal else "all", 0
    for name, size in (("window", window), ("chunk", chunk)):
        if size is not None:
            if size < 1:
                raise ValueError(f"{name} is {size}; expected at least 1")
            seen, span = name, size
    if (values is None) != (value_size is not None):
        raise ValueError("either values or value_size is wanted: without values, value_size of the keys are the values")
    factor = max(queries.shape[-1], 1) ** -0.5 if scale is None else scale
    size = 0 if value_size is None else value_size
    if size < 0:
        raise ValueError(f"value_size is {size}; expected at least 1")
    workers = _threads(threads)
    return _kernels.attention(
        queries, keys, values, size, factor, seen, span, soft_cap, sinks, bias, slopes, kv_type, workers, isa
    )


def softmax(x: Floats, *, isa: str | None = None) -> Floats:
    """Compute `exp(x - max) / sum(exp(x - max))` for every row (last axis)."""
    return _kernels.softmax(x, isa)


def swiglu(gate: Floats, up: Floats, *, isa: str | None = None) -> Floats:
    """Compute `gate / (1 + exp(-gate)) * up` elementwise (Shazeer, "GLU Variants Improve Transformer", 2020)."""
    return _kernels.activate(gate, up, "silu", isa)


def gated(gate: Floats, up: Floats, activation: Activation, *, isa: str | None = None) -> Floats:
    """Compute `activation(gate) * up` elementwise: SwiGLU, GeGLU, ReGLU and the like."""
    return _kernels.activate(gate, up, activation, isa)


def activate(x: Floats, activation: Activation, *, isa: str | None = None) -> Floats:
    """Compute `activation(x)` elementwise."""
    return _kernels.activate(x, None, activation, isa)


def clamped_swiglu(
    gate: Floats, up: Floats, *, slope: float = 1.702, limit: float = 7.0, isa: str | None = None
) -> Floats:
    """Compute `gate / (1 + exp(-slope * gate)) * (up + 1)` elementwise, as in the feed-forward network of gpt-oss.

    Before that, `gate` is clamped to at most `limit`, and `up` to the range from `-limit` to `limit`.
    """
    return _kernels.clamped_swiglu(gate, up, slope, limit, isa)


def soft_cap(x: Floats, cap: float, *, isa: str | None = None) -> Floats:
    """Compute `cap * tanh(x / cap)` elementwise: close to x where x is small, never beyond the cap (Gemma 2)."""
    if not 0.0 < cap < float("inf"):
        raise ValueError(f"cap is {cap}; expected a positive number")
    return _kernels.soft_cap(x, cap, isa)


def _threads(threads: int) -> int:
    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    return threads
