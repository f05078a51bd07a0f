"""What the tensors of a file are: their categories, their order, and which of them are quantized at all."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamacpu.gguf.header import Tensor

__all__ = ["category", "in_order", "is_embedding", "is_quantizable", "layer_of", "matrices", "shape_of", "takes_factor"]

_LAYER = re.compile(r"blk\.(\d+)\.")
_CATEGORIES = (
    ("attn_qkv.weight", "attn_qkv"),
    ("attn_kv_b.weight", "attn_kv_b"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_q.weight", "attn_q"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"),
    ("ffn_gate", "ffn_gate"),
    ("ffn_down", "ffn_down"),
)
_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")
# Small tensors, and those of which a small error changes much: norms, routers, positions, state-space helpers, parts of
# encoders of pictures and sound.
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
# Matrices for which programs look for a factor beside NVFP4 weights.
_FACTORS = re.compile(
    r"blk\.\d+\.(attn_(q|k|v|output|qkv|gate)|ffn_(gate|up|down)(_exps|_shexp)?|ssm_(in|out|alpha|beta))\.weight|"
    r"output\.weight"
)
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The sizes in ggml's order without trailing ones."""
    sizes = tensor.shape
    while sizes and sizes[-1] == 1:
        sizes = sizes[:-1]
    return sizes


def matrices(tensor: Tensor) -> int:
    """How many matrices are stacked: the number of experts, or 1."""
    return tensor.shape[2] if len(tensor.shape) > 2 else 1


def layer_of(name: str) -> int:
    """The layer in a tensor's name; -1 if there is none."""
    found = _LAYER.match(name)
    return int(found[1]) if found else -1


def in_order(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Tensors in the order of quantized files: by layer, then by name; those without a layer first."""
    return sorted(tensors, key=lambda tensor: (layer_of(tensor.name), tensor.name.encode()))


def is_embedding(name: str) -> bool:
    """Whether this is a table of token embeddings."""
    return name in _EMBEDDINGS


def takes_factor(name: str) -> bool:
    """Whether a matrix in NVFP4 may have a factor (`NAME.scale` beside `NAME.weight`) that every program applies."""
    return _FACTORS.fullmatch(name) is not None


def category(name: str) -> str:
    """What a tensor is for: "output", "token_embd", "attn_v", "ffn_down" ...; "" for anything else."""
    if name == "output.weight":
        return "output"
    if is_embedding(name):
        return "token_embd"
    return next((kind for part, kind in _CATEGORIES if part in name), "")


def is_quantizable(tensor: Tensor, leave_output: bool) -> bool:
    """Whether a tensor may get another type at all."""
    name = tensor.name
    return (
        len(shape_of(tensor)) >= 2
        and name.endswith("weight")
        and not (leave_output and name == "output.weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in _KEPT)
    )
