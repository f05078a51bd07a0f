"""The size of what a session keeps: keys and values, those by which keys are chosen, and states of recurrent layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamacpu.families.config import Config

__all__ = ["amount", "kv_bytes", "kv_numbers", "longest_context", "state_bytes", "state_size"]

_KEPT = 128 + 64
"""Tokens that layers with a window keep beyond it: those for rewinding, and the rest of the first page."""

_STATES = 6
"""States that a session keeps at most between two steps: those that the last steps need, and three for rewinding."""
_LOGGED = 32
"""Tokens whose inputs of recurrent layers are kept at most."""


def state_size(config: Config) -> int:
    """Bytes of one state of all recurrent layers; 0 if there are none.

    A layer has the last inputs of its convolution and, for each value head, a matrix whose columns fill vectors of 16.
    """
    columns = -(-config.recurrent_value_size // 16) * 16
    layers = [(heads, _channels(config, heads)) for heads in config.recurrent_heads if heads]
    past, rows = config.convolution_size - 1, config.recurrent_key_size
    return 4 * sum(past * channels + heads * rows * columns for heads, channels in layers)


def state_bytes(config: Config, tokens: int) -> int:
    """The most bytes of states that a session of `tokens` tokens keeps, with the inputs of its last tokens."""
    inputs = sum(_channels(config, heads) + 2 * heads for heads in config.recurrent_heads if heads)
    return _STATES * state_size(config) + 4 * _LOGGED * inputs if tokens else 0


def _channels(config: Config, heads: int) -> int:
    """Queries, keys and values of a recurrent layer for a token."""
    return 2 * config.recurrent_key_heads * config.recurrent_key_size + heads * config.recurrent_value_size


def kv_bytes(config: Config, tokens: int, element: float) -> int:
    """The most bytes of keys and values that a session of `tokens` tokens keeps, of which an element takes `element`.

    The keys of indexers, which choose what sparse attention sees, are 32-bit floats in every cache, and so is what
    rows of compressed windows are made from.
    """
    exact = 0
    for layer, chooses in enumerate(config.indexer or [False] * config.layers):
        ratio = config.compression[layer] if config.compression else 0
        exact += (tokens // ratio if ratio else tokens) * config.indexer_size * chooses
        if ratio:
            series = 2 if chooses else 1
            widths = 2 * series * (config.key_size + config.indexer_size * chooses)
            exact += widths * min(tokens, series * ratio + _KEPT)
    return int(kv_numbers(config, tokens) * element) + 4 * exact


def kv_numbers(config: Config, tokens: int) -> int:
    """The most elements of keys and values that a session of `tokens` tokens keeps in all layers, without indexers."""
    count = 0
    for layer in range(config.layers):
        if config.kv_source and config.kv_source[layer] != layer:
            continue
        keys = config.key_sizes[layer] if config.key_sizes else config.key_size
        values = config.value_sizes[layer] if config.value_sizes else config.value_size
        size = config.latent_size + config.rope_size if config.latent_size else keys + values
        if config.shared_rows:
            size = keys
        near = [values[layer] for values in (config.window, config.chunk) if values and values[layer]]
        count += config.kv_heads[layer] * size * min([tokens, *(seen + _KEPT for seen in near)])
        if config.compression and config.compression[layer]:
            count += tokens // config.compression[layer] * size
    return count


def longest_context(config: Config, size: int, most: int, element: float) -> int:
    """The largest number of tokens, up to `most`, for which `kv_bytes` says at most `size`."""
    least = 0
    while least < most:
        middle = (least + most + 1) // 2
        if kv_bytes(config, middle, element) <= size:
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
