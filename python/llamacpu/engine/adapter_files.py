"""LoRA adapter files: low-rank changes of a model's tensors in GGUF (E. Hu et al., arXiv:2106.09685).

A file has `general.type` "adapter", the architecture of its model, `adapter.lora.alpha`, and for each changed
tensor NAME of the model the tensors `NAME.lora_a` (ne {inputs, rank}) and `NAME.lora_b` (ne {rank, outputs}), with a
third dimension for stacked experts. The token embedding has its first matrix as rows to look up: ne {rank, tokens}.
With scale s, `W x` becomes `W x + s * alpha / rank * B (A x)`; an alpha of 0 stands for alpha = rank.

Activated LoRA (K. Greenewald et al., arXiv:2504.12397) applies from the last occurrence of its invocation tokens on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

from llamacpu import log
from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile, Tensor

__all__ = ["EMBEDDING", "OUTPUT", "AdapterFile", "AdapterPair", "BaseModel", "digest_of", "shown_shape"]

_PIECE_BYTES = 1 << 22
_DOWN, _UP = ".lora_a", ".lora_b"
EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"


class AdapterPair(NamedTuple):
    """The tensors that change the tensor `base` of the model: `base += factor * up @ down`."""

    base: str
    down: Tensor
    up: Tensor
    factor: float


class BaseModel(NamedTuple):
    """What an adapter is checked against.

    name        of the file, for messages
    tensors     by name
    vocab_size  of the model; None if it is unknown
    output      whether the model has an output matrix, its own or that of the embedding
    """

    name: str
    architecture: object
    tensors: Mapping[str, Tensor]
    vocab_size: int | None
    output: bool


class AdapterFile:
    """The header of an adapter file, checked against its model.

    alpha, task_name, prompt_prefix, invocation_tokens  as in `llamacpu.engine.adapters.Adapter`
    pairs  in the order of the file

    Raises ModelError for a file that is no LoRA adapter or belongs to another model.
    """

    def __init__(self, file: GGUFFile, base: BaseModel) -> None:
        metadata, name = file.metadata, file.path.name
        _check_kind(file, base)
        self.alpha: float = _alpha(metadata.get("adapter.lora.alpha", 0.0), name)
        self.task_name: str = _text(metadata.get("adapter.lora.task_name"))
        self.prompt_prefix: str = _text(metadata.get("adapter.lora.prompt_prefix"))
        self.invocation_tokens: tuple[int, ...] = _tokens(
            metadata.get("adapter.alora.invocation_tokens"), name, base.vocab_size
        )
        self.pairs: list[AdapterPair] = _pairs(file, self.alpha)
        if not self.pairs:
            raise ModelError(f"{name}: the adapter has no tensors NAME.lora_a and NAME.lora_b: it changes nothing")
        for pair in self.pairs:
            _check_shapes(pair, _base(pair.base, base, name), name)


def digest_of(file: GGUFFile) -> bytes:
    """SHA-256 of all bytes of the file, or of the files of a split one."""
    digest = hashlib.sha256()
    for source in file.native_files:
        for start in range(0, source.size, _PIECE_BYTES):
            digest.update(source.read(start, min(_PIECE_BYTES, source.size - start)))
    return digest.digest()


def _check_kind(file: GGUFFile, base: BaseModel) -> None:
    metadata, name = file.metadata, file.path.name
    kind = metadata.scalar("general.type")
    architecture = metadata.scalar("general.architecture")
    if architecture == "controlvector":
        raise ModelError(f"{name}: this is a control vector, and no adapter; give it as a control vector")
    if kind != "adapter":
        raise ModelError(f"{name}: general.type is {kind!r:.40}; expected 'adapter': this file is not a LoRA adapter")
    if (found := metadata.scalar("adapter.type")) != "lora":
        raise ModelError(f"{name}: adapter.type is {found!r:.40}; only 'lora' is supported")
    if architecture != base.architecture:
        raise ModelError(
            f"{name}: the adapter is for the architecture {architecture!r:.40}, the model is {base.architecture!r}; "
            "use the model that the adapter was trained on"
        )


def _alpha(value: object, name: str) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        raise ModelError(f"{name}: adapter.lora.alpha is {value!r:.40}; expected a number")
    return float(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _tokens(value: Any, name: str, vocabulary: int | None) -> tuple[int, ...]:
    if value is None:
        return ()
    tokens = value.tolist() if hasattr(value, "tolist") else value
    most = 1 << 31 if vocabulary is None else vocabulary
    if not isinstance(tokens, list) or not all(isinstance(token, int) and 0 <= token < most for token in tokens):
        raise ModelError(
            f"{name}: adapter.alora.invocation_tokens is {tokens!r:.60}; expected ids below {most}, the size of "
            "the model's vocabulary"
        )
    return tuple(tokens)


def _pairs(file: GGUFFile, alpha: float) -> list[AdapterPair]:
    """The pairs of tensors in the order of the file."""
    name = file.path.name
    found: dict[str, dict[str, Tensor]] = {}
    ignored = []
    for tensor in file.tensors:
        base, suffix = tensor.name[: -len(_DOWN)], tensor.name[-len(_DOWN) :]
        if suffix in (_DOWN, _UP):
            found.setdefault(base, {})[suffix] = tensor
        elif tensor.name.endswith("_norm.weight"):
            ignored.append(tensor.name)
        else:
            raise ModelError(
                f"{name}: the tensor {tensor.name!r} is no part of a LoRA adapter: expected NAME{_DOWN} and NAME{_UP}; "
                "tensors that were trained as a whole must be merged into the model"
            )
    if ignored:
        log.warning("%s: changes of norms are ignored: %s", name, ", ".join(ignored))
    for base, both in found.items():
        if len(both) < 2:
            missing = _UP if _DOWN in both else _DOWN
            raise ModelError(f"{name}: the tensor {base + missing!r} is missing; the adapter is incomplete")
    return [
        AdapterPair(
            base, both[_DOWN], both[_UP], alpha / max(both[_UP].shape[0], 1) if alpha and both[_UP].shape else 1.0
        )
        for base, both in found.items()
    ]


def _base(base: str, model: BaseModel, name: str) -> Tensor:
    """The tensor of the model that is changed."""
    if base in model.tensors:
        return model.tensors[base]
    if base == OUTPUT and model.output and EMBEDDING in model.tensors:
        return model.tensors[EMBEDDING]  # the matrix that a tied model uses for both
    raise ModelError(
        f"{name}: the adapter changes {base!r}, which {model.name} does not have; use the model that the adapter was "
        "trained on"
    )


def _check_shapes(pair: AdapterPair, base: Tensor, name: str) -> None:
    down, up, own = (_padded(tensor.shape) for tensor in (pair.down, pair.up, base))
    rank = up[0]
    if pair.base == EMBEDDING:
        expected = ((rank, own[1], 1), (rank, own[0], 1))
    else:
        expected = ((own[0], rank, own[2]), (rank, own[1], own[2]))
    if len(base.shape) > 3 or (down, up) != expected or rank < 1:
        raise ModelError(
            f"{name}: {pair.down.name!r} and {pair.up.name!r} have the shapes {shown_shape(pair.down.shape)} and "
            f"{shown_shape(pair.up.shape)}, which do not fit to {base.name!r} of the model, {shown_shape(base.shape)}; "
            "use the model that the adapter was trained on"
        )


def shown_shape(shape: tuple[int, ...]) -> str:
    """A shape for messages: 64 x 8."""
    return " x ".join(map(str, shape)) or "1"


def _padded(shape: tuple[int, ...]) -> tuple[int, ...]:
    trimmed = shape
    while len(trimmed) > 3 and trimmed[-1] == 1:
        trimmed = trimmed[:-1]
    return (*trimmed, *(1,) * (3 - len(trimmed)))
