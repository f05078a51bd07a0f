"""Tiny checkpoints of DeepSeek V4 in the form of DeepSeek's own code: experts in MXFP4, matrices in 8 bits or 16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoint_files import Stored, safetensors_bytes
from converted_checkpoints import load
from deterministic import Stream

__all__ = ["CONFIG", "EXPERTS", "LAYERS", "write_checkpoint"]

VOCABULARY, WIDTH, HEADS, HEAD, RANK, STREAMS, INNER, EXPERTS, USED = 320, 64, 4, 32, 32, 4, 32, 4, 2
GROUPS, OUTPUT_RANK, INDEX_HEADS, INDEX_SIZE = 2, 32, 8, 16
RATIOS = [0, 4, 128, 4]
LAYERS = len(RATIOS)
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "vocab_size": VOCABULARY,
    "hidden_size": WIDTH, "moe_intermediate_size": INNER, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": 1, "head_dim": HEAD, "q_lora_rank": RANK, "qk_rope_head_dim": 8, "o_groups": GROUPS,
    "o_lora_rank": OUTPUT_RANK, "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": USED,
    "scoring_func": "sqrtsoftplus", "norm_topk_prob": True, "routed_scaling_factor": 1.5, "swiglu_limit": 10.0,
    "topk_method": "noaux_tc", "num_hash_layers": 2, "compress_ratios": [*RATIOS, 0], "compress_rope_theta": 160000.0,
    "rope_theta": 10000.0, "sliding_window": 16, "index_n_heads": INDEX_HEADS, "index_head_dim": INDEX_SIZE,
    "index_topk": 8, "hc_mult": STREAMS, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 1024, "num_nextn_predict_layers": 1, "expert_dtype": "fp4", "torch_dtype": "bfloat16",
    "rope_scaling": {
        "type": "yarn", "factor": 16, "beta_fast": 32, "beta_slow": 1, "original_max_position_embeddings": 64,
    },
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "scale_fmt": "ue8m0",
        "weight_block_size": [128, 128],
    },
}  # fmt: skip


def _shapes(layer: int, ratio: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of the tensors of a layer, without the experts."""
    mixed = (2 + STREAMS) * STREAMS
    found: dict[str, tuple[str, tuple[int, ...]]] = {
        "attn_norm.weight": ("BF16", (WIDTH,)),
        "ffn_norm.weight": ("BF16", (WIDTH,)),
        "attn.attn_sink": ("F32", (HEADS,)),
        "attn.wq_a.weight": ("FP8", (RANK, WIDTH)),
        "attn.q_norm.weight": ("BF16", (RANK,)),
        "attn.wq_b.weight": ("FP8", (HEADS * HEAD, RANK)),
        "attn.wkv.weight": ("FP8", (HEAD, WIDTH)),
        "attn.kv_norm.weight": ("BF16", (HEAD,)),
        "attn.wo_a.weight": ("FP8", (GROUPS * OUTPUT_RANK, HEADS * HEAD // GROUPS)),
        "attn.wo_b.weight": ("FP8", (WIDTH, GROUPS * OUTPUT_RANK)),
        "ffn.gate.weight": ("BF16", (EXPERTS, WIDTH)),
        "ffn.shared_experts.w1.weight": ("FP8", (INNER, WIDTH)),
        "ffn.shared_experts.w2.weight": ("FP8", (WIDTH, INNER)),
        "ffn.shared_experts.w3.weight": ("FP8", (INNER, WIDTH)),
    }
    for part in ("attn", "ffn"):
        found |= {
            f"hc_{part}_fn": ("F32", (mixed, STREAMS * WIDTH)),
            f"hc_{part}_base": ("F32", (mixed,)),
            f"hc_{part}_scale": ("F32", (3,)),
        }
    places = [("attn.compressor", HEAD)] * bool(ratio) + [("attn.indexer.compressor", INDEX_SIZE)] * (ratio == 4)
    for place, size in places:
        both = size * (2 if ratio == 4 else 1)
        found |= {
            f"{place}.ape": ("F32", (ratio, both)),
            f"{place}.wkv.weight": ("BF16", (both, WIDTH)),
            f"{place}.wgate.weight": ("BF16", (both, WIDTH)),
            f"{place}.norm.weight": ("BF16", (size,)),
        }
    if ratio == 4:
        found["attn.indexer.wq_b.weight"] = ("FP8", (INDEX_HEADS * INDEX_SIZE, RANK))
        found["attn.indexer.weights_proj.weight"] = ("BF16", (INDEX_HEADS, WIDTH))
    found["ffn.gate.tid2eid" if layer < CONFIG["num_hash_layers"] else "ffn.gate.bias"] = ("F32", (EXPERTS,))
    return found


def _floats(name: str, kind: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Numbers that BF16 holds, and that keep a model from overflowing."""
    values = Stream(name).standard_normal(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.2)
    values = (values + ("norm" in name)).astype(np.float32)
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def _stored(name: str, kind: str, shape: tuple[int, ...]) -> dict[str, Stored]:
    if kind == "FP8":
        codes = Stream(name).bytes(shape[0] * shape[1]).reshape(shape)
        codes = codes & 0b10111111  # less than 2, and no NaN
        scales = np.full((-(-shape[0] // 128), -(-shape[1] // 128)), 127 - 3, np.uint8)
        return {name: ("F8_E4M3", codes), name.removesuffix("weight") + "scale": ("F8_E8M0", scales)}
    values = _floats(name, kind, shape)
    return {name: values if kind == "F32" else ("BF16", (values.view(np.uint32) >> 16).astype(np.uint16))}


def _expert(name: str, rows: int, columns: int, packed: bool) -> dict[str, Stored]:
    if not packed:
        return _stored(f"{name}.weight", "BF16", (rows, columns))
    codes = Stream(name).bytes(rows * columns // 2).reshape(rows, columns // 2)
    scales = 122 + Stream(f"{name}.scale").bytes(rows * columns // 32).reshape(rows, columns // 32) % 4
    return {f"{name}.weight": codes.view(np.int8), f"{name}.scale": ("F8_E8M0", scales.astype(np.uint8))}


def tensors(packed: bool = True) -> dict[str, Stored]:
    """All tensors, those of the layer that predicts further tokens among them; `packed`: experts in MXFP4."""
    found = _stored("embed.weight", "BF16", (VOCABULARY, WIDTH)) | _stored("norm.weight", "BF16", (WIDTH,))
    found |= _stored("head.weight", "BF16", (VOCABULARY, WIDTH))
    found |= _stored("hc_head_fn", "F32", (STREAMS, STREAMS * WIDTH)) | _stored("hc_head_base", "F32", (STREAMS,))
    found |= _stored("hc_head_scale", "F32", (1,)) | _stored("mtp.0.enorm.weight", "BF16", (WIDTH,))
    for layer, ratio in enumerate(RATIOS):
        prefix = f"layers.{layer}"
        for part, (kind, shape) in _shapes(layer, ratio).items():
            name = f"{prefix}.{part}"
            if part.endswith("tid2eid"):
                drawn = Stream(name).units((VOCABULARY, EXPERTS)).argsort(axis=1)[:, :USED]
                found[name] = drawn.astype(np.int64)
            else:
                found |= _stored(name, kind, shape)
        for expert in range(EXPERTS):
            for part, rows, columns in (("w1", INNER, WIDTH), ("w2", WIDTH, INNER), ("w3", INNER, WIDTH)):
                found |= _expert(f"{prefix}.ffn.experts.{expert}.{part}", rows, columns, packed)
    return found


def write_checkpoint(
    folder: Path, changes: dict[str, Any] | None = None, values: dict[str, Any] | None = None, packed: bool = True
) -> Path:
    """Write the checkpoint into a folder, which is made; `changes` replace entries of config.json, `values` tensors.

    None removes what it stands for.
    """
    folder.mkdir(parents=True)
    config = {key: value for key, value in {**CONFIG, **(changes or {})}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    stored = {key: value for key, value in {**tensors(packed), **(values or {})}.items() if value is not None}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(stored.items()))))
    for name, text in load()["tokenizers"]["words"].items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
