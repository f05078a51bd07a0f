"""The parts of a configuration that many families read from the same keys.

Each function returns fields of `Config` by name. Raises ModelError for metadata that is missing or out of range.
"""

from __future__ import annotations

import math
from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families.config import Config
from llamacpu.families.experts import experts
from llamacpu.families.limits import MAX_CONTEXT, MAX_HEAD_SIZE, MAX_LAYERS, MAX_VOCABULARY, MAX_WIDTH
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.metadata import StringArray

__all__ = [
    "classes",
    "common",
    "gemma",
    "gemma_attention_scale",
    "granite_scales",
    "has",
    "heads",
    "linear_biases",
    "local_layers",
    "lookahead",
    "query_key_norm",
    "rope",
    "sizes",
    "temperature",
    "vocab_size",
    "window",
    "windows",
    "without_predictors",
]

Fields = dict[str, Any]


def common(
    file: GGUFFile,
    name: str,
    *,
    norm: str = "rms",
    expert_weights_norm: bool = True,
    absent: bool = False,
    vocab: int = 0,
) -> Fields:
    """The fields that nearly every family reads from the same keys.

    `norm` is the kind of norm, `expert_weights_norm` the default for files that do not state it. `absent`: layers may
    lack attention or feed-forward network, as zeros indicate. `vocab`: rows of the output matrix, where the embedding's
    rows do not give them.
    """
    metadata = file.metadata
    least = 0 if absent else 1
    fields: Fields = {"architecture": name, "norm": norm, "vocab_size": vocab or vocab_size(file, name)}
    fields |= sizes(file, name, least) | lookahead(file, name)
    fields |= heads(file, name, fields["layers"], fields["embedding_length"], least)
    fields |= rope(file, name, fields["key_size"], fields["context_length"])
    fields |= experts(file, name, expert_weights_norm)
    kind = "rms_" if norm == "rms" else ""
    return fields | {
        "norm_epsilon": metadata.number(f"{name}.attention.layer_norm_{kind}epsilon", above=0),
        "attention_scale": metadata.number(f"{name}.attention.scale", 0.0, minimum=0),
    }


def classes(file: GGUFFile) -> Fields:
    """The number of scores of the classifier in the file: 0 if it has none."""
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    shape = shapes.get("cls.output.weight", shapes.get("cls.weight", (0, 0)))
    return {"classes": shape[1] if len(shape) > 1 else 1}


def has(file: GGUFFile, tensor: str) -> bool:
    """Whether the file has a tensor with this name."""
    return any(other.name == tensor for other in file.tensors)


def linear_biases(layers: int, largest: float) -> Fields:
    """Linear biases of attention in place of rotated positions: Press et al. 2021, https://arxiv.org/abs/2108.12409.

    `largest` is the exponent of the smallest slope, 8 in the paper; 0 for no biases.
    """
    return {"alibi": largest, "rope_size": 0, "rotation": ["none"] * layers}


def local_layers(file: GGUFFile, name: str, layers: int, period: int, *, first: bool = False) -> list[bool]:
    """Which layers see only their neighbourhood: all but the last of every `period`, unless the file says otherwise.

    `first`: all but the first.
    `attention.sliding_window_pattern` is another period, or one flag per layer.
    """
    import numpy as np

    key = f"{name}.attention.sliding_window_pattern"
    pattern = file.metadata.get(key)
    if isinstance(pattern, np.ndarray):
        if len(pattern) != layers or pattern.dtype.kind not in "biu":
            raise ModelError(
                f"{key} is {pattern!r:.60}; expected a number, or true or false for each of {layers} layers"
            )
        return [bool(flag) for flag in pattern]
    period = file.metadata.integer(key, period, minimum=0, maximum=MAX_LAYERS)
    far = 0 if first else period - 1
    return [period == 0 or layer % period != far for layer in range(layers)]


def window(file: GGUFFile, name: str, default: int | None = None) -> int:
    """Number of tokens that a token sees in a local layer, itself included; 0 for all."""
    return file.metadata.integer(f"{name}.attention.sliding_window", default, minimum=0, maximum=MAX_CONTEXT)


def windows(file: GGUFFile, name: str, layers: int, period: int) -> Fields:
    """Sliding windows in all but the last of every `period` layers, with rotations that are not scaled."""
    size = window(file, name, 0)
    local = [size > 0 and near for near in local_layers(file, name, layers, period)]
    return {
        "window": [size * near for near in local],
        "rotation": ["local" if near else "global" for near in local],
        "rope_local_base": file.metadata.number(f"{name}.rope.freq_base_swa", 0.0, minimum=0),
    }


def granite_scales(file: GGUFFile, name: str) -> Fields:
    """Constant factors; the logits are divided by theirs. 0 and a missing key mean 1."""
    number = file.metadata.number
    return {
        "embedding_scale": number(f"{name}.embedding_scale", 0.0, minimum=0) or 1.0,
        "residual_scale": number(f"{name}.residual_scale", 0.0, minimum=0) or 1.0,
        "logit_scale": 1.0 / (number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0),
    }


def gemma(fields: Fields) -> Fields:
    """What all Gemma models have in common: https://arxiv.org/abs/2403.08295."""
    return {"rope_style": "neox", "activation": "gelu_tanh", "embedding_scale": math.sqrt(fields["embedding_length"])}


def gemma_attention_scale(fields: Fields, largest: int) -> float:
    """Factor of attention scores; the 27B model, recognized by its layer count, takes width / heads as head size."""
    if fields["layers"] != largest:
        return float(fields["attention_scale"])
    return 1 / math.sqrt(fields["embedding_length"] / fields["heads"][0])


def query_key_norm(file: GGUFFile, layers: int, kind: str) -> list[str]:
    """`kind` for the layers that have norms of queries and keys in the file, "none" for the rest."""
    return [kind if has(file, f"blk.{layer}.attn_q_norm.weight") else "none" for layer in range(layers)]


def lookahead(file: GGUFFile, name: str) -> Fields:
    """The fields of decoders trained further as embedding models: bidirectional, without an output matrix."""
    if file.metadata.flag(f"{name}.attention.causal", True):
        return {}
    return {"causal": False, "output": False, "ignored_tensors": ["output.weight", "output.bias"]}


def sizes(file: GGUFFile, name: str, least: int = 1) -> Fields:
    """Layers, widths and context; feed-forward networks are at least `least` wide."""
    metadata = file.metadata
    layers = metadata.integer(f"{name}.block_count", minimum=1, maximum=MAX_LAYERS)
    # Files of models whose networks are all experts may have the width of these alone.
    inner = metadata.integer(f"{name}.expert_feed_forward_length", 0, maximum=MAX_WIDTH)
    return {
        "context_length": metadata.integer(f"{name}.context_length", minimum=1, maximum=MAX_CONTEXT),
        "embedding_length": metadata.integer(f"{name}.embedding_length", minimum=1, maximum=MAX_WIDTH),
        "layers": layers,
        "feed_forward": metadata.integers(
            f"{name}.feed_forward_length", layers, [inner] * layers if inner else None, minimum=least, maximum=MAX_WIDTH
        ),
    }


def temperature(file: GGUFFile, name: str, fields: Fields) -> Fields:
    """Scores that grow with the position, as in Mistral's models; without the key they do not."""
    growth = file.metadata.number(f"{name}.attention.temperature_scale", 0.0, minimum=0)
    length = file.metadata.integer(
        f"{name}.attention.temperature_length", fields["rope_original_context"], minimum=1, maximum=MAX_CONTEXT
    )
    return {"temperature": [growth] * fields["layers"], "temperature_length": length}


def vocab_size(file: GGUFFile, name: str) -> int:
    """Rows of the embedding: one per token of the vocabulary, if the file has one."""
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


def heads(file: GGUFFile, name: str, layers: int, width: int, least: int = 1) -> Fields:
    """Number and size of the attention heads; both counts may vary by layer (pruned models)."""
    metadata = file.metadata
    heads = metadata.integers(f"{name}.attention.head_count", layers, minimum=least, maximum=MAX_WIDTH)
    kv_heads = metadata.integers(f"{name}.attention.head_count_kv", layers, heads, minimum=least, maximum=MAX_WIDTH)
    for layer, (query, shared) in enumerate(zip(heads, kv_heads, strict=True)):
        if shared and (query % shared or not query):
            raise ModelError(
                f"layer {layer} has {query} heads and {shared} key and value heads ({name}.attention.head_count_kv); "
                "expected a divisor of the number of heads"
            )
    most = max(heads) or 1 if least == 0 else heads[0]
    if f"{name}.attention.key_length" not in metadata and width % most:
        raise ModelError(
            f"{name}.embedding_length {width} is no multiple of {most} heads ({name}.attention.head_count), and "
            f"{name}.attention.key_length, which would give the size of a head, is missing"
        )
    default = width // most
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
    # 0 means 1; scale_linear is the key in files from 2023.
    factor = metadata.number(f"{prefix}.factor", metadata.number(f"{name}.rope.scale_linear", 0.0), minimum=0) or 1.0
    scaling = metadata.text(f"{prefix}.type", "linear")
    if f"{prefix}.type" not in metadata and has(file, "rope_factors_long.weight"):
        scaling = "longrope"
    if scaling not in ("none", "linear", "yarn", "longrope"):
        raise ModelError(f"{prefix}.type is {scaling[:60]!r}; this version runs none, linear, yarn and longrope")
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
        "yarn_truncate": metadata.flag(f"{prefix}.yarn_truncate", Config.yarn_truncate),
    }


def without_predictors(file: GGUFFile, name: str, fields: Fields) -> Fields:
    """The fields without the layers that predict tokens further ahead, which are the last ones in the file."""
    more = file.metadata.integer(f"{name}.nextn_predict_layers", 0, maximum=fields["layers"] - 1)
    layers = fields["layers"] - more
    lists = {part: fields[part][:layers] for part in ("feed_forward", "heads", "kv_heads")}
    return {"layers": layers, "ignored_tensors": [f"blk.{layers + at}." for at in range(more)], **lists}
