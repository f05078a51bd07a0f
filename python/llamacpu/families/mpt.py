"""MPT (MosaicML, 2023): linear biases of attention (ALiBi) or learned positions, and LayerNorm without biases."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["mpt"]


def mpt(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields, number = parts.common(file, name, norm="layer"), file.metadata.number
    switches = {
        "gate": "none",
        "activation": "gelu",
        "learned_positions": parts.has(file, "position_embd.weight"),
        "query_key_value_limit": number(f"{name}.attention.clamp_kqv", 0.0, minimum=0),
        "query_key_norm": parts.query_key_norm(file, fields["layers"], "width"),
    }
    largest = number(f"{name}.attention.max_alibi_bias", 0.0, minimum=0)
    return Config(**fields | parts.linear_biases(fields["layers"], largest) | switches)
