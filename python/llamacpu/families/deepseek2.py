"""DeepSeek V2, V3 and R1 (arXiv:2405.04434, arXiv:2412.19437): latent attention, experts in groups."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.latent import latent
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek2"]


def deepseek2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**latent(file, name))
