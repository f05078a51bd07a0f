"""Fingerprints, which tell model files apart.

A fingerprint is SHA-256 over the metadata of the architecture, the tensor table and 256 bytes from the middle of up
to 256 tensors spread over the file; this takes milliseconds for a file of any size. Models that differ in none of these
bytes count as the same; tokenizers and chat templates do not change what a session holds, and do not count.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from llamacpu.gguf.file import GGUFFile

__all__ = ["fingerprint"]

_SAMPLED_TENSORS = 256
_SAMPLE_BYTES = 256


def fingerprint(file: GGUFFile) -> bytes:
    """32 bytes that tell models apart; see the module docstring. Raises GGUFError for a closed file."""
    digest = hashlib.sha256(b"llamacpu model 1")
    architecture = str(file.metadata.get("general.architecture"))
    for key in sorted(key for key in file.metadata if key.startswith(f"{architecture}.")):
        value = file.metadata[key]
        shown = value.tobytes().hex() if isinstance(value, np.ndarray) else repr(value)
        digest.update(f"{key}={shown}\n".encode())
    tensors = sorted(file.tensors)
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.type} {tensor.shape} {tensor.nbytes}\n".encode())
    samples = min(len(tensors), _SAMPLED_TENSORS)
    for place in range(samples):
        tensor = tensors[place * len(tensors) // samples]
        start = max(0, tensor.nbytes // 2 - _SAMPLE_BYTES // 2)
        digest.update(file.tensor_bytes(tensor, start, min(start + _SAMPLE_BYTES, tensor.nbytes)))
    return digest.digest()
