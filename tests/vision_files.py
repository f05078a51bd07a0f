"""A small vision encoder of random weights, as an mmproj file that fits the demo model, and pictures to show."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

import picture_cases as cases
from llamacpu.vision.config import VisionConfig
from reference_vision import tensors, write

TOKENS = 4
"""Embeddings of a tile."""


def write_mmproj(path: Path, width: int = 256, **metadata: Any) -> Path:
    """A vision encoder of Llama 4's kind: tiles of 16 pixels, 4 embeddings each."""
    config = VisionConfig(
        kind="llama4", image_size=16, patch_size=4, embedding_length=24, layers=2, heads=2, feed_forward=36,
        output_length=width, norm_epsilon=1e-5, class_token="last", positions="fixed", first_norm=True,
        rotation="columns_first", rope_first=1, merge=2, activation="gelu",
        projector=["mm.model.mlp.1", "mm.model.mlp.2", "mm.model.fc"],
    )  # fmt: skip
    values = {
        name: np.asarray(value, np.float32)
        for name, value in tensors(config).items()
        if not (name.startswith("mm.") and name.endswith(".bias")) and name != "v.patch_embd.bias"
    }
    return write(path, values, {
        "clip.has_vision_encoder": True, "clip.projector_type": "llama4", "clip.vision.image_size": 16,
        "clip.vision.patch_size": 4, "clip.vision.embedding_length": 24, "clip.vision.feed_forward_length": 36,
        "clip.vision.block_count": 2, "clip.vision.attention.head_count": 2,
        "clip.vision.attention.layer_norm_epsilon": 1e-5, "clip.vision.projection_dim": width,
        "clip.vision.projector.scale_factor": 2, "clip.vision.image_mean": [0.5, 0.5, 0.5],
        "clip.vision.image_std": [0.5, 0.5, 0.5], **metadata,
    })  # fmt: skip


def png(size: tuple[int, int] = (16, 16), shift: int = 0) -> bytes:
    """The file of a picture; other shifts give other pictures."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(cases.made(size) + np.uint8(shift)).save(file, "PNG")
    return file.getvalue()


def url(size: tuple[int, int] = (16, 16), shift: int = 0) -> str:
    """A picture as a data URL."""
    return "data:image/png;base64," + base64.b64encode(png(size, shift)).decode()


def asked(text: str, *pictures: str) -> list[dict[str, Any]]:
    """A message of the user with pictures before its text."""
    parts = [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
