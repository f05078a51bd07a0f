"""Whether a vision encoder makes the rows of pictures that a model reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision.qwen3vl import deep_layers

__all__ = ["require_match"]

_TURNED = {"qwen2vl_merger": False, "qwen2.5vl_merger": False, "qwen3vl_merger": True}
"""Encoders of models that place pictures by time, row and column, and whether these alternate in a head."""


def require_match(file: GGUFFile, kind: str, model: Mapping[str, Any]) -> None:
    """Raise ModelError unless the encoder of this file and kind belongs to a model of this `Config`."""
    name, expected = file.paths[0].name, "expected the mmproj file that belongs to the model"
    own, width = file.metadata.get("clip.vision.projection_dim"), model["embedding_length"]
    # Files of MiniCPM-V have 0 there.
    if own not in (None, 0, width):
        raise ModelError(f"{name} makes embeddings of {own} numbers and the model has {width}; {expected}")
    parts, layers = len(deep_layers(file)), model.get("picture_layers", 0)
    if parts != layers:
        raise ModelError(
            f"{name} makes embeddings with further parts for {parts} layers and the model reads those for {layers}; "
            f"{expected}"
        )
    turned = bool(model.get("rope_sections", []))
    if turned != (kind in _TURNED):
        does = "" if turned else "not "
        raise ModelError(
            f"the model does {does}place pictures by row and column (rope.dimension_sections), and models with the "
            f"encoder of {name}, {kind}, do{' not' if turned else ''}; {expected}, and of the model a file that says "
            "how pictures are placed"
        )
    if turned and _TURNED[kind] != model.get("rope_sections_alternate", False):
        raise ModelError(
            f"{name} is an encoder of the kind {kind}, and the model places pictures otherwise; {expected}"
        )
