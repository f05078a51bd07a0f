"""The kernels on NumPy arrays: against NumPy, against the `gguf` package, and every instruction set against scalar."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize as gguf_dequantize
from gguf.quants import quantize as gguf_quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamacpu import _native, kernels
from reference_llama import silu
from reference_llama import softmax as exact_softmax

Floats = NDArray[np.float32]

ISAS: list[str] = _native.cpu_facts()["available"]
FORMATS = sorted(kernels.FORMATS)
FLOATS = ("F32", "F16", "BF16")


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def blocks_of(name: str, rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rows of blocks."""
    return kernels.quantize(normal(rows, columns, seed=seed), name)


def test_the_table_agrees_with_the_gguf_package() -> None:
    assert {"F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"} <= set(FORMATS)
    for name, form in kernels.FORMATS.items():
        kind = gguf.GGMLQuantizationType[name]
        assert form == (name, int(kind), *gguf.GGML_QUANT_SIZES[kind])


@pytest.mark.parametrize("name", FORMATS)
def test_dequantize_is_that_of_the_gguf_package(name: str) -> None:
    blocks = blocks_of(name, 6, 512)
    expected = gguf_dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(6, 512)
    np.testing.assert_allclose(kernels.dequantize(blocks, name), expected, rtol=1e-6, atol=1e-7)


# The gguf package writes neither the K formats nor the IQ4 ones, and rounds to none of the others.
SEARCHED = [name for name in FORMATS if name.endswith("_K") or name.startswith("IQ")] + ["NVFP4", "Q2_0"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in SEARCHED])
def test_quantize_writes_the_bytes_of_the_gguf_package(name: str) -> None:
    x = normal(5, 256)
    expected = gguf_quantize(x, gguf.GGMLQuantizationType[name]).view(np.uint8)
    assert np.array_equal(kernels.quantize(x, name), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "TQ1_0", "TQ2_0"])
def test_quantize_rounds_what_lies_halfway_as_the_gguf_package_does(name: str, isa: str) -> None:
    random = np.random.default_rng(3)
    # Of numbers on a coarse grid, many lie halfway between two quants, and many blocks hold x and -x as their largest.
    x = random.integers(-16, 17, (67, 256)) * random.choice([0.25, 1.0, 1.27 / 16, 3.0], (67, 1))
    x[3], x[5], x[7], x[11:13, :32] = 0, 0.75, -3, 0
    x[13, ::32], x[14], x[15] = 4000, np.abs(x[14]) + 1, -np.abs(x[15]) - 1
    x[16, ::5] = 0.0
    floats = x.astype(np.float32)
    expected = gguf_quantize(floats, gguf.GGMLQuantizationType[name]).view(np.uint8)
    assert np.array_equal(kernels.quantize(floats, name, isa=isa), expected)


@pytest.mark.parametrize("isa", ISAS)
def test_the_first_of_several_zeros_is_the_minimum(isa: str) -> None:
    x = np.ones((2, 32), np.float32)
    x[0, [3, 20]], x[1, [3, 20]] = (-0.0, 0.0), (0.0, -0.0)
    for name in ("Q4_1", "Q5_1"):
        assert kernels.quantize(x, name, isa=isa)[:, 2:4].tolist() == [[0, 128], [0, 0]]
        # A range of zeros of both signs is not below zero.
        assert not kernels.quantize(np.where(x == 1, np.float32(0), x), name, isa=isa)[:, :2].any()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e4])
def test_quantized_weights_are_near(name: str, scale: float) -> None:
    x = normal(8, 512) * np.float32(scale)
    # As in files: the largest weight becomes the largest number.
    factor = np.abs(x).max() / np.float32(2688) if name == "NVFP4" else np.float32(1)
    back = factor * kernels.dequantize(kernels.quantize(x / factor, name), name)
    error = ((back - x) ** 2).sum() / (x**2).sum()
    form = kernels.FORMATS[name]
    # The step of blocks of b bits is 2^-b of their largest number. Ternary formats are made for ternary weights.
    exceptions = {"F32": 0.0, "F16": 2e-7, "BF16": 1e-5, "TQ1_0": 0.7, "TQ2_0": 0.7}
    exceptions |= {"Q1_0": 0.4, "Q2_0": 0.2}
    exceptions |= {"IQ1_S": 0.24, "IQ1_M": 0.22, "IQ2_XXS": 0.13, "IQ2_XS": 0.1, "IQ2_S": 0.07}
    limit = exceptions.get(name, 4.0 ** (1.5 - form.block_bytes * 8 / form.block_elements))
    assert error <= limit


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", FORMATS)
def test_matmul_against_exact_arithmetic(name: str, isa: str) -> None:
    blocks, x = blocks_of(name, 37, 512), normal(9, 512, seed=1)
    exact = x.astype(np.float64) @ kernels.dequantize(blocks, name).astype(np.float64).T
    got = kernels.matmul(x, blocks, name, isa=isa, threads=2)
    assert got.shape == (9, 37)
    # Activations are rounded to 8 bits, one scale per 32, except for the float formats.
    limit = 1e-12 if name in FLOATS else 1e-4
    assert ((got - exact) ** 2).sum() / (exact**2).sum() < limit


@pytest.mark.parametrize("name", FORMATS)
def test_matmul_is_the_same_for_any_way_of_computing_it(name: str) -> None:
    blocks, x = blocks_of(name, 70, 256), normal(11, 256, seed=1)
    expected = kernels.matmul(x, blocks, name, isa="scalar")
    for isa in ISAS:
        for threads in (1, 3):
            assert np.array_equal(kernels.matmul(x, blocks, name, isa=isa, threads=threads), expected)
        for row in range(len(x)):
            assert np.array_equal(kernels.matmul(x[row : row + 1], blocks, name, isa=isa)[0], expected[row])
        assert np.array_equal(kernels.matmul(x, blocks[3:20].copy(), name, isa=isa), expected[:, 3:20])


def test_matmul_with_plain_weights() -> None:
    x, weights = normal(3, 40), normal(7, 40, seed=1)
    np.testing.assert_allclose(kernels.matmul(x, weights), x @ weights.T, rtol=1e-5, atol=1e-5)
    assert kernels.matmul(x[:0], weights).shape == (0, 7)


@pytest.mark.skipif("amx-software" not in ISAS, reason="tiles of AMX are a matter of x86-64")
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in FLOATS])
def test_tiles_change_no_bit(name: str) -> None:
    """Whole tiles of 16 tokens and parts of them, rows that fill no group, more columns than a panel holds."""
    x = normal(40, 8192 + 256, seed=4)
    blocks = blocks_of(name, 37, x.shape[1], seed=5)
    expected = kernels.matmul(x, blocks, name, isa="scalar", threads=2)
    for isa in ("amx-software", "amx-software,-avx2", *(isa for isa in ISAS if isa == "amx")):
        for tokens, threads in ((40, 2), (32, 1), (17, 2), (13, 1)):
            assert np.array_equal(kernels.matmul(x[:tokens], blocks, name, isa=isa, threads=threads), expected[:tokens])


@pytest.mark.parametrize("isa", ISAS)
def test_rms_norm(isa: str) -> None:
    x, weight = normal(4, 3, 200), normal(200, seed=1)
    exact = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-3) * weight
    np.testing.assert_allclose(kernels.rms_norm(x, weight, 1e-3, isa=isa), exact, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("isa", ISAS)
@given(rows=st.lists(st.lists(st.floats(-90, 90, width=32), min_size=1, max_size=70), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_softmax(isa: str, rows: list[list[float]]) -> None:
    for row in rows:
        x = np.array(row, dtype=np.float32)
        np.testing.assert_allclose(
            kernels.softmax(x, isa=isa), exact_softmax(x.astype(np.float64)), rtol=1e-5, atol=1e-37
        )


@pytest.mark.parametrize("isa", ISAS)
def test_swiglu(isa: str) -> None:
    gate, up = normal(5, 33) * 20, normal(5, 33, seed=1)
    exact = silu(gate.astype(np.float64)) * up
    np.testing.assert_allclose(kernels.swiglu(gate, up, isa=isa), exact, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("style", ["interleaved", "neox"])
@pytest.mark.parametrize(("size", "factor"), [(16, 1.0), (10, 4.0)])
def test_rope(isa: str, style: Any, size: int, factor: float) -> None:
    x, positions = normal(3, 2, 16), [0, 7, 100_000]
    factors = np.linspace(1, 2, size // 2)
    scaling: Any = "none" if factor == 1.0 else "linear"
    got = kernels.rope(
        x,
        positions,
        base=5e5,
        size=size,
        style=style,
        scaling=scaling,
        factor=factor,
        factors=factors.tolist(),
        isa=isa,
    )
    angle = np.array(positions)[:, None] * 5e5 ** (-np.arange(0, size, 2) / size) / factors.astype(np.float32) / factor
    turn = np.exp(1j * angle)[:, None]
    first, second = (slice(0, size, 2), slice(1, size, 2))
    if style == "neox":
        first, second = slice(0, size // 2), slice(size // 2, size)
    turned = (x[..., first].astype(np.float64) + 1j * x[..., second]) * turn
    expected = x.astype(np.float64)
    expected[..., first], expected[..., second] = turned.real, turned.imag
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("weighted", "biased"), [(False, False), (True, False), (True, True), (False, True)])
def test_norms(isa: str, weighted: bool, biased: bool) -> None:
    x = normal(4, 3, 77) * 5 + 20
    weight, bias = normal(77, seed=1) if weighted else None, normal(77, seed=2) if biased else None
    x64 = x.astype(np.float64)
    centred = x64 - x64.mean(-1, keepdims=True)
    exact = centred / np.sqrt(x64.var(-1, keepdims=True) + 1e-3)
    exact = exact * (1 if weight is None else weight) + (0 if bias is None else bias)
    np.testing.assert_allclose(kernels.layer_norm(x, weight, bias, 1e-3, isa=isa), exact, rtol=1e-5, atol=3e-6)
    if not biased:
        rms = x64 / np.sqrt((x64**2).mean(-1, keepdims=True) + 1e-3) * (1 if weight is None else weight)
        np.testing.assert_allclose(kernels.rms_norm(x, weight, 1e-3, isa=isa), rms, rtol=1e-5, atol=1e-6)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


ACTIVATIONS: dict[Any, Callable[[Any], Any]] = {
    "silu": silu,
    "gelu": lambda x: 0.5 * x * np.vectorize(math.erfc)(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
    "gelu_sigmoid": lambda x: x * sigmoid(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(isa: str, name: Any) -> None:
    x, up = normal(7, 333) * 3, normal(7, 333, seed=1)
    exact = ACTIVATIONS[name](x.astype(np.float64))
    np.testing.assert_allclose(kernels.activate(x, name, isa=isa), exact, rtol=4e-6, atol=1e-12)
    np.testing.assert_allclose(kernels.gated(x, up, name, isa=isa), exact * up, rtol=4e-6, atol=1e-12)
    assert np.array_equal(kernels.activate(x, name, isa=isa), kernels.activate(x, name, isa="scalar"))


@pytest.mark.parametrize("isa", ISAS)
def test_clamped_swiglu_and_soft_cap(isa: str) -> None:
    gate, up = normal(5, 33) * 8, normal(5, 33, seed=1) * 8
    bounded = np.minimum(gate.astype(np.float64), 7)
    exact = bounded * sigmoid(1.702 * bounded) * (np.clip(up, -7, 7).astype(np.float64) + 1)
    np.testing.assert_allclose(kernels.clamped_swiglu(gate, up, isa=isa), exact, rtol=3e-6, atol=1e-6)
    np.testing.assert_allclose(kernels.soft_cap(gate, 6.0, isa=isa), 6 * np.tanh(gate / 6.0), rtol=1e-6)


X, W = normal(4, 64), normal(8, 64, seed=1)
Q = kernels.quantize(W, "Q8_0")
HEADS = normal(2, 4, 8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.quantize(X, "Q9_9"), "expected one of F32"),
        (lambda: kernels.layer_norm(X, X), "rows of 64, weight the shape"),
        (lambda: kernels.layer_norm(X, None, X), "rows of 64, bias the shape"),
        (lambda: kernels.activate(X, cast(Any, "swish")), "expected one of silu"),
        (lambda: kernels.gated(X, W, "gelu"), "expected the same"),
        (lambda: kernels.clamped_swiglu(X, W), "expected the same"),
        (lambda: kernels.soft_cap(X, 0.0), "expected a positive number"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, soft_cap=-1.0), "expected a positive cap"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, sinks=X), "sinks has the shape"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, bias=X), "bias has the shape"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, window=0), "window is 0"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, window=1, chunk=2), "expected one of them"),
        (lambda: kernels.attention(HEADS, HEADS, None), "either values or value_size"),
        (lambda: kernels.attention(HEADS, HEADS, None, value_size=9), "no longer than the keys"),
        (lambda: kernels.attention(HEADS, HEADS, None, value_size=-1), "value_size is -1"),
        (lambda: kernels.quantize(X, "Q4_K"), "multiple of 256"),
        (lambda: kernels.quantize(np.zeros((), dtype=np.float32), "F32"), "at least one dimension"),
        (lambda: kernels.dequantize(Q[:, :33].copy(), "Q8_0"), "multiple of 34"),
        (lambda: kernels.dequantize(Q[:, ::2], "Q8_0"), "ascontiguousarray"),
        (lambda: kernels.matmul(X.T, W), "ascontiguousarray"),
        (lambda: kernels.matmul(X[:, :32].copy(), W), "rows of 32, the weights rows of 64"),
        (lambda: kernels.matmul(X, Q[0], "Q8_0"), "rows . bytes"),
        (lambda: kernels.matmul(X, Q, "Q8_0", isa="mmx"), "mmx"),
        (lambda: kernels.matmul(X, Q, "Q8_0", threads=0), "threads"),
        (lambda: kernels.matmul(X, Q, "Q8_0", threads=10**6), "threads"),
        (lambda: kernels.rms_norm(X, W[0, :5].copy()), "expected the same"),
        (lambda: kernels.swiglu(X, W), "expected the same"),
        (lambda: kernels.rope(X, [0]), "tokens . heads"),
        (lambda: kernels.rope(HEADS, [0]), "1 positions for 2 tokens"),
        (lambda: kernels.rope(HEADS, [0, -1]), "position -1"),
        (lambda: kernels.rope(HEADS, [0, 1], size=7), "7"),
        (lambda: kernels.rope(HEADS, [0, 1], size=10), "10"),
        (lambda: kernels.rope(HEADS, [0, 1], factors=[1.0]), "factors"),
        (lambda: kernels.rope(HEADS, [0, 1], style="other"), "rope_style"),  # type: ignore[arg-type]
        (lambda: kernels.attention(HEADS, HEADS[:1], HEADS[:1]), "expected"),
        (lambda: kernels.attention(HEADS, HEADS[:, :3].copy(), HEADS[:, :3].copy()), "expected"),
        (lambda: kernels.attention(HEADS, HEADS, HEADS, kv_type="f8"), "kv_type"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernels.quantize(X.astype(np.float64), "F32"),  # type: ignore[arg-type]
        lambda: kernels.matmul(X, Q.astype(np.int8), "Q8_0"),  # type: ignore[arg-type]
        lambda: kernels.matmul(X, W.astype(np.float64)),  # type: ignore[arg-type]
        lambda: kernels.rms_norm([[1.0]], X[0].copy()),  # type: ignore[arg-type]
    ],
)
def test_arrays_of_another_type(call: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        call()


def test_cpu_facts() -> None:
    facts = _native.cpu_facts()
    assert facts["available"][0] == "scalar"
    assert facts["chosen"] in facts["available"]
    assert set(facts["chosen_features"]) <= set(facts["processor_features"])
    assert facts["threads"] >= 1
    assert facts["threads_reason"]


@pytest.mark.parametrize("name", ISAS)
def test_the_forced_instruction_set_decides_the_features(name: str) -> None:
    """Optional features included: AVX-512 VBMI belongs to avx512 and to nothing else, and can be left out of it."""
    facts = _facts(LLAMACPU_ISA=name)
    assert facts["chosen"] == name
    optional = "avx512vbmi"
    assert (optional in facts["chosen_features"]) == (name == "avx512" and optional in facts["processor_features"])
    if name == "avx512":
        less = _facts(LLAMACPU_ISA=f"{name},-{optional}")
        assert less["chosen"] == name
        assert less["chosen_features"] == [feature for feature in facts["chosen_features"] if feature != optional]


def _facts(**environment: str) -> dict[str, Any]:
    code = "import json; from llamacpu import _native; print(json.dumps(_native.cpu_facts()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_memory_bandwidth_is_what_was_read_in_the_time_it_took() -> None:
    for nbytes in (4 << 20, 64 << 20):
        start = time.perf_counter()
        rate = _native.memory_bandwidth(nbytes, threads=1)
        # All of it was read at least once since the start, which the best rate of several rounds cannot be below.
        assert nbytes / (time.perf_counter() - start) / 1e9 <= rate < 10_000


@pytest.mark.parametrize("call", [_native.memory_bandwidth, _native.product_peak])
def test_rates_of_impossible_thread_counts(call: Any) -> None:
    for threads in (0, 10**6):
        with pytest.raises(ValueError, match="threads"):
            call(threads=threads)
