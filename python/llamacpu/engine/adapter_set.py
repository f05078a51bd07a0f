"""What a session goes through in addition to the model: adapters with their scales, and control vectors."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from llamacpu.arguments import described
from llamacpu.engine.adapters import AdaptedModel, Adapter
from llamacpu.engine.control_vectors import ControlVector
from llamacpu.engine.interfaces import ModelLike

if TYPE_CHECKING:
    from llamacpu import _native

__all__ = [
    "NO_ADAPTERS",
    "AdapterSet",
    "ControlVectorUse",
    "LoraUse",
    "adapters_of",
    "default_fingerprint",
    "fingerprint_of",
]

LoraUse: TypeAlias = Union[str, "os.PathLike[str]", Adapter, "tuple[str | os.PathLike[str] | Adapter, float]"]
"""An adapter, or the path of its file, alone or with its scale."""
ControlVectorUse: TypeAlias = Union[
    str,
    "os.PathLike[str]",
    ControlVector,
    "tuple[str | os.PathLike[str] | ControlVector, float]",
    "tuple[str | os.PathLike[str] | ControlVector, float, tuple[int, int] | None]",
]
"""A control vector, or the path of its file, alone, with its strength, or with that and the first and last layer."""


class _Opening(AdaptedModel, Protocol):
    """A model that opens files for its sessions."""

    def adapter(self, path: str | os.PathLike[str]) -> Adapter: ...
    def control_vector(self, path: str | os.PathLike[str]) -> ControlVector: ...


class AdapterSet:
    """Adapters and control vectors for sessions of one model; immutable.

    lora             adapters with their scales, in the order in which their changes are added
    control_vectors  vectors with their strengths and the first and last layer that they are added after
    key              32 bytes that tell sets apart, from the digests of the files and the scales; b"" for an empty one
    """

    def __init__(
        self,
        lora: Sequence[tuple[Adapter, float]] = (),
        control_vectors: Sequence[tuple[ControlVector, float, tuple[int, int]]] = (),
        steering: _native.Steering | None = None,
    ) -> None:
        self.lora: tuple[tuple[Adapter, float], ...] = tuple(lora)
        self.control_vectors: tuple[tuple[ControlVector, float, tuple[int, int]], ...] = tuple(control_vectors)
        self._steering = steering
        self.key: bytes = self._digest()

    def _digest(self) -> bytes:
        digest = hashlib.sha256(b"llamacpu adapters 1")
        for adapter, scale in self.lora:
            digest.update(b"lora" + adapter.digest + struct.pack("<d", scale))
        for vector, strength, (first, last) in self.control_vectors:
            digest.update(b"vector" + vector.digest + struct.pack("<dqq", strength, first, last))
        return digest.digest() if self else b""

    def __bool__(self) -> bool:
        return bool(self.lora or self.control_vectors)

    @property
    def is_activated(self) -> bool:
        """Whether some adapters apply only from their invocation tokens on."""
        return any(adapter.invocation_tokens for adapter, _ in self.lora)

    def invocations(self, tokens: Sequence[int]) -> list[int | None]:
        """Where the invocation of each activated adapter last begins; None for others and where it does not occur."""
        return [_last(tokens, adapter.invocation_tokens) for adapter, _ in self.lora]

    def apply(self, session: _native.Session, starts: Sequence[int | None] = ()) -> int:
        """Make a native session go through these; return how many of its tokens have done so already.

        starts  where the invocations of activated adapters begin; None for those that do not apply
        """
        return session.set_adapters(self._uses(starts), self._steering)

    def _uses(self, starts: Sequence[int | None]) -> list[tuple[_native.Adapter, float, int]]:
        begins = starts or [None] * len(self.lora)
        return [
            (adapter._native, scale, (sys.maxsize if start is None else start) if adapter.invocation_tokens else 0)
            for (adapter, scale), start in zip(self.lora, begins, strict=True)
        ]

    def declare(self, session: _native.Session, starts: Sequence[int | None] = ()) -> None:
        """Say that the tokens that a restored native session holds have gone through these."""
        session.declare_adapters(self._uses(starts), self._steering)

    def __repr__(self) -> str:
        lora = [f"{adapter.path.name}:{scale:g}" for adapter, scale in self.lora]
        vectors = [f"{v.path.name}:{s:g}:{first}-{last}" for v, s, (first, last) in self.control_vectors]
        return f"<AdapterSet: {', '.join(lora + vectors) or 'empty'}>"

    @classmethod
    def of(
        cls, model: _Opening, lora: Iterable[LoraUse] | None, control_vectors: Iterable[ControlVectorUse] | None
    ) -> AdapterSet:
        """The set that these arguments of `Model.session` describe. Those with a scale of 0 are left out."""
        adapters = []
        for item in _listed("lora", lora):
            source, scale = _split("lora", item, 2)
            scale = _number("the scale of an adapter", scale)
            adapter = source if isinstance(source, Adapter) else model.adapter(source)
            if adapter._owner() is not model:
                raise ValueError(f"{adapter!r} was opened for another model; open it with Model.adapter of this one")
            adapters.append((adapter, scale))
        vectors = []
        for item in _listed("control_vectors", control_vectors):
            source, strength, layers = _split("control_vectors", item, 3)
            strength, layers = (
                _number("the strength of a control vector", strength),
                _layers(layers, model.config.layers),
            )
            vector = source if isinstance(source, ControlVector) else model.control_vector(source)
            if vector._owner() is not model:
                raise ValueError(
                    f"{vector!r} was opened for another model; open it with Model.control_vector of this one"
                )
            vectors.append((vector, strength, layers))
        kept = [(vector, strength, layers) for vector, strength, layers in vectors if strength]
        return cls([(a, scale) for a, scale in adapters if scale], kept, _steering(model, kept) if kept else None)


NO_ADAPTERS = AdapterSet()


def fingerprint_of(model: ModelLike, adapters: AdapterSet) -> str:
    """64 hexadecimal digits for a model, or for a model with adapters."""
    if not adapters:
        return model.fingerprint
    return hashlib.sha256(bytes.fromhex(model.fingerprint) + adapters.key).hexdigest()


def adapters_of(source: object) -> AdapterSet:
    """The adapters of a session, or those that sessions of a model go through by default."""
    found = getattr(source, "adapters", None)
    return found if isinstance(found, AdapterSet) else NO_ADAPTERS


def default_fingerprint(model: ModelLike) -> str:
    """64 hexadecimal digits for what sessions of the model go through by default."""
    return fingerprint_of(model, adapters_of(model))


def _steering(model: AdaptedModel, vectors: Iterable[tuple[ControlVector, float, tuple[int, int]]]) -> _native.Steering:
    import numpy

    rows = []
    for vector, strength, (first, last) in vectors:
        for layer, direction in vector.directions.items():
            if first <= layer <= last:
                rows.append((layer, (direction * numpy.float32(strength)).astype(numpy.float32)))
    return model._native.steering(rows)


def _last(tokens: Sequence[int], wanted: Sequence[int]) -> int | None:
    """Where `wanted` last begins in `tokens`."""
    if not wanted:
        return None
    wanted = list(wanted)
    for start in range(len(tokens) - len(wanted), -1, -1):
        if tokens[start] == wanted[0] and list(tokens[start : start + len(wanted)]) == wanted:
            return start
    return None


def _listed(name: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, (str, bytes, os.PathLike, Adapter, ControlVector)):
        return [value]
    if isinstance(value, dict) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {described(value)}; expected a list of files, or of pairs of a file and a number")
    return list(value)


def _split(name: str, item: Any, most: int) -> tuple[Any, ...]:
    """The source, its number (1 if there is none) and what follows, filled up with None."""
    if isinstance(item, (str, os.PathLike, Adapter, ControlVector)):
        item = (item,)
    ok = isinstance(item, (tuple, list)) and 1 <= len(item) <= most
    kinds = (str, os.PathLike, Adapter) if name == "lora" else (str, os.PathLike, ControlVector)
    if not ok or not isinstance(item[0], kinds):
        more = "" if name == "lora" else ", optionally with a pair of the first and the last layer"
        raise TypeError(f"{name} has {described(item)}; expected a file, or a pair of a file and a number{more}")
    return (*item, *(1.0, None)[len(item) - 1 : most - 1])


def _number(what: str, value: object) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{what} is {described(value)}; expected a number")
    number = float(value)
    if not math.isfinite(number) or abs(number) > 3e38:
        raise ValueError(f"{what} is {value}; expected a finite number")
    return number


def _layers(layers: Any, count: int) -> tuple[int, int]:
    if layers is None:
        return (1, count - 1)
    if not isinstance(layers, (tuple, list)) or len(layers) != 2 or not all(type(layer) is int for layer in layers):
        raise TypeError(f"the layers of a control vector are {described(layers)}; expected a pair of numbers, or None")
    first, last = layers
    if not 0 <= first <= last:
        raise ValueError(f"layers {first} to {last} of a control vector; expected the first and the last one")
    return (first, last)
