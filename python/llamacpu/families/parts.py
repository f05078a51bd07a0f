"""Parts of a configuration that many families read from the same keys.

Each function returns fields of `Config` by name. Raises ModelError for metadata that is missing or out of range.
"""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.metadata import StringArray

__all__ = ["experts", "heads", "refuse_lookahead", "rope", "sizes", "vocab_size"]

Fields = dict[str, Any]

MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_WIDTH = 1 << 28
MAX_HEAD_SIZE = 1 << 16
MAX_CONTEXT = 1 << 30
MAX_VOCABULARY = 1 << 30


def refuse_lookahead(file: GGUFFile, name: str) -> None:
    """Raise ModelError for a model whose tokens see those behind them."""
    if not file.metadata.flag(f"{name}.attention.causal", True):
        raise ModelError(
            f"{name}.attention.causal is false: tokens of this model look ahead, which this version does not run; "
            "expected a model whose tokens see only those before them"
        )


def sizes(file: GGUFFile, name: str) -> Fields:
    """Layers, widths, context and vocabulary."""
    metadata = file.metadata
    layers = metadata.integer(f"{name}.block_count", minimum=1, maximum=MAX_LAYERS)
    return {
        "vocab_size": vocab_size(file, name),
        "context_length": metadata.integer(f"{name}.context_length", minimum=1, maximum=MAX_CONTEXT),
        "embedding_length": metadata.integer(f"{name}.embedding_length", minimum=1, maximum=MAX_WIDTH),
        "layers": layers,
        "feed_forward": metadata.integers(f"{name}.feed_forward_length", layers, minimum=1, maximum=MAX_WIDTH),
    }


def vocab_size(file: GGUFFile, name: str) -> int:
    """Rows of the embedding: one a token of the vocabulary, where the file has one."""
    key = f"{name}.vocab_size"
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, StringArray):
        return file.metadata.integer(key, minimum=1, maximum=MAX_VOCABULARY)
    shape = next((tensor.shape for tensor in file.tensors if tensor.name == "token_embd.weight"), None)
    if shape is not None and (len(shape) < 2 or shape[1] != len(tokens)):
        raise ModelError(
            f"the vocabulary has {len(tokens)} tokens, but token_embd.weight has the shape {shape}; "
            "expected one row a token; the file was converted wrongly"
        )
    if not len(tokens):
        raise ModelError("the vocabulary (tokenizer.ggml.tokens) is empty; the file was converted wrongly")
    return len(tokens)


def heads(file: GGUFFile, name: str, layers: int, width: int) -> Fields:
    """Number and size of the attention heads; both counts may differ from layer to layer (pruned models)."""
    metadata = file.metadata
    heads = metadata.integers(f"{name}.attention.head_count", layers, minimum=1, maximum=MAX_WIDTH)
    kv_heads = metadata.integers(f"{name}.attention.head_count_kv", layers, heads, minimum=1, maximum=MAX_WIDTH)
    for layer, (query, shared) in enumerate(zip(heads, kv_heads, strict=True)):
        if query % shared:
            raise ModelError(
                f"layer {layer} has {query} heads and {shared} key and value heads ({name}.attention.head_count_kv); "
                "expected a divisor of the number of heads"
            )
    if f"{name}.attention.key_length" not in metadata and width % heads[0]:
        raise ModelError(
            f"{name}.embedding_length {width} is no multiple of {heads[0]} heads ({name}.attention.head_count), and "
            f"{name}.attention.key_length, which would give the size of a head, is missing"
        )
    default = width // heads[0]
    key_size = metadata.integer(f"{name}.attention.key_length", default, minimum=1, maximum=MAX_HEAD_SIZE)
    value_size = metadata.integer(f"{name}.attention.value_length", default, minimum=1, maximum=MAX_HEAD_SIZE)
    if key_size % 2:
        raise ModelError(f"heads have {key_size} elements ({name}.attention.key_length); expected an even number")
    return {"heads": heads, "kv_heads": kv_heads, "key_size": key_size, "value_size": value_size}


def rope(file: GGUFFile, name: str, key_size: int, context_length: int) -> Fields:
    """Rotary positions and their scaling. YaRN: Peng et al. 2023, https://arxiv.org/abs/2309.00071."""
    metadata = file.metadata
    prefix = f"{name}.rope.scaling"
    size = metadata.integer(f"{name}.rope.dimension_count", key_size, minimum=0, maximum=key_size)
    if size % 2:
        raise ModelError(f"{name}.rope.dimension_count is {size}; expected an even number: elements turn in pairs")
    # 0 stands for 1; scale_linear is the key of files from 2023.
    factor = metadata.number(f"{prefix}.factor", metadata.number(f"{name}.rope.scale_linear", 0.0), minimum=0) or 1.0
    scaling = metadata.text(f"{prefix}.type", "linear")
    if scaling not in ("none", "linear", "yarn"):
        raise ModelError(f"{prefix}.type is {scaling[:60]!r}; this version runs none, linear and yarn")
    if scaling == "none" or (scaling == "linear" and factor == 1.0):
        scaling, factor = "none", 1.0
    base = metadata.number(f"{name}.rope.freq_base", Config.rope_base, above=0)
    if scaling == "yarn" and (base <= 1.0 or factor < 1.0):
        raise ModelError(
            f"{name}.rope.freq_base is {base} and {prefix}.factor {factor}; "
            "expected a base of more than 1 and a factor of at least 1 with YaRN scaling"
        )
    extrapolation = metadata.number(f"{prefix}.yarn_ext_factor", -1.0)
    if scaling != "yarn":
        extrapolation = 0.0
    elif extrapolation < 0:  # the file leaves it to the reader
        extrapolation = 1.0
    return {
        "rope_size": size,
        "rope_base": base,
        "rope_scaling": scaling,
        "rope_factor": factor,
        "rope_original_context": metadata.integer(
            f"{prefix}.original_context_length", context_length, minimum=1, maximum=MAX_CONTEXT
        ),
        "yarn_ext_factor": extrapolation,
        "yarn_attn_factor": metadata.number(f"{prefix}.attn_factor", 1.0, above=0)
        * metadata.number(f"{prefix}.yarn_attn_factor", 1.0, above=0),
        "yarn_log_multiplier": metadata.number(f"{prefix}.yarn_log_multiplier", Config.yarn_log_multiplier, minimum=0),
        "yarn_beta_fast": metadata.number(f"{prefix}.yarn_beta_fast", Config.yarn_beta_fast, above=0),
        "yarn_beta_slow": metadata.number(f"{prefix}.yarn_beta_slow", Config.yarn_beta_slow, above=0),
    }


def experts(file: GGUFFile, name: str) -> Fields:
    """Mixture of experts as in Mixtral: Jiang et al. 2024, https://arxiv.org/abs/2401.04088."""
    metadata = file.metadata
    experts = metadata.integer(f"{name}.expert_count", 0, maximum=MAX_EXPERTS)
    least = 1 if experts else 0
    used = metadata.integer(f"{name}.expert_used_count", 0, minimum=least, maximum=experts if experts else MAX_EXPERTS)
    gating = metadata.integer(f"{name}.expert_gating_func", 0)
    names = {0: "softmax", 1: "softmax", 2: "sigmoid", 3: "softmax_selected"}
    if gating not in names:
        raise ModelError(f"{name}.expert_gating_func is {gating}; expected 1 (softmax), 2 (sigmoid) or 3 (selected)")
    return {
        "experts": experts,
        "experts_used": used if experts else 0,
        "expert_weights_norm": metadata.flag(f"{name}.expert_weights_norm", Config.expert_weights_norm),
        "expert_weights_scale": metadata.number(f"{name}.expert_weights_scale", 0.0, minimum=0) or 1.0,
        "expert_gating": names[gating],
    }
