"""Encoders of pictures from the files of our converter, which are llama.cpp's to the byte (`test_convert.py`), and
encoders with quantized weights.

The exact results are those of the definitions in NumPy with the weights that the file holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from converted_checkpoints import load, write_checkpoint
from llamacpu import _native, convert, kernels
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision.config import VisionConfig
from llamacpu.vision.registry import settings_for
from reference_vision import ReferenceEncoder, tensors

pytestmark = pytest.mark.instruction_set
STORED = load()
CONVERTED = [
    "llama4-vl", "gemma3-vl", "idefics3", "smolvlm", "pixtral", "mistral3-vl", "qwen2vl", "qwen25vl", "qwen3vl-vision",
    "qwen35-vision", "muse-glimmer-vl", "mllama",
]  # fmt: skip
FORMATS = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"]
if os.environ.get("LLAMACPU_THOROUGH"):
    FORMATS += ["F32", "Q5_1", "Q5_0", "Q4_1", "Q5_K", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS", "MXFP4"]


def values_of(path: Path) -> dict[str, Any]:
    """The tensors of a file, as the numbers that their blocks stand for."""
    found = {}
    for tensor in gguf.GGUFReader(path).tensors:
        shape = [int(size) for size in tensor.shape[::-1]]
        found[tensor.name] = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(shape).astype(np.float64)
    if "v.patch_embd.weight.1" in found:  # the second of two equal frames
        found["v.patch_embd.weight"] = found["v.patch_embd.weight"] + found.pop("v.patch_embd.weight.1")
    found.setdefault("v.patch_embd.bias", np.zeros(found["v.patch_embd.weight"].shape[0]))
    for name in [name for name in found if ".attn_qkv." in name]:
        for part, values in zip("qkv", np.split(found.pop(name), 3), strict=True):
            found[name.replace("qkv", part)] = values
    return found


def write_quantized(path: Path, stored: dict[str, Any], types: dict[str, str]) -> Path:
    """A file with these tensors, of which some are blocks."""
    writer = gguf.GGUFWriter(path, "clip")
    for name, values in stored.items():
        if name in types:
            writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType[types[name]])
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def error(rows: Any, exact: Any) -> float:
    return float(((rows - exact) ** 2).sum() / (exact**2).sum())


@pytest.mark.parametrize("name", CONVERTED)
@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_converted_encoders_run(tmp_path: Path, name: str, kind: Any) -> None:
    folder = write_checkpoint(tmp_path / "checkpoint", STORED["models"][name], STORED["tokenizers"])
    path = tmp_path / "converted.gguf"
    convert(folder, path, type=kind, mmproj=name != "mllama")
    with GGUFFile(path) as file:
        config = settings_for(file).native
    side = config.patch_size * config.merge
    height, width = (config.image_size, config.image_size) if config.image_size else (2 * side, 3 * side)
    tiles = 2 if config.image_size else 1
    pixels = np.random.default_rng(0).standard_normal((tiles, height, width, 3)).astype(np.float32)
    arrangement = 2 if config.joint_tiles else 0
    exact = ReferenceEncoder(config, values_of(path)).encode(pixels, arrangement)
    with PictureEncoder(path, threads=2) as encoder:
        rows = encoder.encode(pixels, aspect_ratio_id=arrangement or None).rows
    assert rows.shape == exact.shape
    assert error(rows, exact) < {"f32": 1e-9, "f16": 1e-5, "q8_0": 1e-3}[kind]


@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_every_kind_are_those_that_their_blocks_stand_for(tmp_path: Path, name: str) -> None:
    config = VisionConfig(
        kind="test", image_size=0, patch_size=4, embedding_length=256, layers=1, heads=4, feed_forward=256,
        output_length=64, norm_epsilon=1e-5, gated=True, merge=2, projector=["mm.0", "mm.2"],
    )  # fmt: skip
    values = tensors(config, inner=256)
    stored, seen = dict(values), dict(values)
    for each, matrix in values.items():
        if matrix.ndim == 2 and each.startswith(("v.blk", "mm.")):
            blocks = kernels.quantize(matrix, name, threads=2)
            seen[each] = kernels.dequantize(blocks, name).reshape(matrix.shape)
            stored[each] = blocks
    types = {each: name for each, blocks in stored.items() if blocks is not values[each]}
    path = write_quantized(tmp_path / "encoder.gguf", stored, types)
    pixels = np.random.default_rng(1).standard_normal((2, 24, 40, 3)).astype(np.float32)
    found = []
    for threads in (1, 3):
        with GGUFFile(path) as file:
            rows = [(t.name, t.type, t.shape, t.file, t.offset, t.nbytes) for t in file.tensors]
            encoder = _native.PictureEncoder(file.native_files, dict(config), rows, threads)
            encoding = encoder.begin(pixels, 0)
            done, every = encoding.stages
            while done < every:
                done, every = encoding.advance()
            found.append(encoding.rows())
    assert np.array_equal(*found)
    # Rounded activations are what is left: the same model with these weights in 32-bit floats is the measure.
    exact = ReferenceEncoder(config, seen).encode(pixels)
    assert error(found[0], exact) < (1e-6 if name in ("F16", "BF16") else 1e-3)
    assert name == "F32" or error(found[0], ReferenceEncoder(config, values).encode(pixels)) > 1e-9
