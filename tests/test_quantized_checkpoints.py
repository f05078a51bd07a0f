"""Quantized checkpoints become the floats that their definitions give, packed here bit by bit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from checkpoint_files import Stored, bfloat16, safetensors_bytes
from llamacpu import Checkpoint, CheckpointError

INPUTS, OUTPUTS = 64, 32
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # which column lies in the first, second ... four bits of a word


def words(values: list[int], bits: int) -> int:
    """A 32-bit word, signed, of the fields in `values`, the first lowest."""
    word = sum(int(value) << bits * place for place, value in enumerate(values))
    return word - (1 << 32) if word >> 31 else word


def packed(values: NDArray[Any], bits: int, axis: int, order: tuple[int, ...] | None = None) -> NDArray[np.int32]:
    """Words along one of two axes; what is missing to a whole word is zero."""
    per_word = 32 // bits
    rows = values if axis == 1 else values.T
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per_word)))
    order = order or tuple(range(per_word))
    result = np.array(
        [
            [words([row[first + place] for place in order], bits) for first in range(0, len(row), per_word)]
            for row in rows.tolist()
        ],
        np.int32,
    )
    return result if axis == 1 else np.ascontiguousarray(result.T)


def opened(folder: Path, tensors: dict[str, Stored], quantization: Any = None, **files: Any) -> Checkpoint:
    (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    config = {"model_type": "llama"} | ({} if quantization is None else {"quantization_config": quantization})
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return Checkpoint.open(folder)


def check(checkpoint: Checkpoint, name: str, expected: NDArray[np.float32]) -> None:
    tensor = checkpoint.tensors[name]
    assert (tensor.name, tensor.dtype, tensor.shape) == (name, "F32", expected.shape)
    assert expected.dtype == np.float32
    np.testing.assert_array_equal(tensor.read(), expected)
    np.testing.assert_array_equal(np.concatenate(list(tensor.pieces(1000))), expected)
    for start, stop in ((0, 0), (0, 1), (3, 11), (8, 16), (5, len(expected))):
        np.testing.assert_array_equal(tensor.rows(start, stop), expected[start:stop])
    with pytest.raises(ValueError, match="rows"):
        tensor.rows(0, len(expected) + 1)


def layer(bits: int, size: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float16]]:
    """Quants (inputs, outputs), zeros and scales (groups, outputs)."""
    generator = np.random.default_rng(seed)
    groups = INPUTS // size
    quants = generator.integers(0, 1 << bits, (INPUTS, OUTPUTS))
    zeros = generator.integers(1, 1 << bits, (groups, OUTPUTS))
    return quants, zeros, generator.standard_normal((groups, OUTPUTS)).astype(np.float16)


def floats(quants: NDArray[Any], zeros: NDArray[Any], scales: NDArray[Any], group: NDArray[Any]) -> NDArray[np.float32]:
    """The definition, element by element, transposed to (outputs, inputs)."""
    result = np.zeros(quants.shape[::-1], np.float32)
    for i, o in np.ndindex(quants.shape):
        result[o, i] = np.float32(scales[group[i], o]) * np.float32(quants[i, o] - zeros[group[i], o])
    return result


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": False, "sym": True}


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("index", ["none", "in order", "by activation"])
def test_gptq(tmp_path: Path, bits: int, form: str, index: str) -> None:
    quants, zeros, scales = layer(bits, 16)
    group = np.arange(INPUTS, dtype=np.int32) // 16
    tensors: dict[str, Stored] = {"model.norm.weight": np.ones(3, np.float32), "a.bias": np.zeros(OUTPUTS, np.float16)}
    if index == "by activation":
        group = np.random.default_rng(1).permutation(group)
    if index != "none":
        tensors["a.g_idx"] = group
    stored = zeros - 1 if form == "gptq" else zeros
    tensors |= {"a.qweight": packed(quants, bits, 0), "a.qzeros": packed(stored, bits, 1), "a.scales": scales}
    checkpoint = opened(tmp_path, tensors, GPTQ | {"bits": bits, "checkpoint_format": form})
    assert list(checkpoint.tensors) == ["model.norm.weight", "a.bias", "a.weight"]
    check(checkpoint, "a.weight", floats(quants, zeros, scales, group))


def test_gptq_with_one_group_and_a_file_of_its_own(tmp_path: Path) -> None:
    quants, zeros, scales = layer(4, INPUTS)
    tensors = {"a.qweight": packed(quants, 4, 0), "a.qzeros": packed(zeros - 1, 4, 1), "a.scales": scales}
    with pytest.raises(CheckpointError, match=r"\(a\.qweight\), but no config\.json says how"):
        opened(tmp_path, tensors)
    checkpoint = opened(tmp_path, tensors, quantize_config={"bits": 4, "group_size": -1, "desc_act": False})
    check(checkpoint, "a.weight", floats(quants, zeros, scales, np.zeros(INPUTS, int)))


@pytest.mark.parametrize("place", ["config", "quant_config"])
def test_awq(tmp_path: Path, place: str) -> None:
    quants, zeros, scales = layer(4, 32)
    tensors = {
        "a.qweight": packed(quants, 4, 1, AWQ_ORDER),
        "a.qzeros": packed(zeros, 4, 1, AWQ_ORDER),
        "a.scales": scales,
    }
    if place == "config":
        how = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
        checkpoint = opened(tmp_path, tensors, how)
    else:
        how = {"w_bit": 4, "q_group_size": 32, "version": "GEMM", "zero_point": True}
        checkpoint = opened(tmp_path, tensors, quant_config=how)
    check(checkpoint, "a.weight", floats(quants, zeros, scales, np.arange(INPUTS) // 32))


def eight(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    codes = np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)
    codes[codes & 127 == 127] = 0  # NaN
    return codes


def value_of(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    sign, exponent, fraction = codes >> 7, (codes >> 3 & 15).astype(int), (codes & 7) / 8
    size = np.where(exponent == 0, fraction * 2.0**-6, (1 + fraction) * 2.0 ** (exponent - 7))
    return np.where(sign, -size, size).astype(np.float32)


SCALES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one": ((20, 12), (), {"quant_method": "fp8"}),
    "one of one": ((20, 12), (1,), {"quant_method": "modelopt", "quant_algo": "FP8"}),
    "one beside blocks": ((20, 12), (), {"quant_method": "fp8", "weight_block_size": [8, 5]}),
    "rows": ((20, 12), (20,), {"quant_method": "fbgemm_fp8"}),
    "rows and one": ((20, 12), (20, 1), {"quant_method": "fp8", "activation_scheme": "dynamic"}),
    "blocks": ((20, 12), (3, 3), {"quant_method": "fp8", "weight_block_size": [8, 5]}),
    "whole blocks": ((16, 10), (2, 2), {"quant_method": "fp8", "weight_block_size": [8, 5]}),
    "one block": ((20, 12), (1, 1), {"quant_method": "fp8", "weight_block_size": [128, 128]}),
    "experts in blocks": ((6, 20, 12), (6, 3, 3), {"quant_method": "fp8", "weight_block_size": [8, 5]}),
    "experts": ((16, 20, 12), (16, 1, 12), {"quant_method": "fbgemm_fp8"}),
    "one an expert": ((16, 20, 12), (16,), {"quant_method": "fp8"}),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("suffix", ["weight_scale_inv", "weight_scale", "qscale_weight"])
def test_eight_bits_with_scales(tmp_path: Path, case: str, suffix: str) -> None:
    shape, lengths, how = SCALES[case]
    shape = (max(shape[0], 16), *shape[1:])
    lengths = (shape[0], *lengths[1:]) if case.startswith("experts") else lengths
    codes = eight(shape)
    scale = np.random.default_rng(6).standard_normal(lengths).astype(np.float32)
    scale = (scale.view(np.uint32) & 0xFFFF0000).view(np.float32)
    blocks = how.get("weight_block_size", [1, 1])
    expected = value_of(codes)
    for place in np.ndindex(shape):
        indices = []
        for axis, length in enumerate(lengths):
            size = blocks[axis - len(shape)] if axis >= len(shape) - 2 else 1
            indices.append(0 if length == 1 else place[axis] if length == shape[axis] else place[axis] // size)
        expected[place] *= scale[tuple(indices)]
    tensors: dict[str, Stored] = {
        "a.weight": ("F8_E4M3", codes), f"a.{suffix}": ("BF16", bfloat16(scale)),
        "a.input_scale": np.ones((), np.float32), "norm.weight": np.ones(3, np.float32),
        "a.activation_scale": np.ones(1, np.float32),
    }  # fmt: skip
    checkpoint = opened(tmp_path, tensors, how)
    assert list(checkpoint.tensors) == ["a.weight", "norm.weight"]
    assert checkpoint.tensors["a.weight"].source.name == "model.safetensors", "its place in a new file"
    check(checkpoint, "a.weight", expected)


def compressed(form: str, **weights: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True} | weights}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}


def test_compressed_integers_of_eight_bits(tmp_path: Path) -> None:
    generator = np.random.default_rng(8)
    quants = generator.integers(-128, 128, (16, 10)).astype(np.int8)
    scale, zero = (
        generator.standard_normal((16, 1)).astype(np.float32),
        generator.integers(-9, 9, (16, 1)).astype(np.int8),
    )
    how = compressed("int-quantized", num_bits=8, strategy="channel")
    check(opened(tmp_path, {"a.weight": quants, "a.weight_scale": scale}, how), "a.weight", quants * scale)
    tensors = {"a.weight": quants, "a.weight_scale": scale, "a.weight_zero_point": zero}
    check(opened(tmp_path, tensors, how), "a.weight", (quants.astype(np.float32) - zero) * scale)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.parametrize(("outputs", "inputs", "size"), [(24, 64, 16), (19, 44, 32), (16, 30, None)])
def test_compressed_words(
    tmp_path: Path, bits: int, zero_points: bool, index: bool, outputs: int, inputs: int, size: int | None
) -> None:
    generator = np.random.default_rng(9)
    groups = -(-inputs // (size or inputs))
    quants = generator.integers(0, 1 << bits, (outputs, inputs))
    scale = generator.standard_normal((outputs, groups)).astype(np.float16)
    zeros = np.full((outputs, groups), 1 << (bits - 1))
    group = (np.arange(inputs) // (size or inputs)).astype(np.int32)
    tensors: dict[str, Stored] = {"a.weight_scale": scale, "a.weight_shape": np.array([outputs, inputs])}
    tensors["a.weight_packed"] = packed(quants, bits, 1)
    if zero_points:
        zeros = generator.integers(0, 1 << bits, (outputs, groups))
        tensors["a.weight_zero_point"] = packed(zeros, bits, 0)
    if index:
        tensors["a.weight_g_idx"] = group = generator.permutation(group)
    how = compressed("pack-quantized", num_bits=bits, group_size=size, strategy="group" if size else "channel")
    expected = floats(quants.T, zeros.T, scale.T, group)
    check(opened(tmp_path, tensors, how), "a.weight", expected)


def test_blocks_of_gpt_oss_stay(tmp_path: Path) -> None:
    tensors: dict[str, Stored] = {
        "a_blocks": np.zeros((2, 3, 1, 16), np.uint8),
        "a_scales": np.zeros((2, 3, 1), np.uint8),
    }
    checkpoint = opened(tmp_path, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": []})
    assert {name: tensor.dtype for name, tensor in checkpoint.tensors.items()} == {"a_blocks": "U8", "a_scales": "U8"}


def gptq_layer(**other: Stored) -> dict[str, Stored]:
    quants, zeros, scales = layer(4, 16)
    tensors: dict[str, Stored] = {
        "a.qweight": packed(quants, 4, 0),
        "a.qzeros": packed(zeros, 4, 1),
        "a.scales": scales,
    }
    return tensors | {f"a.{name}": stored for name, stored in other.items()}


FP8 = {"quant_method": "fp8", "weight_block_size": [8, 8]}
EIGHT: dict[str, Stored] = {"a.weight": ("F8_E4M3", eight((16, 16)))}
REFUSED: list[tuple[dict[str, Stored], Any, str]] = [
    ({}, {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, which is not supported"),
    ({}, {"load_in_4bit": True}, "bitsandbytes, which is not supported"),
    ({}, {"quant_method": "hqq"}, "the quantization 'hqq' is not supported"),
    ({}, {"quant_method": "quanto"}, "'quanto' is not supported"),
    ({}, {"quant_method": "modelopt", "quant_algo": "NVFP4_AWQ"}, "modelopt's 'NVFP4_AWQ' is not supported"),
    ({}, [1], "quantization_config is not an object"),
    ({"a.weight.absmax": np.zeros(1, np.float32)}, None, "the weights are quantized (a.weight.absmax)"),
    (EIGHT | {"a.weight_scale": np.ones((), np.float32)}, None, "the weights are quantized (a.weight_scale)"),
    (gptq_layer(), GPTQ | {"bits": 3}, "to 3 bits is not supported; expected 2, 4 or 8"),
    (gptq_layer(), GPTQ | {"bits": "4"}, "to '4' bits"),
    (gptq_layer(), GPTQ | {"bits": 8}, "do not belong together as 8-bit weights"),
    (gptq_layer(), GPTQ | {"group_size": 0}, "the group size of the quantization is 0"),
    (gptq_layer(), GPTQ | {"group_size": 32}, "64 columns in groups of 32 are not the 4 it has"),
    (gptq_layer(), GPTQ | {"checkpoint_format": "marlin"}, "'marlin' is not supported"),
    (gptq_layer(), GPTQ | {"is_marlin_format": True}, "'marlin' is not supported"),
    (gptq_layer(g_idx=np.zeros(3, np.int32)), GPTQ, "expected the group of 64 columns"),
    (gptq_layer(weight=np.zeros(3, np.float32)), GPTQ, "quantized and not quantized"),
    (gptq_layer(scales=np.zeros(3, np.float32)), GPTQ, "do not belong together"),
    (gptq_layer(qweight=np.zeros(3, np.int32)), GPTQ, "expected a matrix"),
    (gptq_layer(qweight=np.zeros((8, 32), np.float32)), GPTQ, "do not belong together"),
    ({"a.qweight": np.zeros((8, 32), np.int32)}, GPTQ, "a.qzeros is missing"),
    (gptq_layer(), {"quant_method": "awq", "bits": 4, "version": "gemv", "group_size": 16}, "AWQ 'gemv' of 4 bits"),
    (gptq_layer(), {"quant_method": "awq", "bits": 4, "version": "gemm", "group_size": 16}, "do not belong together"),
    (EIGHT, FP8, "a.weight: F8_E4M3 without a scale"),
    (
        EIGHT | {"a.weight_scale": np.ones((3, 2), np.float32)},
        FP8,
        "are not the scales of a tensor with a dimension of 16",
    ),
    (EIGHT | {"a.weight_scale": np.ones((1, 1, 1), np.float32)}, FP8, "are not the scales of a tensor (16, 16)"),
    (
        {"a.weight": np.zeros((16, 16), np.int8), "a.weight_scale_inv": np.ones((2, 2), np.float32)},
        FP8,
        "a.weight: I8 with scales",
    ),
    (EIGHT | {"a.weight_scale": np.ones((2, 2), np.uint8)}, FP8, "a.weight_scale: scales of the type U8"),
    (EIGHT, FP8 | {"weight_block_size": [0, 8]}, "the block size of the quantization is [0, 8]"),
    (EIGHT, FP8 | {"weight_block_size": 128}, "the block size of the quantization is 128"),
    (EIGHT, {"quant_method": "compressed-tensors", "format": "float-quantized"}, "several groups of layers"),
    (EIGHT, compressed("mxfp4-pack-quantized"), "'mxfp4-pack-quantized' is not supported"),
    (
        {"a.weight": np.zeros((4, 8), np.uint8), "a.weight_scale": np.ones((4, 2), np.float32)},
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        "is no matrix in NVFP4",
    ),
    (EIGHT, compressed("pack-quantized", num_bits=3), "to 3 bits"),
    ({"a.weight_packed": np.zeros((2, 2), np.int32)}, compressed("pack-quantized"), "a.weight_scale is missing"),
]


@pytest.mark.parametrize(("tensors", "how", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_unpacked_is_refused(tmp_path: Path, tensors: dict[str, Stored], how: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)):
        opened(tmp_path, tensors, how)


@pytest.mark.parametrize("group", [-1, 4])
def test_groups_that_do_not_exist_are_refused(tmp_path: Path, group: int) -> None:
    index = np.arange(INPUTS, dtype=np.int32) // 16
    index[7] = group
    tensor = opened(tmp_path, gptq_layer(g_idx=index), GPTQ).tensors["a.weight"]
    with pytest.raises(CheckpointError, match="g_idx names a group beyond the 4 there are"):
        tensor.read()


def test_blocks_of_floats_are_those_of_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    quantizer = pytest.importorskip("transformers.integrations.finegrained_fp8")
    codes, scale = eight((48, 64)), np.random.default_rng(2).random((3, 4)).astype(np.float32)
    how = {"quant_method": "fp8", "weight_block_size": [16, 16]}
    checkpoint = opened(tmp_path, {"a.weight": ("F8_E4M3", codes), "a.weight_scale_inv": scale}, how)
    weight = torch.from_numpy(codes).view(torch.float8_e4m3fn)
    theirs = quantizer.Fp8Dequantize(None)._dequantize_one(weight, torch.from_numpy(scale), torch.float32)
    check(checkpoint, "a.weight", theirs.numpy())
