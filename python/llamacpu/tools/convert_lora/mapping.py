"""Where the matrices of a checkpoint end up in a file, found out by converting numbers of rows and columns.

A family's conversion of a matrix selects and reorders its rows, and may transpose it. For a change B A of low rank the
same is done with the rows of B; which rows these are is read off a matrix in which each element is its row's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family
from llamacpu.tools.convert.names import gguf_name

__all__ = ["Place", "place_of", "place_of_experts"]

_DENSE_PARTS, _MIXTRAL_PARTS = ("gate_proj", "up_proj", "down_proj"), ("w1", "w2", "w3")


class Place(NamedTuple):
    """What becomes of a matrix.

    name  in the file ("blk.0.attn_q.weight")
    rows  the rows of the checkpoint's matrix, in the order of the file; None: all as they are
    """

    name: str
    rows: NDArray[np.int64] | None


def place_of(family: Family, module: str, shape: tuple[int, int], known: dict[object, object]) -> list[Place]:
    """Return what becomes of the matrix of a module, of the given (rows, columns).

    known: what was found for the same module of other layers. Raises CheckpointError if the architecture has no such
    matrix, and if what it does to it cannot be done to a change of low rank.
    """
    name, layer = _renamed(family, f"{module}.weight")
    key = (".".join("#" if part.isdecimal() else part for part in name.split(".")), shape)
    orders = known.get(key)
    if not isinstance(orders, list):
        orders = known[key] = _orders(family, name, layer, shape)
    probe = _numbered(shape, 0)
    names = [_named(family, theirs, module) for theirs, _ in family.converted(name, probe, layer)]
    return [Place(*each) for each in zip(names, orders, strict=True)]


def place_of_experts(
    family: Family, modules: Sequence[str], shapes: Sequence[tuple[int, int]]
) -> list[tuple[str, str]]:
    """Return (part, name in the file) for the experts of one layer, in the order of the file.

    modules, shapes: of all adapted matrices; each part ("up_proj") must be that of all experts.
    """
    count = family.number_of_experts()
    by_part: dict[str, dict[int, tuple[int, int]]] = {}
    for module, shape in zip(modules, shapes, strict=True):
        number, _, part = module.partition(".experts.")[2].partition(".")
        if not number.isdecimal() or part not in _DENSE_PARTS + _MIXTRAL_PARTS:
            raise CheckpointError(f"{module}: not a matrix of one of {count} experts")
        by_part.setdefault(part, {})[int(number)] = shape
    for part, found in by_part.items():
        if sorted(found) != list(range(count)) or len(set(found.values())) != 1:
            raise CheckpointError(
                f"{modules[0]}: {part} is adapted in {len(found)} of {count} experts, or with several shapes; GGUF "
                "needs all, in one shape"
            )
    before = modules[0].partition(".experts.")[0]
    parts = _MIXTRAL_PARTS if next(iter(by_part)) in _MIXTRAL_PARTS else _DENSE_PARTS
    result = []
    for expert in range(count):
        for part in parts:
            name, layer = _renamed(family, f"{before}.experts.{expert}.{part}.weight")
            # The place of a part that is not adapted is not asked for.
            array = _numbered(by_part[part][0], 0) if part in by_part else _numbered((1, 1), 0)
            for theirs, _ in family.converted(name, array, layer):
                part_of = theirs.removesuffix(".weight").rpartition(".")[2]
                if part_of in by_part:
                    result.append((part_of, _named(family, theirs, modules[0])))
    if {part for part, _ in result} != by_part.keys():
        raise CheckpointError(f"{modules[0]}: the experts of {family.architecture!r} cannot be adapted one by one")
    return result


def _renamed(family: Family, name: str) -> tuple[str, int]:
    renamed = family.renamed(name)
    if renamed is None:
        raise CheckpointError(f"the adapter changes {name!r:.120}, which the GGUF file of the model does not have")
    layer = next((int(part) for part in renamed.split(".") if part.isdecimal()), -1)
    return renamed, layer


def _named(family: Family, theirs: str, module: str) -> str:
    ours = gguf_name(theirs, family.names)
    if ours is None:
        raise CheckpointError(
            f"the adapter changes {module!r:.120}, which has no place in the architecture {family.architecture!r}; is "
            "the base model the one that it was made for?"
        )
    return ours


def _orders(family: Family, name: str, layer: int, shape: tuple[int, int]) -> list[NDArray[np.int64] | None]:
    rows, columns = _numbered(shape, 0), _numbered(shape, 1)
    orders: list[NDArray[np.int64] | None] = []
    by_column = list(family.converted(name, columns, layer))
    for (_, row), (_, column) in zip(family.converted(name, rows, layer), by_column, strict=True):
        if row.pieces is rows.pieces and row.shape == shape:
            orders.append(None)
            continue
        orders.append(_order(row.read(), column.read(), shape, name))
    if not orders:
        raise CheckpointError(f"the adapter changes {name!r:.120}, which the GGUF file of the model does not have")
    return orders


def _order(
    row: NDArray[np.float32], column: NDArray[np.float32], shape: tuple[int, int], name: str
) -> NDArray[np.int64] | None:
    if row.shape == shape[::-1] and (row == np.arange(shape[0])).all() and (np.arange(shape[1]) == column.T).all():
        return None  # stored transposed (GPT-2), but PEFT's A and B are those of the matrix as it is used
    order = row[:, :1].astype(np.int64)
    if row.shape[1:] != shape[1:] or (row != order).any() or (column != np.arange(shape[1])).any():
        raise CheckpointError(
            f"the adapter changes {name!r:.120}, which the conversion takes apart or rescales in a way that a change "
            "of low rank does not survive; merge it into the base model"
        )
    return order[:, 0]


def _numbered(shape: tuple[int, int], axis: int) -> Array:
    """A matrix in which each element is the number of its row (0) or column (1); it takes no memory by itself."""
    numbers = np.arange(shape[axis], dtype=np.float32)

    def pieces() -> Iterator[NDArray[np.float32]]:
        yield np.broadcast_to(numbers if axis else numbers[:, None], shape)

    return Array(shape, "F32", pieces)
