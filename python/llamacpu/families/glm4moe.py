"""GLM 4.5 and 4.6 (arXiv:2508.06471): half of every head rotated, and DeepSeek V3's experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import sigmoid_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["glm4moe"]


def glm4moe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name) | sigmoid_experts(file, name)
    fields |= parts.without_predictors(file, name, fields)
    norms = parts.query_key_norm(file, fields["layers"], "head")
    return Config(
        **fields | {"rope_style": "neox", "query_key_norm": norms, "feed_forward_norm": "post_attention_norm"}
    )
