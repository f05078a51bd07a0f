"""OLMo 2 and 3 (arXiv:2501.00656): norms after the blocks, and over the full width of queries and keys.

Three in four layers of OLMo 3 have sliding windows, and positions that are not scaled.
"""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["olmo2"]


def olmo2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    norms = {"norms": "behind", "query_key_norm": ["width"] * fields["layers"]}
    return Config(**fields | norms | {"rope_style": "neox"} | parts.windows(file, name, fields["layers"], 4))
