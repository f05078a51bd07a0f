"""BERT and DeBERTa of transformers to GGUF: the names that llama.cpp's converter gives, and for DeBERTa those of
`llamacpu.families.deberta_v2`. Weights stay in F32."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGUFWriter

_NAMES = [
    (r"embeddings\.word_embeddings", "token_embd"),
    (r"embeddings\.position_embeddings", "position_embd"),
    (r"embeddings\.token_type_embeddings", "token_types"),
    (r"embeddings\.LayerNorm", "token_embd_norm"),
    (r"encoder\.rel_embeddings", "rel_embd"),
    (r"encoder\.LayerNorm", "rel_embd_norm"),
    (r"encoder\.layer\.(\d+)\.attention\.self\.(q|k|v)(?:uery|ey|alue)(?:_proj)?", r"blk.\1.attn_\2"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense", r"blk.\1.attn_output"),
    (r"encoder\.layer\.(\d+)\.attention\.output\.LayerNorm", r"blk.\1.attn_output_norm"),
    (r"encoder\.layer\.(\d+)\.intermediate\.dense", r"blk.\1.ffn_up"),
    (r"encoder\.layer\.(\d+)\.output\.dense", r"blk.\1.ffn_down"),
    (r"encoder\.layer\.(\d+)\.output\.LayerNorm", r"blk.\1.layer_output_norm"),
]
_CLASSIFIER = [(r"pooler\.dense", "cls"), (r"classifier", "cls.output")]


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The F32 tensors of a file: eight bytes of length, a header in JSON, then the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if entry.get("dtype") == "F32":
            first, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[start + first : start + end], "<f4").reshape(entry["shape"])
    return tensors


def convert(
    path: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    tokens: Sequence[str],
    *,
    pooling: int,
    lowercase: bool = True,
) -> Path:
    """Writes a model with a WordPiece vocabulary; `config` and `weights` are those of transformers."""
    architecture = {"bert": "bert", "deberta-v2": "deberta-v2"}[config["model_type"]]
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(pooling))
    classifies = "classifier.weight" in weights
    if architecture == "deberta-v2":
        assert config["relative_attention"]
        assert config["share_att_key"]
        assert set(config["pos_att_type"]) == {"c2p", "p2c"}
        assert not config["position_biased_input"]
        most = config["max_relative_positions"]
        most = most if most > 0 else config["max_position_embeddings"]
        writer.add_uint32(f"{architecture}.attention.relative_positions_max", most)
        writer.add_uint32(f"{architecture}.attention.relative_buckets_count", max(config.get("position_buckets", 0), 0))
    if classifies:
        writer.add_classifier_output_labels([config["id2label"][key] for key in sorted(config["id2label"], key=int)])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_marked(token) for token in tokens])
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    for token, name in zip(special, ("padding", "unknown", "cls", "seperator", "mask"), strict=True):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", tokens.index(token))
    writer.add_uint32("tokenizer.ggml.bos_token_id", tokens.index("[CLS]"))
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)
    table = [*_NAMES, *(_CLASSIFIER if classifies else [])]
    for name, values in weights.items():
        stem, _, kind = name.removeprefix("bert.").removeprefix("deberta.").rpartition(".")
        for pattern, replacement in table:
            if re.fullmatch(pattern, stem):
                new = re.sub(pattern, replacement, stem)
                writer.add_tensor(f"{new}.{kind}", np.ascontiguousarray(values, dtype=np.float32))
                break
        else:
            assert stem.startswith(("pooler", "embeddings.position_ids", "embeddings")), f"unknown tensor {name}"
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _marked(token: str) -> str:
    if token.startswith("["):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token
