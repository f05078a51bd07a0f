"""DeBERTa V2 and V3 (arXiv:2006.03654, arXiv:2111.09543), the basis of Prompt Guard.

llama.cpp has no such architecture. The layout is that of its `bert`, under `deberta-v2.`, with these additions:

    deberta-v2.attention.relative_positions_max    farthest distance (max_relative_positions, or where that is not
                                                   positive max_position_embeddings)
    deberta-v2.attention.relative_buckets_count    buckets in each direction (position_buckets); 0 for none
    deberta-v2.classifier.output_labels            names of the classes
    rel_embd.weight                                twice the buckets (or distances) x width
    rel_embd_norm.weight, rel_embd_norm.bias
    cls.weight, cls.bias                           the pooler's matrix, followed by GELU
    cls.output.weight, cls.output.bias             one row per class

Both terms of relative positions are used (pos_att_type "p2c|c2p"), with the matrices of queries and keys
(share_att_key). The input is token embeddings alone: neither learned positions nor token types.
"""

from __future__ import annotations

import math

from llamacpu.families.config import Config
from llamacpu.families.encoder import encoder
from llamacpu.families.limits import MAX_CONTEXT
from llamacpu.gguf.file import GGUFFile

__all__ = ["deberta_v2"]


def deberta_v2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. A score sums three products: one of contents, two with a distance."""
    fields, integer = encoder(file, name), file.metadata.integer
    distances = {
        "relative_positions": integer(f"{name}.attention.relative_positions_max", minimum=1, maximum=MAX_CONTEXT),
        "relative_buckets": integer(f"{name}.attention.relative_buckets_count", 0, minimum=0, maximum=MAX_CONTEXT),
        "attention_scale": 1 / math.sqrt(3 * fields["key_size"]),
        "rope_size": 0,
        "rotation": ["none"] * fields["layers"],
    }
    return Config(**fields | distances | {"gate": "none", "activation": "gelu", "classifier_activation": "gelu"})
