"""What a model is: GGUF metadata to the configuration that the native model runs, one function per architecture.

A new family is a function here that translates its keys into the same sizes and switches, and a row in `FAMILIES`.
The keys of the result are the fields of `Config` in rust/model/src/config.rs, where each is explained.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.metadata import StringArray

__all__ = ["FAMILIES", "config_for"]

log = logging.getLogger("llamacpu")

Config = dict[str, Any]

MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_WIDTH = 1 << 28
MAX_HEAD_SIZE = 1 << 16
MAX_CONTEXT = 1 << 30
MAX_VOCABULARY = 1 << 30

# Files that are sound GGUF and no language model, by general.type and by general.architecture.
_OTHER_KINDS = {
    "adapter": "a LoRA adapter; open the model it was made for",
    "imatrix": "an importance matrix, which is input for quantizing; open a model",
    "mmproj": "the vision part of a model; open the language model that belongs to it",
}
_OTHER_ARCHITECTURES = {
    "clip": "the vision part of a model; open the language model that belongs to it",
    "controlvector": "a control vector; open the model it was made for",
    "imatrix": _OTHER_KINDS["imatrix"],
    "mllama": "Llama 3.2 Vision, whose cross-attention layers this version does not run; "
    "the text models Llama 3.1 8B and 70B are the same without images",
}


def config_for(file: GGUFFile) -> Config:
    """The configuration of the model in `file`, as a dict of plain values.

    Raises `ModelError` if the file is not a language model, has an architecture that is not known, or has metadata that
    is missing or out of range. Tensors are looked up and shape-checked by the native model.
    """
    metadata = file.metadata
    try:
        kind = metadata.text("general.type", "model")
        if kind in _OTHER_KINDS:
            raise ModelError(f"this is {_OTHER_KINDS[kind]}")
        name = metadata.text("general.architecture")
        if name in _OTHER_ARCHITECTURES:
            raise ModelError(f"this is {_OTHER_ARCHITECTURES[name]}")
        if name not in FAMILIES:
            known = ", ".join(sorted(FAMILIES))
            raise ModelError(f"the architecture {name[:60]!r} is not supported; supported are: {known}")
        if not file.tensors:
            raise ModelError(
                "the file holds a vocabulary and no weights; open it with llamacpu.Tokenizer, or get the model"
            )
        return FAMILIES[name](file, name)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None


def _llama(file: GGUFFile, name: str) -> Config:
    """Llama 1 to 3.3, Mistral, Mixtral and every other model written as `llama`: the graph of the Llama papers."""
    metadata = file.metadata
    if not metadata.flag(f"{name}.attention.causal", True):
        raise ModelError(
            f"{name}.attention.causal is false: tokens of this model look ahead, which this version does not run; "
            "expected a model whose tokens see only those before them"
        )
    layers = metadata.integer(f"{name}.block_count", minimum=1, maximum=MAX_LAYERS)
    width = metadata.integer(f"{name}.embedding_length", minimum=1, maximum=MAX_WIDTH)
    config: Config = {
        "architecture": name,
        "vocab_size": _vocab_size(file, name),
        "context_length": metadata.integer(f"{name}.context_length", minimum=1, maximum=MAX_CONTEXT),
        "embedding_length": width,
        "layers": layers,
        "feed_forward": metadata.integers(f"{name}.feed_forward_length", layers, minimum=1, maximum=MAX_WIDTH),
        "rms_epsilon": metadata.number(f"{name}.attention.layer_norm_rms_epsilon", above=0),
        "rope_style": "interleaved",
        "attention_scale": metadata.number(f"{name}.attention.scale", 0.0, minimum=0),
        "embedding_scale": metadata.number(f"{name}.embedding_scale", 0.0, minimum=0) or 1.0,
        "residual_scale": metadata.number(f"{name}.residual_scale", 0.0, minimum=0) or 1.0,
        # Granite divides the logits by this number.
        "logit_scale": 1.0 / (metadata.number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0),
    }
    config |= _heads(file, name, layers, width)
    config |= _rope(file, name, config)
    config |= _experts(file, name)
    _warn_about_missing_frequencies(file, config)
    return config


def _vocab_size(file: GGUFFile, name: str) -> int:
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


def _heads(file: GGUFFile, name: str, layers: int, width: int) -> Config:
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


def _rope(file: GGUFFile, name: str, config: Config) -> Config:
    """Rotary positions and their scaling. YaRN: Peng et al. 2023, https://arxiv.org/abs/2309.00071."""
    metadata = file.metadata
    prefix = f"{name}.rope.scaling"
    size = metadata.integer(f"{name}.rope.dimension_count", config["key_size"], minimum=0, maximum=config["key_size"])
    if size % 2:
        raise ModelError(f"{name}.rope.dimension_count is {size}; expected an even number: elements turn in pairs")
    # 0 stands for 1; scale_linear is the key of files from 2023.
    factor = metadata.number(f"{prefix}.factor", metadata.number(f"{name}.rope.scale_linear", 0.0), minimum=0) or 1.0
    scaling = metadata.text(f"{prefix}.type", "linear")
    if scaling not in ("none", "linear", "yarn"):
        raise ModelError(f"{prefix}.type is {scaling[:60]!r}; this version runs none, linear and yarn")
    if scaling == "none" or (scaling == "linear" and factor == 1.0):
        scaling, factor = "none", 1.0
    base = metadata.number(f"{name}.rope.freq_base", 10000.0, above=0)
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
            f"{prefix}.original_context_length", config["context_length"], minimum=1, maximum=MAX_CONTEXT
        ),
        "yarn_ext_factor": extrapolation,
        "yarn_attn_factor": _yarn_attention(file, prefix, factor, extrapolation),
        "yarn_beta_fast": metadata.number(f"{prefix}.yarn_beta_fast", 32.0, above=0),
        "yarn_beta_slow": metadata.number(f"{prefix}.yarn_beta_slow", 1.0, above=0),
    }


def _yarn_attention(file: GGUFFile, prefix: str, factor: float, extrapolation: float) -> float:
    """Factor of sine and cosine, besides the 1 + 0.1 ln(factor) that the rotation itself applies with YaRN."""
    metadata = file.metadata
    attention = metadata.number(f"{prefix}.attn_factor", 1.0, above=0)
    attention *= metadata.number(f"{prefix}.yarn_attn_factor", 1.0, above=0)
    multiplier = metadata.number(f"{prefix}.yarn_log_multiplier", 0.0, minimum=0)
    return attention if extrapolation == 0 else attention / (1.0 + 0.1 * multiplier * math.log(factor))


def _experts(file: GGUFFile, name: str) -> Config:
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
        "expert_weights_norm": metadata.flag(f"{name}.expert_weights_norm", True),
        "expert_weights_scale": metadata.number(f"{name}.expert_weights_scale", 0.0, minimum=0) or 1.0,
        "expert_gating": names[gating],
    }


def _warn_about_missing_frequencies(file: GGUFFile, config: Config) -> None:
    """The first files of Llama 3.1 lack the frequency factors, without which long texts go wrong."""
    if config["context_length"] != 131072 or config["rope_base"] != 500000.0 or config["rope_scaling"] != "none":
        return
    if not any(tensor.name == "rope_freqs.weight" for tensor in file.tensors):
        log.warning(
            "%s looks like Llama 3.1 but lacks rope_freqs.weight: long prompts will go badly; get a newer file",
            file.path.name,
        )


FAMILIES: dict[str, Callable[[GGUFFile, str], Config]] = {"llama": _llama}
"""Architecture name, as in general.architecture, to the function that reads its metadata."""
