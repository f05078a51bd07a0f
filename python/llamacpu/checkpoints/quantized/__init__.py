"""Quantized checkpoints as tensors of floats: AWQ, GPTQ, compressed-tensors, 8-bit floats and integers with scales."""

from llamacpu.checkpoints.quantized.methods import unpacked

__all__ = ["unpacked"]
