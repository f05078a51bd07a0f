"""GPT-NeoX (arXiv:2204.06745) and Pythia: LayerNorm, and networks parallel to attention with norms of their own."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gptneox"]


def gptneox(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. GELU is exact, except in GPT-NeoX-20B."""
    fields = parts.common(file, name, norm="layer")
    parallel = file.metadata.flag(f"{name}.use_parallel_residual", True)
    largest = fields["layers"] == 44 and fields["embedding_length"] == 6144
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "parallel": parallel,
            "parallel_norm": parallel,
            "gate": "none",
            "activation": "gelu_tanh" if largest else "gelu",
        }
    )
