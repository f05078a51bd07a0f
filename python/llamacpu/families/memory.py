"""The size of a session's keys and values, in elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamacpu.families.config import Config

__all__ = ["amount", "kv_numbers", "longest_context"]

_KEPT = 128 + 64
"""Tokens that layers with a window keep beyond it: those for rewinding, and the rest of the first page."""


def kv_numbers(config: Config, tokens: int) -> int:
    """The most elements of keys and values that a session of `tokens` tokens keeps, all layers together."""
    count = 0
    for layer in range(config.layers):
        if config.kv_source and config.kv_source[layer] != layer:
            continue
        keys = config.key_sizes[layer] if config.key_sizes else config.key_size
        values = config.value_sizes[layer] if config.value_sizes else config.value_size
        size = config.latent_size + config.rope_size if config.latent_size else keys + values
        size += config.indexer_size if config.indexer and config.indexer[layer] else 0
        near = [values[layer] for values in (config.window, config.chunk) if values and values[layer]]
        count += config.kv_heads[layer] * size * min([tokens, *(seen + _KEPT for seen in near)])
    return count


def longest_context(config: Config, numbers: int, most: int) -> int:
    """The largest number of tokens, up to `most`, whose keys and values have at most `numbers` elements."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if kv_numbers(config, middle) <= numbers:
            least = middle
        else:
            most = middle - 1
    return least


def amount(size: float) -> str:
    """Format bytes for a reader: 1500 -> "1.5 kB" (1 kB is 1000 bytes, as in the GB/s that commands show)."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
