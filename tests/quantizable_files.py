"""Small model files of several shapes for tests of quantization: headers as of real models, random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llamacpu.gguf.writer import NewTensor, Typed, write_gguf

Data = Callable[[], Iterable[NDArray[np.float32]]]


@dataclass(frozen=True)
class Shape:
    """Sizes of a model."""

    architecture: str = "llama"
    layers: int = 9
    heads: int = 8
    key_heads: int = 2
    width: int = 256
    feed_forward: int = 512
    experts: int = 0
    tied: bool = False
    vocabulary: int = 64


SHAPES = (
    Shape(),
    Shape(layers=17, key_heads=8),
    Shape(layers=4, tied=True),
    Shape(experts=4),
    Shape(experts=8, key_heads=8),
    Shape(layers=3, width=96, feed_forward=160, heads=4, key_heads=1),
    Shape(architecture="qwen2", layers=6, tied=True),
    Shape(layers=80, key_heads=4, feed_forward=256),
)


def tensors_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    width, keys, inner = shape.width, shape.width * shape.key_heads // shape.heads, shape.feed_forward
    found: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocabulary, width), "output_norm.weight": (width,)}
    if not shape.tied:
        found["output.weight"] = (shape.vocabulary, width)
    for layer in range(shape.layers):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm": (width,), "attn_q": (width, width), "attn_k": (keys, width), "attn_v": (keys, width),
            "attn_output": (width, width), "ffn_norm": (width,),
        }  # fmt: skip
        if shape.experts:
            block |= {
                "ffn_gate_inp": (shape.experts, width), "ffn_gate_exps": (shape.experts, inner, width),
                "ffn_up_exps": (shape.experts, inner, width), "ffn_down_exps": (shape.experts, width, inner),
            }  # fmt: skip
        else:
            block |= {"ffn_gate": (inner, width), "ffn_up": (inner, width), "ffn_down": (width, inner)}
        found |= {f"blk.{layer}.{name}.weight": size for name, size in block.items()}
    return found


def metadata_of(shape: Shape) -> dict[str, object]:
    """Metadata, without a tokenizer."""
    prefix = shape.architecture
    numbers = {
        "block_count": shape.layers, "context_length": 128, "embedding_length": shape.width,
        "feed_forward_length": shape.feed_forward, "attention.head_count": shape.heads,
        "attention.head_count_kv": shape.key_heads, "rope.dimension_count": shape.width // shape.heads,
    }  # fmt: skip
    if shape.experts:
        numbers |= {"expert_count": shape.experts, "expert_used_count": 2}
    return {
        "general.architecture": prefix,
        "general.name": "made for tests",
        "general.file_type": Typed(0, "uint32"),
        f"{prefix}.attention.layer_norm_rms_epsilon": Typed(1e-5, "float32"),
        "tokenizer.ggml.model": "no_vocab",
    } | {f"{prefix}.{key}": Typed(value, "uint32") for key, value in numbers.items()}


def write_shape(path: Path, shape: Shape, changed: dict[str, NDArray[np.float32]] | None = None) -> None:
    """A file with random weights, some of which may be given."""

    def data(number: int, name: str, size: tuple[int, ...]) -> Data:
        given = (changed or {}).get(name)
        return lambda: [
            np.random.default_rng(number).standard_normal(size).astype(np.float32) if given is None else given
        ]

    names = tensors_of(shape)
    tensors = [
        NewTensor(name, size, "F32", data(number, name, size)) for number, (name, size) in enumerate(names.items())
    ]
    write_gguf(path, metadata_of(shape), tensors)


def importance_of(shape: Shape) -> dict[str, NDArray[np.float32]]:
    """Importance of every matrix in a layer: float32[matrices, columns]."""
    random = np.random.default_rng(5)
    return {
        name: np.exp(random.standard_normal((size[0] if len(size) == 3 else 1, size[-1]))).astype(np.float32)
        for name, size in tensors_of(shape).items()
        if name.startswith("blk.") and len(size) > 1
    }


def write_importance(path: Path, importance: dict[str, NDArray[np.float32]], count: float = 100.0) -> None:
    """An importance matrix in the form of a GGUF file."""
    tensors = []
    for name, values in importance.items():
        counts = np.full((len(values), 1), count, np.float32)
        sums = (values * np.float32(count)).astype(np.float32)
        tensors.append(NewTensor(f"{name}.in_sum2", sums.shape, "F32", lambda sums=sums: [sums]))  # type: ignore[misc]
        tensors.append(NewTensor(f"{name}.counts", counts.shape, "F32", lambda counts=counts: [counts]))  # type: ignore[misc]
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": ["a text.txt"],
        "imatrix.chunk_count": Typed(7, "uint32"),
        "imatrix.chunk_size": Typed(512, "uint32"),
    }
    write_gguf(path, metadata, tensors)
