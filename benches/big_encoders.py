"""Writes mmproj files of the shapes of published vision encoders with random weights, each with a small text model.

    python benches/big_encoders.py FOLDER [SHAPE ...] [--type f16 ...]

Without a shape, all of them. The text model, `SHAPE-text-TYPE.gguf`, has the width of the encoder's output and two
layers: llama.cpp opens an encoder only beside a model, and reading a prompt with the same type of weights shows what
the encoder's products could reach. `benches/picture_speed.py` times both.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from big_models import Shape, add, made_up_vocabulary, write_shape
from random_weights import TYPES, Type, random_blocks

ENCODER_TYPES = ("f16", "q8_0")
CONTROLS = (
    "<fake_token_around_image>", "<global-img>", "<start_of_image>", "<end_of_image>",
    "<|vision_start|>", "<|vision_end|>", "<|image_start|>", "<|image_end|>", "<|tile_x_separator|>",
    "<|tile_y_separator|>", "<|image|>",
)  # fmt: skip
"""Tokens around pictures, which llama.cpp looks up."""


@dataclass(frozen=True)
class EncoderShape:
    """Sizes and switches of an encoder; `extra` holds further metadata, its keys without the prefix clip."""

    projector: str
    layers: int
    width: int
    heads: int
    feed_forward: int
    image_size: int
    patch_size: int
    output: int
    projections: dict[str, tuple[int, int]]
    """matrices behind the layers, rows and columns"""
    gated: bool = False
    rms: bool = False
    biased_projections: bool = False
    positions: int = 0
    """rows of the table of positions"""
    class_token: bool = False
    flat_patches: bool = False
    """whether the patch embedding is a plain matrix"""
    first_norm: bool = False
    frames: int = 1
    text_heads: int = 0
    picture: tuple[int, int] = (0, 0)
    """height and width of a picture that llama.cpp and llamacpu show the encoder as one tile"""
    extra: dict[str, Any] = field(default_factory=dict)


def _siglip_base(output: int, heads: int) -> EncoderShape:
    # Published files say preproc_image_size 2048: up to 17 tiles. Without it, a picture of 512 x 512 is one.
    return EncoderShape(
        "idefics3", 12, 768, 12, 3072, 512, 16, output, {"mm.model.fc": (output, 768 * 16)}, positions=1024,
        text_heads=heads, picture=(512, 512), extra={"use_gelu": True, "vision.projector.scale_factor": 4},
    )  # fmt: skip


ENCODERS = {
    "smolvlm-256m": _siglip_base(576, 9),
    "smolvlm-500m": _siglip_base(960, 15),
    "gemma-3-4b": EncoderShape(
        "gemma3", 27, 1152, 16, 4304, 896, 14, 2560, {"mm.input_projection": (1152, 2560)}, positions=4096,
        text_heads=20, picture=(896, 896), extra={"use_gelu": True},
    ),
    "qwen2.5-vl-3b": EncoderShape(
        "qwen2.5vl_merger", 32, 1280, 16, 3420, 560, 14, 2048, {"mm.0": (5120, 5120), "mm.2": (2048, 5120)},
        gated=True, rms=True, biased_projections=True, frames=2, text_heads=16, picture=(560, 560),
        extra={"use_silu": True, "vision.n_wa_pattern": 8},
    ),
    "llama-4": EncoderShape(
        "llama4", 34, 1408, 16, 5632, 336, 14, 5120,
        {"mm.model.mlp.1": (4096, 5632), "mm.model.mlp.2": (4096, 4096), "mm.model.fc": (5120, 4096)},
        positions=577, class_token=True, flat_patches=True, first_norm=True, text_heads=40, picture=(336, 336),
        extra={"use_gelu": True, "vision.projector.scale_factor": 2},
    ),
}  # fmt: skip


def matrices(shape: EncoderShape) -> Iterator[tuple[str, int, int]]:
    """Yield names, rows and columns of all matrices of the layers and the projector."""
    width, inner = shape.width, shape.feed_forward
    for layer in range(shape.layers):
        block = f"v.blk.{layer}"
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            yield f"{block}.{name}", width, width
        if shape.gated:
            yield f"{block}.ffn_gate", inner, width
        yield f"{block}.ffn_up", inner, width
        yield f"{block}.ffn_down", width, inner
    for name, (rows, columns) in shape.projections.items():
        yield name, rows, columns


def vectors(shape: EncoderShape) -> Iterator[tuple[str, int, float]]:
    """Yield names, lengths and values of norms and biases."""
    outer = [name for name, there in (("v.pre_ln", shape.first_norm), ("v.post_ln", True)) if there]
    inner = [f"v.blk.{layer}.{name}" for layer in range(shape.layers) for name in ("ln1", "ln2")]
    for name in (*outer, *inner):
        yield f"{name}.weight", shape.width, 1.0
        if not shape.rms:
            yield f"{name}.bias", shape.width, 0.0
    if shape.projector == "gemma3":
        yield "mm.soft_emb_norm.weight", shape.width, 1.0
    for name, rows, _ in matrices(shape):
        if name.startswith("v.") or shape.biased_projections:
            yield f"{name}.bias", rows, 0.01


def metadata(shape: EncoderShape) -> dict[str, Any]:
    """Return all metadata keys, without the prefix clip."""
    sizes = {
        "projection_dim": shape.output, "image_size": shape.image_size, "patch_size": shape.patch_size,
        "embedding_length": shape.width, "feed_forward_length": shape.feed_forward, "block_count": shape.layers,
        "attention.head_count": shape.heads, "attention.layer_norm_epsilon": 1e-6, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }  # fmt: skip
    keys = {f"vision.{key}": value for key, value in sizes.items()}
    return {"has_vision_encoder": True, "projector_type": shape.projector, **keys, **shape.extra}


def kind_of(name: str, columns: int, mixture: str) -> Type:
    """Return the type of a matrix, as converters choose it for Q8_0: some are never quantized."""
    kind = TYPES[mixture][1]
    return Type.F16 if kind == Type.Q8_0 and (columns % 32 or name == "mm.input_projection") else kind


def write(path: Path, name: str, mixture: str) -> Path:
    """Write the encoder of the shape `name` to `path`, and return `path`."""
    shape = ENCODERS[name]
    random = np.random.default_rng(7)
    writer = GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(f"random {name}")
    writer.add_quantization_version(2)
    writer.add_file_type(TYPES[mixture][0])
    for key, value in metadata(shape).items():
        add(writer, f"clip.{key}", value)
    side = shape.patch_size
    sizes = (shape.width, 3 * side**2) if shape.flat_patches else (shape.width, 3, side, side)
    kernel = Type.F16 if mixture == "f16" else Type.F32
    for suffix in ("", ".1")[: shape.frames]:
        writer.add_tensor(f"v.patch_embd.weight{suffix}", random_blocks(kernel, sizes, random))
    if not shape.rms and not shape.class_token:
        writer.add_tensor("v.patch_embd.bias", np.full(shape.width, 0.01, np.float32))
    if shape.class_token:
        writer.add_tensor("v.class_embd", random_blocks(Type.F32, (shape.width,), random))
    if shape.positions:
        writer.add_tensor("v.position_embd.weight", random_blocks(Type.F32, (shape.positions, shape.width), random))
    for tensor, length, value in vectors(shape):
        writer.add_tensor(tensor, np.full(length, value, np.float32))
    for tensor, rows, columns in matrices(shape):
        kind = kind_of(tensor, columns, mixture)
        writer.add_tensor(f"{tensor}.weight", random_blocks(kind, (rows, columns), random), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text_shape(name: str) -> Shape:
    """Return the shape of the text model beside an encoder."""
    shape = ENCODERS[name]
    heads, width = shape.text_heads, shape.output
    return Shape("llama", 2, width, heads, heads, width // heads, 2 * width, 512, 8192, tied=True)


def main() -> None:
    """Read the options and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"of {', '.join(ENCODERS)}")
    parser.add_argument("--type", nargs="+", choices=ENCODER_TYPES, default=ENCODER_TYPES)
    options = parser.parse_args()
    unknown = [name for name in options.shapes if name not in ENCODERS]
    if unknown:
        parser.error(f"no shape is called {unknown[0]}; there are {', '.join(ENCODERS)}")
    for name in options.shapes or ENCODERS:
        for mixture in options.type:
            print(write(options.folder / f"mmproj-{name}-{mixture}.gguf", name, mixture), flush=True)
            text = options.folder / f"{name}-text-{mixture}.gguf"
            small = text_shape(name)
            tokens = made_up_vocabulary(small, CONTROLS)
            print(write_shape(text, small, f"text model beside {name}", mixture, tokens), flush=True)


if __name__ == "__main__":
    main()
