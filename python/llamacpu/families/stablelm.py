"""StableLM (Stability AI, 2023 and 2024): LayerNorm, and a quarter of every head rotated."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["stablelm"]


def stablelm(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    beside = not parts.has(file, f"blk.0.{Config.feed_forward_norm}.weight")
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "parallel": file.metadata.flag(f"{name}.use_parallel_residual", beside),
            "query_key_norm": parts.query_key_norm(file, fields["layers"], "each_head"),
        }
    )
