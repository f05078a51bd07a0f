"""Nomic Embed (arXiv:2402.01613): BERT with rotated queries and keys and gated networks.

The second version has experts (arXiv:2502.07972), which have no gate.
"""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.encoder import encoder
from llamacpu.gguf.file import GGUFFile

__all__ = ["nomic_bert"]


def nomic_bert(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = encoder(file, name) | {"rope_style": "neox"}
    if fields["experts"]:
        fields |= {"gate": "none", "activation": "gelu"}
    return Config(**fields)
