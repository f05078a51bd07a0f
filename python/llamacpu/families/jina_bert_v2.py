"""Jina Embeddings 2 (arXiv:2310.19923): BERT with linear biases of attention (ALiBi) and gated networks."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.encoder import encoder
from llamacpu.gguf.file import GGUFFile

__all__ = ["jina_bert_v2"]


def jina_bert_v2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. The model for code has more norms."""
    fields = encoder(file, name)
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    up = shapes.get("blk.0.ffn_up.weight", (0, 0))
    wide = len(up) > 1 and up[1] == 2 * fields["feed_forward"][0]
    return Config(
        **fields
        | parts.linear_biases(fields["layers"], 8.0)
        | {
            "gate": "own" if parts.has(file, "blk.0.ffn_gate.weight") else "fused" if wide else "none",
            "activation": "gelu",
            "query_key_norm": parts.query_key_norm(file, fields["layers"], "width"),
            "second_attention_norm": parts.has(file, "blk.0.attn_norm_2.weight"),
        }
    )
