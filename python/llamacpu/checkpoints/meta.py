"""Checkpoints in Meta's own form (consolidated.00.pth, params.json), under the names and in the order of Hugging Face.

Meta's code divides the matrices of a model among processes, one file each (model parallelism). Names, division and
parameters: https://github.com/meta-llama/llama (model.py) and https://github.com/meta-llama/llama-models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.checkpoints.views import JoinedTensor, RotatedHeads
from llamacpu.errors import CheckpointError

__all__ = ["from_meta", "is_meta"]

# Meta's names, Hugging Face's names, and the dimension that is divided among the files (None: each has the whole).
_OUTER = {
    "tok_embeddings.weight": ("model.embed_tokens.weight", 0),
    "norm.weight": ("model.norm.weight", None),
    "output.weight": ("lm_head.weight", 0),
}
_INNER = {
    "attention.wq.weight": ("self_attn.q_proj.weight", 0),
    "attention.wk.weight": ("self_attn.k_proj.weight", 0),
    "attention.wv.weight": ("self_attn.v_proj.weight", 0),
    "attention.wo.weight": ("self_attn.o_proj.weight", 1),
    "feed_forward.w1.weight": ("mlp.gate_proj.weight", 0),
    "feed_forward.w2.weight": ("mlp.down_proj.weight", 1),
    "feed_forward.w3.weight": ("mlp.up_proj.weight", 0),
    "attention_norm.weight": ("input_layernorm.weight", None),
    "ffn_norm.weight": ("post_attention_layernorm.weight", None),
}
_LAYER = re.compile(r"layers\.(\d{1,4})\.(.+)")
_COMPUTED = re.compile(r"(layers\.\d+\.attention\.inner_attention\.)?rope\.freqs")
_PARAMETERS = {
    "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size", "multiple_of",
    "ffn_dim_multiplier", "norm_eps", "rope_theta", "use_scaled_rope", "rope_scaling_factor", "rope_high_freq_factor",
    "max_seq_len", "max_batch_size", "model_parallel_size", "sliding_window",
}  # fmt: skip


def is_meta(tensors: Mapping[str, LazyTensor]) -> bool:
    """Whether tensors have the names of Meta's code."""
    return "tok_embeddings.weight" in tensors and "layers.0.attention.wq.weight" in tensors


def from_meta(
    parts: Sequence[Mapping[str, LazyTensor]], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, LazyTensor]]:
    """Return the configuration (as in a config.json) and the tensors of a model under the names of Hugging Face.

    parts       the tensors of each file, in order
    parameters  the content of params.json

    Raises CheckpointError for a model of another structure (several kinds of experts, images), and for parts that do
    not fit together.
    """
    names = parts[0].keys()
    for number, part in enumerate(parts):
        if part.keys() != names:
            name = sorted(part.keys() ^ names)[0]
            raise CheckpointError(f"part {number} of the checkpoint: {name!r:.120} is in some parts and not in others")
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        raise CheckpointError(
            f"params.json: {unknown[0]!r:.60} belongs to a kind of model that is not read in this form; "
            "use the version of the model that has a config.json"
        )
    width = _size(parameters, "dim")
    heads = _size(parameters, "n_heads")
    kv_heads = _size(parameters, "n_kv_heads", heads)
    tensors: dict[str, LazyTensor] = {}
    for name in names:
        if _COMPUTED.fullmatch(name):
            continue
        new, axis = _placed(name)
        shards = [part[name] for part in parts]
        if name == "tok_embeddings.weight" and shards[0].shape[1:] != (width,):
            axis = 1  # Llama 1 and 2 divide the width of the embeddings, Llama 3 the vocabulary
        tensor = shards[0] if axis is None or len(shards) == 1 else JoinedTensor(new, shards, axis)
        if name.endswith((".wq.weight", ".wk.weight")):
            tensor = RotatedHeads(tensor, heads if name.endswith(".wq.weight") else kv_heads)
        tensor.name = new
        tensors[new] = tensor
    return _configuration(parameters, tensors, width, heads, kv_heads), tensors


def _placed(name: str) -> tuple[str, int | None]:
    layer = _LAYER.fullmatch(name)
    new, axis = _INNER.get(layer[2], ("", None)) if layer else _OUTER.get(name, ("", None))
    if not new:
        raise CheckpointError(
            f"the tensor {name!r:.120} does not belong to a text model of Llama 1, 2 or 3 in Meta's form; "
            "use the version of the model that has a config.json"
        )
    return (f"model.layers.{int(layer[1])}.{new}" if layer else new), axis


def _configuration(
    parameters: Mapping[str, Any], tensors: Mapping[str, LazyTensor], width: int, heads: int, kv_heads: int
) -> dict[str, Any]:
    layers = _size(parameters, "n_layers")
    gate, embedding = (
        tensors.get(f"model.layers.{layers - 1}.mlp.gate_proj.weight"),
        tensors.get("model.embed_tokens.weight"),
    )
    if gate is None or embedding is None or len(gate.shape) != 2 or embedding.shape[1:] != (width,):
        raise CheckpointError(f"params.json does not fit the tensors: {layers} layers of the width {width}")
    vocabulary = embedding.shape[0]
    base = float(parameters.get("rope_theta", 10000.0))
    scaled = parameters.get("use_scaled_rope", False) is True
    config: dict[str, Any] = {
        "architectures": ["MistralForCausalLM" if "sliding_window" in parameters else "LlamaForCausalLM"],
        "model_type": "mistral" if "sliding_window" in parameters else "llama",
        "hidden_size": width,
        "intermediate_size": gate.shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": _size(parameters, "head_dim", width // heads),
        "rms_norm_eps": float(parameters.get("norm_eps", 1e-5)),
        "rope_theta": base,
        "vocab_size": vocabulary,
        "max_position_embeddings": _context(parameters, vocabulary, base, width),
        "hidden_act": "silu",
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "torch_dtype": {"BF16": "bfloat16", "F16": "float16"}.get(gate.dtype, "float32"),
    }
    if "sliding_window" in parameters:
        config["sliding_window"] = parameters["sliding_window"]
    if scaled:
        # Files do not say the factor: 32 in Llama 3.2 (1B and 3B), 8 in Llama 3.1.
        factor = parameters.get("rope_scaling_factor", 32.0 if width in (2048, 3072) else 8.0)
        config["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": float(factor),
            "low_freq_factor": 1.0,
            "high_freq_factor": float(parameters.get("rope_high_freq_factor", 4.0)),
            "original_max_position_embeddings": 8192,
        }
    return config


def _context(parameters: Mapping[str, Any], vocabulary: int, base: float, width: int) -> int:
    """The length of texts in training, which the files do not say, by the marks of each generation."""
    if "sliding_window" in parameters:
        return 32768
    if vocabulary > 100_000:
        return 131072 if parameters.get("use_scaled_rope") else 8192
    if base == 1e6:
        return 16384  # Code Llama
    first = parameters.get("norm_eps") != 1e-5 or (width == 8192 and "n_kv_heads" not in parameters)
    return 2048 if first else 4096


def _size(parameters: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = parameters.get(name)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value < 1 << 32:
        raise CheckpointError(f"params.json: {name} is {value!r:.40}; expected a positive whole number")
    return value
