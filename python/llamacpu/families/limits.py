"""The largest sizes that are read from metadata: more is an error, since no model has it."""

from __future__ import annotations

__all__ = ["MAX_CONTEXT", "MAX_EXPERTS", "MAX_HEAD_SIZE", "MAX_LAYERS", "MAX_VOCABULARY", "MAX_WIDTH"]

MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_WIDTH = 1 << 28
MAX_HEAD_SIZE = 1 << 16
MAX_CONTEXT = 1 << 30
MAX_VOCABULARY = 1 << 30
