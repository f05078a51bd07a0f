"""Quantization of GGUF files: presets, types by pattern, and types chosen for a given size."""

from llamacpu.tools.quantize.run import Quantization, quantize

__all__ = ["Quantization", "quantize"]
