"""Checkpoints of other programs (safetensors, PyTorch): configuration and tensors, read on demand."""
