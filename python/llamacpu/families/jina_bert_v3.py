"""Jina Embeddings 3 (arXiv:2409.10173): XLM-RoBERTa with rotated queries and keys."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.encoder import encoder
from llamacpu.gguf.file import GGUFFile

__all__ = ["jina_bert_v3"]


def jina_bert_v3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**encoder(file, name) | {"rope_style": "neox", "gate": "none", "activation": "gelu"})
