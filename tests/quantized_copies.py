"""Quantized copies of model files, as quantizing programs make them, and what rounding activations costs at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize
from numpy.typing import NDArray

from reference_functions import Array
from reference_model import ReferenceModel

BLOCK = 32
"""Columns that share a scale in the formats that small models can have, and in rounded activations."""

_PLAIN = ("norm", "ffn_gate_inp", "position_embd", "token_types", "rope_f", "attn_sinks", "exp_probs_b", "rel_embd")
"""Parts of names of tensors that no program quantizes."""


def is_quantized(name: str, shape: tuple[int, ...] | list[int] | NDArray[Any]) -> bool:
    """Whether quantizing programs quantize a tensor of this name and shape (NumPy's order)."""
    return (
        name.endswith(".weight")
        and len(shape) > 1
        and int(shape[-1]) % BLOCK == 0
        and not any(part in name for part in _PLAIN)
    )


def quantized_copy(
    source: Path,
    path: Path,
    kind: GGMLQuantizationType,
    rounded: bool = False,
    quantizer: Callable[..., NDArray[Any]] | None = None,
) -> Path:
    """Writes `source` with its matrices in this format to `path`, and returns that.

    rounded: the matrices are floats with the values that the format has.
    quantizer: takes a matrix and the format's name; the default is the one of the `gguf` package.
    """
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        if is_quantized(tensor.name, shape) and rounded:
            values = dequantize(quantize(tensor.data.reshape(shape), kind), kind).astype(np.float32)
            writer.add_tensor(tensor.name, values.reshape(shape), raw_dtype=GGMLQuantizationType.F32)
        elif is_quantized(tensor.name, shape):
            values = tensor.data.reshape(shape)
            blocks = quantizer(values, kind.name) if quantizer else quantize(values, kind)
            writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class RoundedReference(ReferenceModel):
    """The reference with activations rounded to 8 bits in the plainest way, wherever they meet a quantized matrix.

    Blocks of 32 have a scale each, which is their largest magnitude by 127: the Q8_0 of every program. How far its
    logits are from those without rounding is what quantized products may cost in this very model.
    """

    def linear(self, x: Array, name: str) -> Array:
        return super().linear(self._rounded(x, f"{name}.weight"), name)

    def expert_part(self, x: Array, name: str, expert: int) -> Array:
        return super().expert_part(self._rounded(x, f"{name}.weight"), name, expert)

    def output(self, x: Array) -> Array:
        name = "token_embd.weight" if self.weight("output.weight") is None else "output.weight"
        return super().output(self._rounded(x, name))

    def _rounded(self, x: Array, name: str) -> Array:
        if not is_quantized(name, self.matrix(name).shape):
            return x
        blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
        scales = np.abs(blocks).max(axis=-1, keepdims=True) / 127
        whole = np.rint(np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0))
        return (whole * scales).reshape(x.shape)
