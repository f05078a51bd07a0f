"""The matrices of a PEFT adapter: for each module of the base model an A and a B."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["Pair", "pairs_of", "with_experts"]

_NAME = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?:(?P<kind>[AB])(?:\.default)?\.weight"
    r"|embedding_(?P<embedding>[AB])(?:\.default)?)"
)


class Pair(NamedTuple):
    """The change of one matrix, B A.

    module     of the base model ("model.layers.0.self_attn.q_proj")
    a, b       of the shapes (rank, columns) and (rows, rank)
    embedding  the matrix is that of an embedding, transposed: (width, vocabulary)
    """

    module: str
    a: LazyTensor
    b: LazyTensor
    embedding: bool

    @property
    def rank(self) -> int:
        """The rank of the change."""
        return self.a.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the product B A."""
        return self.b.shape[0], self.a.shape[1]


def pairs_of(tensors: Mapping[str, LazyTensor], where: str) -> list[Pair]:
    """Return the pairs of an adapter, in the order in which the first of each is found.

    where: names the file in messages. Raises CheckpointError for tensors that are no A or B, and for an A without B.
    """
    found: dict[str, dict[str, LazyTensor]] = {}
    embeddings = set()
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            _refuse(name, where)
            continue
        if match["embedding"]:
            embeddings.add(match["module"])
        kind = match["kind"] or match["embedding"]
        if kind in found.setdefault(match["module"], {}):
            raise CheckpointError(f"{where}: {match['module']} has two matrices {kind}")
        found[match["module"]][kind] = tensor
    if not found:
        raise CheckpointError(f"{where}: there are no LoRA matrices in it (lora_A, lora_B)")
    return [_pair(module, parts, module in embeddings, where) for module, parts in found.items()]


def with_experts(pairs: list[Pair]) -> Iterator[tuple[str, list[Pair]]]:
    """Yield the pairs, those of a layer's experts together where the last of them was, with what precedes "experts"."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        before, experts, _ = pair.module.partition(".experts.")
        groups.setdefault(before if experts else f"{pair.module}\n", []).append(pair)
    last = {id(group[-1]): (name, group) for name, group in groups.items()}
    for pair in pairs:
        if id(pair) in last:
            name, group = last[id(pair)]
            yield ("" if name.endswith("\n") else name), group


def _pair(module: str, parts: Mapping[str, LazyTensor], embedding: bool, where: str) -> Pair:
    if parts.keys() != {"A", "B"}:
        raise CheckpointError(f"{where}: {module} has a matrix {next(iter(parts))} without the other")
    a, b = parts["A"], parts["B"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or 0 in (*a.shape, *b.shape):
        raise CheckpointError(
            f"{where}: {module} has A {a.shape} and B {b.shape}, which are not the factors of a matrix"
        )
    return Pair(module, a, b, embedding)


def _refuse(name: str, where: str) -> None:
    if name.endswith(".base_layer.weight"):
        return  # PEFT saves whole embeddings beside their change; they are those of the base model
    merge = "merge the adapter into its base model with PEFT (merge_and_unload), and convert the result"
    if "lora_magnitude_vector" in name:
        raise CheckpointError(f"{where}: {name!r:.120} belongs to DoRA, which GGUF cannot express: {merge}")
    raise CheckpointError(
        f"{where}: {name!r:.120} is a whole tensor of the model (modules_to_save, a new vocabulary, a bias), not a "
        f"change of low rank: {merge}"
    )
