"""BERT (arXiv:1810.04805) and the models built like it: RoBERTa, XLM-R, bge, gte, e5, MiniLM."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.encoder import encoder
from llamacpu.gguf.file import GGUFFile

__all__ = ["bert"]


def bert(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. GELU is the exact one, as in the code these models were trained with."""
    fields = encoder(file, name)
    positions = {"learned_positions": True, "rope_size": 0, "rotation": ["none"] * fields["layers"]}
    return Config(**fields | positions | {"gate": "none", "activation": "gelu"})
