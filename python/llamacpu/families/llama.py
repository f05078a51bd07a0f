"""Llama 1 to 3.3, Mistral, Mixtral and every other model written as `llama`: the graph of the Llama papers."""

from __future__ import annotations

import logging

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["llama"]

log = logging.getLogger("llamacpu")


def llama(file: GGUFFile, name: str) -> Config:
    """The configuration of such a model; `name` is its architecture, with which its keys begin."""
    metadata = file.metadata
    parts.refuse_lookahead(file, name)
    sizes = parts.sizes(file, name)
    heads = parts.heads(file, name, sizes["layers"], sizes["embedding_length"])
    config = Config(
        architecture=name,
        **sizes,
        **heads,
        **parts.rope(file, name, heads["key_size"], sizes["context_length"]),
        **parts.experts(file, name),
        rms_epsilon=metadata.number(f"{name}.attention.layer_norm_rms_epsilon", above=0),
        attention_scale=metadata.number(f"{name}.attention.scale", 0.0, minimum=0),
        embedding_scale=metadata.number(f"{name}.embedding_scale", 0.0, minimum=0) or 1.0,
        residual_scale=metadata.number(f"{name}.residual_scale", 0.0, minimum=0) or 1.0,
        # Granite divides the logits by this number.
        logit_scale=1.0 / (metadata.number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0),
    )
    _warn_about_missing_frequencies(file, config)
    return config


def _warn_about_missing_frequencies(file: GGUFFile, config: Config) -> None:
    """The first files of Llama 3.1 lack the frequency factors, without which long texts go wrong."""
    if config.context_length != 131072 or config.rope_base != 500000.0 or config.rope_scaling != "none":
        return
    if not any(tensor.name == "rope_freqs.weight" for tensor in file.tensors):
        log.warning(
            "%s looks like Llama 3.1 but lacks rope_freqs.weight: long prompts will go badly; get a newer file",
            file.path.name,
        )
