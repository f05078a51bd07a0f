"""Adapter files, and the model in NumPy with what they add to its weights: W + scale * alpha / rank * B A."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize, quantize

from reference_functions import Array
from reference_model import ReferenceModel, Tokens

EMBEDDING = "token_embd.weight"


def write_adapter(
    path: Path,
    pairs: Mapping[str, tuple[Any, Any]],
    *,
    architecture: str = "llama",
    alpha: float | None = 16.0,
    type_name: str = "F32",
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes pairs of A and B by the name of the tensor that they change, in NumPy's order of sizes.

    `type_name` is that of tensors whose rows it divides; the others are F32. `more` are further keys.
    """
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    for key, value in (more or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    kind = gguf.GGMLQuantizationType[type_name]
    for name, pair in pairs.items():
        for suffix, values in zip(("lora_a", "lora_b"), pair, strict=True):
            values = np.ascontiguousarray(values, dtype=np.float32)
            if values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
                writer.add_tensor(f"{name}.{suffix}", quantize(values, kind), raw_dtype=kind)
            else:
                writer.add_tensor(f"{name}.{suffix}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def random_pairs(
    shapes: Mapping[str, tuple[int, ...]], random: np.random.Generator, ranks: Sequence[int] = (4,), size: float = 1.0
) -> dict[str, tuple[Any, Any]]:
    """A pair for each tensor, given its shape in NumPy's order."""
    pairs = {}
    for name, shape in shapes.items():
        rank = int(random.choice(ranks))
        *stack, rows, columns = shape
        if name == EMBEDDING:
            a, b = random.standard_normal((rows, rank)), random.standard_normal((columns, rank))
        else:
            a, b = random.standard_normal((*stack, rank, columns)), random.standard_normal((*stack, rows, rank))
        pairs[name] = ((a * columns**-0.5).astype(np.float32), (b * size * rank**-0.5).astype(np.float32))
    return pairs


class AdaptedReference(ReferenceModel):
    """The reference with adapters (path, scale) and vectors (layer -> what is added to the stream after it)."""

    def __init__(self, path: Path, config: Mapping[str, Any], adapters: Sequence[tuple[Path, float]] = ()) -> None:
        super().__init__(path, config)
        self._changes: dict[str, list[tuple[float, Array, Array]]] = {}
        for file, scale in adapters:
            reader = gguf.GGUFReader(file)
            field = reader.get_field("adapter.lora.alpha")
            alpha = float(field.contents()) if field else 0.0
            found = {
                tensor.name: dequantize(tensor.data, tensor.tensor_type)
                .astype(np.float64)
                .reshape([int(size) for size in reversed(tensor.shape)])
                for tensor in reader.tensors
            }
            for name, a in found.items():
                if name.endswith(".lora_a"):
                    base = name.removesuffix(".lora_a")
                    b = found[f"{base}.lora_b"]
                    factor = scale * (alpha / b.shape[-1] if alpha else 1.0)
                    self._changes.setdefault(base, []).append((factor, a, b))

    def weight(self, name: str) -> Array | None:
        known = name in self._loaded
        weight = super().weight(name)
        if known or weight is None:
            return weight
        for factor, a, b in self._changes.get(name, []):
            change = (b @ a.T).T if name == EMBEDDING else b @ a
            weight = weight + factor * change
        self._loaded[name] = weight
        return weight

    def output(self, x: Array) -> Array:
        """The output matrix; one shared with the embedding has changes of its own."""
        if self.weight("output.weight") is not None:
            return super().output(x)
        bias = self.weight("output.bias")
        logits = x @ self._plain(EMBEDDING).T
        for factor, a, b in self._changes.get("output.weight", []):
            logits = logits + factor * (x @ a.T) @ b.T
        return logits if bias is None else logits + bias

    def _plain(self, name: str) -> Array:
        """A tensor without changes."""
        changes, self._changes = self._changes, {}
        loaded = self._loaded.pop(name, None)
        plain = ReferenceModel.matrix(self, name)
        self._changes, self._loaded[name] = changes, loaded
        if loaded is None:
            del self._loaded[name]
        return plain


def adapted_logits(
    path: Path, config: Mapping[str, Any], adapters: Sequence[tuple[Path, float]], tokens: Tokens
) -> Array:
    """What the model computes in exact arithmetic."""
    return AdaptedReference(path, config, adapters).logits(tokens)
