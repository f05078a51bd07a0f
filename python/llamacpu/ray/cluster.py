"""Checks whether a cluster has the requested resources, for which it would otherwise wait forever."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray

from llamacpu.gguf.file import GGUFFile

__all__ = ["PROCESS_BYTES", "check_fits", "cores_of_this_actor", "weights_of"]

# Memory of an actor without a model: the interpreter, Ray, Arrow, NumPy and this package (measured: 190 to 208 MB).
PROCESS_BYTES = 256 << 20

# Packed weights take up to this many times their size in the file.
_GROWTH = 1.22


def weights_of(model: str | os.PathLike[str]) -> int:
    """Return the most bytes of memory that a model's weights take. Raises what opening a GGUF file raises."""
    with GGUFFile(model) as file:
        return int(sum(tensor.nbytes for tensor in file.tensors) * _GROWTH)


def check_fits(model: str | os.PathLike[str], num_cpus: int, memory: int) -> None:
    """Raise ValueError if no machine of the cluster has the cores or the bytes of memory that one actor needs."""
    if num_cpus < 1 or num_cpus != int(num_cpus):
        raise ValueError(f"num_cpus is {num_cpus}; expected a whole number of cores, 1 or more")
    nodes: list[dict[str, Any]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = max((node.get("CPU", 0) for node in nodes), default=0)
    if num_cpus > most:
        raise ValueError(
            f"num_cpus is {num_cpus}, and the largest machine of the cluster has {most:g} cores; expected at most that"
        )
    most = max((node.get("memory", 0) for node in nodes if node.get("CPU", 0) >= num_cpus), default=0)
    if memory > most:
        raise ValueError(
            f"{Path(model).name} wants {memory / 1e9:.1f} GB of memory for an actor, process, weights and keys and "
            f"values together, and the largest machine of the cluster has {most / 1e9:.1f} GB; use a smaller file, "
            "less kv_memory, or larger machines"
        )


def cores_of_this_actor() -> int | None:
    """Return the cores that Ray assigned to the calling actor; None outside an actor, or if it was assigned none."""
    if not ray.is_initialized():
        return None
    given = ray.get_runtime_context().get_assigned_resources().get("CPU", 0)
    return max(int(given), 1) if given else None
