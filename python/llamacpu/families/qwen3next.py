"""Qwen3-Next (2025): gated delta networks (arXiv:2412.06464), gated attention in every fourth layer, and experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_WIDTH
from llamacpu.families.recurrent import recurrent
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen3next"]


def qwen3next(file: GGUFFile, name: str, order: str = "grouped") -> Config:
    """The `Config` of this architecture. Consecutive value heads share a key head, unless `order` is "interleaved"."""
    fields = parts.common(file, name)
    fields |= parts.without_predictors(file, name, fields)
    fields |= recurrent(file, name, fields, order)
    width = f"{name}.expert_shared_feed_forward_length"
    if fields["experts"]:
        shared = file.metadata.integer(width, 0, maximum=MAX_WIDTH) or fields["feed_forward"][0]
        fields["shared_feed_forward"] = shared
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "feed_forward_norm": "post_attention_norm",
            "query_key_norm": ["none" if own else "head" for own in fields["recurrent_heads"]],
            "attention_gate": "query",
        }
    )
