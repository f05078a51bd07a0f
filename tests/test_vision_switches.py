"""Every switch of vision encoders against its definition in NumPy, on random weights; and files that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import _native
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.errors import GGUFError, ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision.config import VisionConfig
from reference_vision import ReferenceEncoder, tensors, write

pytestmark = pytest.mark.instruction_set

BASE: dict[str, Any] = {
    "kind": "test", "image_size": 24, "patch_size": 4, "embedding_length": 24, "layers": 3, "heads": 2,
    "feed_forward": 36, "output_length": 20, "norm_epsilon": 1e-5, "projector": ["mm.0"],
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "class token first": {"class_token": "first", "positions": "fixed", "first_norm": True, "last_norm": False,
                          "activation": "gelu_sigmoid", "projector": ["mm.0", "mm.2"]},
    "class token last, rotated": {"class_token": "last", "positions": "fixed", "rotation": "columns_first",
                                  "rope_first": 1, "merge": 2, "projector": ["mm.0", "mm.1", "mm.2"]},
    "averages": {"positions": "fixed", "activation": "gelu_tanh", "merge": 3, "merge_order": "average",
                 "projector_norm": "mm.norm", "projector_transposed": True},
    "gated, in between": {"image_size": 0, "norm": "rms", "gated": True, "activation": "silu", "rope_between": True,
                          "rotation": "rows_first", "first_norm": True, "last_norm": False},
    "halves and windows": {"image_size": 0, "rotation": "rows_first", "rope_style": "neox", "window": [4, 0, 4],
                           "merge": 2, "rope_base": 100.0, "projector": ["mm.0", "mm.2"]},
    "resampled": {"image_size": 0, "positions": "transposed", "window": [3, 3, 0], "merge": 2,
                  "merge_order": "channels", "rotation": "columns_first", "rope_first": 1},
    "joint tiles": {"class_token": "first", "positions": "fixed", "first_norm": True, "joint_tiles": 3,
                    "arrangements": 5, "row_multiple": 8, "global_layers": 2, "kept_inputs": [0, 2, 3],
                    "class_output": True},
    "merged by a matrix": {"image_size": 0, "norm": "rms", "gated": True, "last_norm_name": "mm.input_norm", "merge": 2,
                           "merge_order": "channels", "merger": "mm.merger", "projector": ["mm.1", "mm.2"]},
    "resampled by queries": {"image_size": 0, "positions": "nearest", "queries": 7, "output_length": 256,
                             "projector": ["resampler.proj"], "prefixes": ["v.", "resampler."]},
    "layer scales": {"class_token": "first", "positions": "fixed", "last_norm": False, "layer_scale": True, "merge": 2,
                     "projector_norm": "mm.0", "projector_norm_kind": "layer", "projector": ["mm.1", "mm.3"]},
    "from corner to corner, deep": {"image_size": 0, "positions": "corners", "rotation": "rows_first", "merge": 2,
                                    "rope_style": "neox", "deepstack": [0, 1], "projector": ["mm.0", "mm.2"]},
    "other names": {"attention_norm": "a", "attention_output": "o", "feed_forward_norm": "f",
                    "feed_forward_up": "ffn_down", "feed_forward_down": "ffn_up"},
}  # fmt: skip


def native(path: Path, config: VisionConfig, threads: int = 2) -> Any:
    """The native encoder of a file with a configuration of our own."""
    with GGUFFile(path) as file:
        rows = [(t.name, t.type, t.shape, t.file, t.offset, t.nbytes) for t in file.tensors]
        return _native.PictureEncoder(file.native_files, dict(config), rows, threads)


def encoded(encoder: Any, pixels: Any, arrangement: int = 0) -> Any:
    encoding = encoder.begin(pixels, arrangement)
    done, every = encoding.stages
    while done < every:
        done, every = encoding.advance()
    return encoding.rows()


@pytest.mark.instruction_set(one_in=2)
@pytest.mark.parametrize("name", SHAPES)
def test_every_switch_is_as_defined(tmp_path: Path, name: str) -> None:
    config = VisionConfig(**BASE | SHAPES[name])
    values = tensors(config, table=3)
    path = write(tmp_path / "encoder.gguf", values)
    reference = ReferenceEncoder(config, values)
    random = np.random.default_rng(1)
    sizes = [(24, 24)] if config.image_size else [(24, 24), (16, 40), (48, 8), (8, 8)]
    with np.errstate(over="ignore"):
        for height, width in sizes:
            pixels = random.standard_normal((2, height, width, 3)).astype(np.float32)
            arrangement = 2 if config.joint_tiles else 0
            exact = reference.encode(pixels, arrangement)
            encoder = native(path, config)
            got = encoded(encoder, pixels, arrangement)
            assert got.shape == exact.shape
            assert ((got - exact) ** 2).sum() < 1e-10 * (exact**2).sum()
            assert np.array_equal(encoded(native(path, config, 1), pixels, arrangement), got)
            if not config.joint_tiles:
                alone = [encoded(encoder, tile[None]) for tile in pixels]
                assert np.array_equal(np.concatenate(alone), got)


def test_weights_of_half_precision_keep_half_precision(tmp_path: Path) -> None:
    config = VisionConfig(**BASE | {"embedding_length": 64, "feed_forward": 96, "output_length": 32})
    values = tensors(config)
    rounded = {name: tensor.astype(np.float16) if tensor.ndim == 2 else tensor for name, tensor in values.items()}
    pixels = np.random.default_rng(1).standard_normal((2, 24, 24, 3)).astype(np.float32)
    exact = ReferenceEncoder(config, rounded).encode(pixels)
    path = write(tmp_path / "encoder.gguf", rounded)
    got = encoded(native(path, config), pixels)
    assert ((got - exact) ** 2).sum() < 1e-6 * (exact**2).sum()
    assert np.array_equal(encoded(native(path, config, 1), pixels), got)
    assert np.array_equal(np.concatenate([encoded(native(path, config), tile[None]) for tile in pixels]), got)


def test_one_matrix_of_keys_in_floats_keeps_all_products_in_floats(tmp_path: Path) -> None:
    config = VisionConfig(**BASE | {"embedding_length": 64, "feed_forward": 96, "output_length": 32})
    values = tensors(config)
    whole = "v.blk.1.attn_k.weight"
    rounded = {
        name: tensor.astype(np.float16) if tensor.ndim == 2 and name != whole else tensor
        for name, tensor in values.items()
    }
    pixels = np.random.default_rng(1).standard_normal((1, 24, 24, 3)).astype(np.float32)
    exact = ReferenceEncoder(config, rounded).encode(pixels)
    got = encoded(native(write(tmp_path / "encoder.gguf", rounded), config), pixels)
    assert ((got - exact) ** 2).sum() < 1e-10 * (exact**2).sum()


LLAMA4: dict[str, Any] = {
    "general.type": "mmproj", "clip.has_vision_encoder": True, "clip.projector_type": "llama4",
    "clip.vision.projection_dim": 20, "clip.vision.image_size": 24, "clip.vision.patch_size": 4,
    "clip.vision.embedding_length": 24, "clip.vision.feed_forward_length": 36, "clip.vision.block_count": 2,
    "clip.vision.attention.head_count": 2, "clip.vision.attention.layer_norm_epsilon": 1e-5,
    "clip.vision.image_mean": [0.5, 0.5, 0.5], "clip.vision.image_std": [0.5, 0.5, 0.5],
    "clip.vision.projector.scale_factor": 2,
}  # fmt: skip


def llama4_file(folder: Path, changes: dict[str, Any], metadata: dict[str, Any]) -> Path:
    """A sound file, except for these tensors and keys; None leaves one out."""
    shape = {"layers": 2, "class_token": "last", "positions": "fixed", "first_norm": True, "merge": 2}
    config = VisionConfig(**BASE | shape | {"projector": ["mm.model.mlp.1", "mm.model.mlp.2", "mm.model.fc"]})
    values = tensors(config) | changes
    keys = LLAMA4 | metadata
    return write(
        folder / "mmproj.gguf",
        {name: tensor for name, tensor in values.items() if tensor is not None},
        {key: value for key, value in keys.items() if value is not None},
    )


@pytest.mark.instruction_set(one_in=None)
def test_tensors_that_are_wrong_are_named(tmp_path: Path) -> None:
    pixels = np.zeros((1, 24, 24, 3), np.float32)
    with PictureEncoder(llama4_file(tmp_path, {}, {})) as encoder:
        assert encoder.encode(pixels).rows.shape == (9, 20)
    with GGUFFile(llama4_file(tmp_path, {}, {})) as file:
        names = [tensor.name for tensor in file.tensors]
    for name in names:
        if not name.endswith(".bias"):
            with pytest.raises(ModelError, match=f"{name}.*missing|missing.*{name}"):
                PictureEncoder(llama4_file(tmp_path, {name: None}, {}))
        with pytest.raises(ModelError, match=name):
            PictureEncoder(llama4_file(tmp_path, {name: np.zeros((7, 5), np.float32)}, {}))
    extra = np.zeros(3, np.float32)
    for name in ("v.other", "mm.other.weight", "v.blk.2.ln1.weight", "v.blk.0.attn_q_norm.weight"):
        with pytest.raises(ModelError, match=f"no use for the tensors {name}"):
            PictureEncoder(llama4_file(tmp_path, {name: extra}, {}))
    PictureEncoder(llama4_file(tmp_path, {"a.blk.0.weight": extra}, {})).close()


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize("key", [key for key in LLAMA4 if key != "general.type"])
def test_metadata_that_are_wrong_are_named(tmp_path: Path, key: str) -> None:
    values: list[Any] = [None, 0, 1, 3, 2**31, 2**32 - 1, "text", "", float("nan"), -1.5, 1e30, [], [1.0, 2.0], True]
    for value in values:
        refused: ModelError | None = None
        try:
            encoder = PictureEncoder(llama4_file(tmp_path, {}, {key: value}))
        except ModelError as error:
            refused = error
        if refused is not None:
            assert any(word in str(refused) for word in ("clip.", "tensor", "encoder"))
            continue
        with encoder:
            config = encoder.config
            pixels = np.zeros((1, config.image_size, config.image_size, 3), np.float32)
            assert encoder.encode(pixels).rows.shape == (config.rows(*pixels.shape[1:3]), config.width)


@pytest.mark.instruction_set(one_in=None)
def test_damaged_files_are_refused_in_words(tmp_path: Path) -> None:
    whole = llama4_file(tmp_path, {}, {}).read_bytes()
    random = np.random.default_rng(0)
    damaged = tmp_path / "damaged.gguf"
    lengths = [*range(0, 3000, 97), *random.integers(0, len(whole), 20).tolist()]
    for length in lengths:
        damaged.write_bytes(whole[:length])
        with pytest.raises((GGUFError, ModelError)):
            PictureEncoder(damaged)
    header = whole.index(b"mm.model.fc")
    for place in random.integers(0, header, 150).tolist():
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(8))
        damaged.write_bytes(changed)
        try:
            encoder = PictureEncoder(damaged)
        except (GGUFError, ModelError, MemoryError):
            continue
        encoder.close()
