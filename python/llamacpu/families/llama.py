"""Llama 1 to 3.3, Mistral, Mixtral and every other model stored as `llama`: the graph of the Llama papers."""

from __future__ import annotations

from llamacpu import log
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["llama"]


def llama(file: GGUFFile, name: str) -> Config:
    """The `Config` of such a file; `name` is its architecture, the prefix of its keys."""
    fields = parts.common(file, name)
    window = parts.window(file, name, 0)
    config = Config(**fields | parts.granite_scales(file, name) | {"window": [window] * fields["layers"]})
    _warn_about_missing_frequencies(file, config)
    return config


def _warn_about_missing_frequencies(file: GGUFFile, config: Config) -> None:
    """Warn about early files of Llama 3.1, which lack the frequency factors: long texts go wrong without them."""
    if config.context_length != 131072 or config.rope_base != 500000.0 or config.rope_scaling != "none":
        return
    if not any(tensor.name == "rope_freqs.weight" for tensor in file.tensors):
        log.warning(
            "%s looks like Llama 3.1 but lacks rope_freqs.weight: long prompts will go badly; get a newer file",
            file.path.name,
        )
