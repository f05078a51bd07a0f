"""How many layers keep their activations for the backward pass, instead of computing them again: memory for speed."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["USUAL_MEMORY", "kept_layers"]

USUAL_MEMORY = 4_000_000_000
"""Bytes that a training takes for speed alone at most, unless told otherwise."""


def kept_layers(layers: int, bytes_of: Callable[[int], int], memory: int | None, free: int | None) -> int:
    """The most layers with which the training stays within the memory; 0 if it does not in any case.

    bytes_of  what the training takes, weights included, with a number of layers
    memory    the limit in bytes; None for half of the free memory, and at most `USUAL_MEMORY`
    free      bytes of memory that are free; None if the system does not tell
    """
    limit = memory if memory is not None else min(USUAL_MEMORY, free // 2 if free is not None else 0)
    return next((count for count in range(layers, 0, -1) if bytes_of(count) <= limit), 0)
