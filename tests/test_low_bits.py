"""NVFP4, Q1_0 and Q2_0: the search for scales against all scales, and factors of matrices in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize as gguf_dequantize

import llamacpu
from gguf_types import E2M1, E4M3
from llamacpu import Model, _native, kernels
from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.writer import NewTensor, copied_tensor, typed_metadata, write_gguf
from lora_files import write_adapter
from tiny_models import QUANTIZABLE, VARIANTS, replace, write_model

SCALES = E4M3[1:127]


def errors(x: Any, values: Any, scales: Any, weights: Any) -> Any:
    """Weighted squared error of blocks (rows) with each scale (column) and the nearest of its values."""
    steps = scales[None, :, None] * values
    nearest = np.abs(x[:, None, :, None] - steps[:, :, None, :]).min(axis=-1)
    return (weights[:, None] * nearest**2).sum(axis=-1)


@pytest.mark.parametrize("isa", _native.cpu_facts()["available"])
@pytest.mark.parametrize("size", [100.0, 1.0, 0.003])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_scale_of_nvfp4_is_better(size: float, weighted: bool, isa: str | None) -> None:
    random = np.random.default_rng(4)
    x = (size * random.standard_normal((24, 64)) * random.choice([1.0, 0.1], (24, 64))).astype(np.float32)
    importance = np.exp(random.standard_normal(64)).astype(np.float32) if weighted else None
    back = kernels.dequantize(kernels.quantize(x, "NVFP4", importance, isa=isa), "NVFP4")
    weights = np.broadcast_to(1.0 if importance is None else importance, x.shape).reshape(-1, 16)
    got = (weights * (back - x).reshape(-1, 16).astype(float) ** 2).sum(axis=-1)
    best = errors(x.reshape(-1, 16).astype(float), E2M1.astype(float), SCALES.astype(float), weights).min(axis=-1)
    assert np.all(got <= best * (1 + 1e-5))


@pytest.mark.parametrize("weighted", [False, True])
def test_few_scales_of_q2_0_are_better(weighted: bool) -> None:
    random = np.random.default_rng(5)
    x = random.standard_normal((24, 64)).astype(np.float32)
    importance = np.exp(random.standard_normal(64)).astype(np.float32) if weighted else None
    back = kernels.dequantize(kernels.quantize(x, "Q2_0", importance), "Q2_0")
    # With an importance matrix, larger weights count more, as in the other formats.
    weights = np.ones_like(x) if importance is None else importance * np.sqrt((x**2).mean(-1, keepdims=True) + x**2)
    got = (weights * (back - x).astype(float) ** 2).sum(axis=-1)
    scales = np.linspace(-3, 3, 1201)
    best = errors(x.astype(float), np.arange(-1.0, 3), scales, weights).min(axis=-1)
    assert np.all(got <= best * 1.05)
    assert got.sum() <= best.sum() * 1.01


def test_ternary_weights_stay_as_they_are_in_q2_0() -> None:
    random = np.random.default_rng(6)
    x = (random.integers(-1, 2, (9, 256)) * np.float32(0.375)).astype(np.float32)
    assert np.array_equal(kernels.dequantize(kernels.quantize(x, "Q2_0"), "Q2_0"), x)


def test_the_mean_magnitude_is_the_scale_of_q1_0() -> None:
    random = np.random.default_rng(7)
    x, importance = random.standard_normal((5, 256)).astype(np.float32), np.exp(random.standard_normal(256))
    back = np.abs(kernels.dequantize(kernels.quantize(x, "Q1_0", importance.astype(np.float32)), "Q1_0"))
    parts = (np.abs(x) * importance).reshape(5, 2, 128).sum(-1) / importance.reshape(2, 128).sum(-1)
    np.testing.assert_allclose(back.reshape(5, 2, 128).mean(-1), parts, rtol=1e-3)


def with_factors(source: Path, target: Path, factors: dict[str, list[float]]) -> Path:
    """A copy of a model in which some matrices are divided by NAME.scale, with input scales that change nothing."""
    with GGUFFile(source) as file:
        tensors = []
        for tensor in file.tensors:
            given = factors.get(tensor.name)
            if given is None:
                tensors.append(copied_tensor(file, tensor))
                continue
            values = np.frombuffer(file.tensor_bytes(tensor, 0, tensor.nbytes), "<f4")
            divided = values.reshape(len(given), -1) / np.array(given, np.float32)[:, None]
            tensors.append(NewTensor(tensor.name, tensor.shape[::-1], "F32", lambda data=divided: [data]))
            stem = tensor.name.removesuffix(".weight")
            for ending, numbers in (("scale", given), ("input_scale", [3.0] * len(given))):
                row = np.array(numbers, np.float32)
                tensors.append(NewTensor(f"{stem}.{ending}", row.shape, "F32", lambda data=row: [data]))
        write_gguf(target, dict(typed_metadata(file.metadata)), tensors)
    return target


@pytest.mark.parametrize("variant", ["mha", "fused", "mixtral", "experts-fused", "experts-single"])
def test_factors_of_matrices_are_applied(variant: str, tmp_path: Path) -> None:
    """Powers of two, so that nothing is rounded: the same logits, to the last bit, whichever way they are computed."""
    plain = write_model(tmp_path / "plain.gguf", VARIANTS[variant], seed=3)
    with GGUFFile(plain) as file:
        matrices = [tensor for tensor in file.tensors if len(tensor.shape) > 1 and tensor.name.endswith(".weight")]
    powers = [2.0, 0.25, 8.0, 0.5]
    factors = {
        tensor.name: [powers[(place + part) % 4] for part in range(tensor.shape[2] if len(tensor.shape) > 2 else 1)]
        for place, tensor in enumerate(matrices)
    }
    scaled = with_factors(plain, tmp_path / "scaled.gguf", factors)
    tokens = list(range(3, 40))
    with Model(plain) as model, Model(scaled, threads=2) as other:
        expected = model.session().forward(tokens, logits="all")
        session = other.session()
        got = [session.forward(tokens[:30], logits="all"), *(session.forward([token])[None] for token in tokens[30:])]
        assert np.array_equal(np.concatenate(got), expected)


def test_an_adapter_is_merged_into_a_matrix_with_a_factor(tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.gguf", VARIANTS["mha"], seed=3)
    name = "blk.0.ffn_up.weight"
    scaled = with_factors(plain, tmp_path / "scaled.gguf", {name: [0.25]})
    random = np.random.default_rng(1)
    pair = {name: (random.standard_normal((4, 64)) / 8, random.standard_normal((96, 4)))}
    adapter = write_adapter(tmp_path / "adapter.gguf", pair)
    merged = [llamacpu.merge(path, adapter, tmp_path / f"merged {path.name}") for path in (plain, scaled)]
    with Model(merged[0]) as model, Model(merged[1]) as other, Model(scaled, lora=[(adapter, 1.0)]) as third:
        expected, got, applied = (
            one.session(kv_type="f32").forward([1, 2, 3], logits="all") for one in (model, other, third)
        )
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(applied, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("factors", "words"), [([1.0, 2.0], "shape"), ([float("nan")], "finite")])
def test_wrong_factors_are_refused(factors: list[float], words: str, tmp_path: Path) -> None:
    plain = write_model(tmp_path / "plain.gguf", VARIANTS["mha"])
    with pytest.raises(ModelError, match=words):
        Model(with_factors(plain, tmp_path / "wrong.gguf", {"blk.0.ffn_up.weight": factors}))


@pytest.mark.parametrize("experts", [0, 3])
def test_files_in_nvfp4_have_factors(experts: int, tmp_path: Path) -> None:
    shape = replace(QUANTIZABLE, tied=False, experts=experts, experts_used=min(experts, 2), feed_forward=256)
    source = write_model(tmp_path / "source.gguf", shape, seed=2)
    target = tmp_path / "nvfp4.gguf"
    done = llamacpu.quantize(source, target, "NVFP4", threads=2)
    assert done.preset == "NVFP4"
    old = {tensor.name: tensor.data.reshape(tensor.data.shape) for tensor in GGUFReader(source).tensors}
    new = {tensor.name: tensor for tensor in GGUFReader(target).tensors}
    changed = [change.name for change in done.changes if change.after == "NVFP4"]
    assert len(changed) >= 14
    assert "token_embd.weight" not in changed
    for name in changed:
        factors = new[name.replace(".weight", ".scale")].data
        assert factors.size == (experts if "_exps" in name else 1)
        weights = gguf_dequantize(new[name].data, gguf.GGMLQuantizationType["NVFP4"]).reshape(factors.size, -1)
        exact = old[name].reshape(factors.size, -1)
        assert (((weights * factors[:, None] - exact) ** 2).sum(axis=-1) / (exact**2).sum(axis=-1) < 0.012).all()
    tokens = list(range(3, 40))
    with Model(source) as model, Model(target) as other:
        exact, got = (one.session(kv_type="f32").forward(tokens, logits="all") for one in (model, other))
        # Random weights: each layer multiplies the errors of those before it.
        assert ((got - exact) ** 2).sum() / (exact**2).sum() < 0.4
    again = tmp_path / "again.gguf"
    llamacpu.quantize(target, again, "Q8_0", allow_requantize=True)
    with Model(again) as model:
        back = model.session(kv_type="f32").forward(tokens, logits="all")
        assert ((got - back) ** 2).sum() / (got**2).sum() < 0.02


@pytest.mark.parametrize("kind", ["MXFP4", "NVFP4", "Q1_0", "Q2_0"])
def test_every_matrix_may_be_of_these_types(kind: str, tmp_path: Path) -> None:
    """Also embeddings and output; with few tokens and many the same bits."""
    shape = replace(QUANTIZABLE, tied=False)
    source = write_model(tmp_path / "source.gguf", shape, seed=2)
    target = tmp_path / "target.gguf"
    done = llamacpu.quantize(source, target, "Q8_0", tensor_types={".*": kind})
    assert {change.after for change in done.changes if len(change.shape) > 1} == {kind}
    tokens = list(range(3, 40))
    with Model(target) as model:
        whole = model.session().forward(tokens, logits="all")
        session = model.session()
        assert np.array_equal(np.stack([session.forward([token]) for token in tokens]), whole)
