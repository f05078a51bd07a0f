"""ModernBERT (arXiv:2412.13663): an encoder with norms before the blocks, gates, sliding windows and two rotations."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["modern_bert"]


def modern_bert(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. The norm of the embedding replaces the one before the first attention.

    The head that predicts masked tokens is left out. A classifier (`cls.output`) does not run: it has its own norm.
    """
    metadata = file.metadata
    fields = parts.common(file, name, norm="layer")
    layers, window = fields["layers"], parts.window(file, name, 0)
    local = [window > 0 and near for near in parts.local_layers(file, name, layers, 3, first=True)]
    functions = {"gelu": "gelu", "silu": "silu", "swish": "silu"}
    function = metadata.text(f"{name}.hidden_activation", "gelu")
    if function not in functions:
        raise ModelError(f"{name}.hidden_activation is {function[:60]!r}; expected gelu or silu")
    return Config(
        **fields
        | {
            "causal": False,
            "output": False,
            "ignored_tensors": ["output.", *([] if parts.has(file, "cls.output.weight") else ["cls."])],
            "embedding_norm": True,
            "first_attention_norm": False,
            "rope_style": "neox",
            "rope_local_base": metadata.number(f"{name}.rope.freq_base_swa", 10000.0, above=0),
            "rotation": ["local" if near else "global" for near in local],
            "window": [window * near for near in local],
            "gate": "fused",
            "activation": functions[function],
        }
    )
