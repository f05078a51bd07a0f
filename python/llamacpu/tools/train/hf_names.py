"""The names that Hugging Face's models give to the matrices of a file, and the order of their rows.

llama.cpp's converter reorders the rows of queries and keys of some families, so that neighbouring elements are rotated
together; an adapter in Hugging Face's form needs the order of the original.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llamacpu.errors import TrainingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["GGUF_NAMES", "hf_name", "hf_rows", "known_families"]

_USUAL = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_PHI3 = {
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
_GLM4 = {**_USUAL, "ffn_up": "mlp.gate_up_proj"}
_STARCODER2 = {**_USUAL, "ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"}

_FAMILIES = {
    **dict.fromkeys(("llama", "mistral3", "granite", "smollm3", "arcee", "minicpm", "xverse"), (_USUAL, True)),
    **dict.fromkeys(
        (
            "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "command-r", "cohere2", "stablelm", "nemotron",
            "seed_oss", "ernie4_5", "exaone4",
        ),
        (_USUAL, False),
    ),
    "glm4": (_GLM4, False),
    "phi3": (_PHI3, False),
    "starcoder2": (_STARCODER2, False),
}  # fmt: skip
_ENDS = {"token_embd": "model.embed_tokens", "output": "lm_head"}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)")

GGUF_NAMES: dict[str, str] = {
    **{name.rpartition(".")[2]: gguf for gguf, name in _USUAL.items()},
    "qkv_proj": "attn_qkv",
    "gate_up_proj": "ffn_up",
    "c_fc": "ffn_up",
    **{name.rpartition(".")[2]: gguf for gguf, name in _ENDS.items()},
}
"""The last part of Hugging Face's name to the name in a file."""


def known_families() -> list[str]:
    """The architectures whose names are known."""
    return sorted(_FAMILIES)


def hf_name(architecture: str, target: str) -> str:
    """Hugging Face's name of a matrix: "blk.0.attn_q" -> "model.layers.0.self_attn.q_proj".

    Raises TrainingError for a family or a matrix without a known name.
    """
    if architecture in _FAMILIES and target in _ENDS:
        return _ENDS[target]
    names = _FAMILIES.get(architecture, ({}, False))[0]
    match = _BLOCK.fullmatch(target)
    if match is None or match[2] not in names:
        raise TrainingError(
            f"Hugging Face's name of {target} in models of the architecture {architecture!r} is not known; "
            f"PEFT folders are written for {', '.join(known_families())}"
        )
    return f"model.layers.{match[1]}.{names[match[2]]}"


def hf_rows(
    architecture: str, target: str, values: NDArray[np.float32], heads: int, kv_heads: int
) -> NDArray[np.float32]:
    """The rows of a matrix [rows, columns] in the order of Hugging Face's model."""
    kind = target.rpartition(".")[2]
    if not _FAMILIES[architecture][1] or kind not in ("attn_q", "attn_k"):
        return values
    count = heads if kind == "attn_q" else kv_heads
    rows, columns = values.shape
    # In the file, row 2 i + j of a head is row i + j * (half of the head's size) of the original.
    return values.reshape(count, rows // count // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
