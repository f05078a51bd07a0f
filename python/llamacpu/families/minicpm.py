"""MiniCPM (arXiv:2404.06395): Llama's graph with scale factors of embeddings, residuals and logits."""

from __future__ import annotations

import math

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["minicpm"]


def minicpm(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture; early files have no keys for the factors, which were the same for all."""
    fields, metadata = parts.common(file, name), file.metadata
    scales = parts.granite_scales(file, name)
    if f"{name}.embedding_scale" not in metadata:
        scales["embedding_scale"] = 12.0
    if f"{name}.residual_scale" not in metadata:
        scales["residual_scale"] = 1.4 / math.sqrt(fields["layers"])
    if f"{name}.logit_scale" not in metadata:
        scales["logit_scale"] = 256 / fields["embedding_length"]
    return Config(**fields | scales)
