"""Checkpoints of a training: one file with all that a resumed run needs to reach the same bits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from llamacpu.checkpoints.safetensors import read_safetensors
from llamacpu.checkpoints.safetensors_writer import write_safetensors
from llamacpu.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.tools.train.packing import Row

__all__ = ["Checkpoint", "Identity", "Point", "digest_of", "read_checkpoint", "write_checkpoint"]

_FORMAT = "llamacpu training checkpoint 1"
_ARRAYS = ("parameters", "first_moments", "second_moments")


@dataclass(frozen=True)
class Identity:
    """What a run is made of; a checkpoint continues the same run only."""

    model: str
    """fingerprint of the model"""
    data: str
    """digest of the packed rows and of those for validation"""
    adapter: str
    """digest of the adapter that the run began with, "" for a new one"""
    settings: dict[str, Any]


@dataclass(frozen=True)
class Point:
    """A row of the loss curve."""

    step: int
    """steps done"""
    epoch: float
    tokens: int
    """tokens read so far"""
    loss: float | None = None
    """mean loss of the step's counted tokens in nats; None for a row of an evaluation before the first step"""
    gradient_norm: float | None = None
    learning_rate: float | None = None
    validation_loss: float | None = None


State: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], int]"


@dataclass
class Checkpoint:
    """The state of a run between two steps."""

    identity: Identity
    moment: str
    """when the run began, which its chat templates read as the present time, in ISO's form"""
    step: int = 0
    tokens: int = 0
    points: list[Point] = field(default_factory=list)
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    state: State | None = None
    """of the trainer: parameters, first and second moments, and its count of steps"""
    best: NDArray[np.float32] | None = None
    """the parameters with the lowest loss on the validation data"""


def digest_of(rows: Sequence[Row], more: Sequence[Row]) -> str:
    """64 hexadecimal digits that stand for two lists of rows."""
    digest = hashlib.sha256()
    for part in (rows, more):
        digest.update(len(part).to_bytes(8, "little"))
        for row in part:
            for array in row:
                digest.update(len(array).to_bytes(8, "little") + array.astype("<i4").tobytes())
    return digest.hexdigest()


def _digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """64 hexadecimal digits that stand for named arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint: the older one stays until the new one is complete and on disk."""
    if checkpoint.state is None:
        raise ValueError("the checkpoint has no state of the trainer")
    *arrays_of_state, steps = checkpoint.state
    arrays: dict[str, NDArray[Any]] = dict(zip(_ARRAYS, arrays_of_state, strict=True))
    if checkpoint.best is not None:
        arrays["best"] = checkpoint.best
    document = {
        **{name: value for name, value in vars(checkpoint).items() if name not in ("state", "best", "points")},
        "identity": asdict(checkpoint.identity),
        "points": [list(asdict(point).values()) for point in checkpoint.points],
        "optimizer_steps": steps,
    }
    text = json.dumps(document)
    metadata = {"format": _FORMAT, "run": text, "digest": _digest(arrays, text)}
    write_safetensors(path, arrays, metadata, "a checkpoint of a training")


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    return hashlib.sha256((_digest_of_arrays(arrays) + text).encode()).hexdigest()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises TrainingError for a file that is none, is damaged, or cannot be read."""
    try:
        tensors, metadata = read_safetensors(Path(path))
        arrays = {name: tensor.read_raw() for name, tensor in tensors.items()}
        if metadata.get("format") != _FORMAT:
            raise ValueError("it is not a checkpoint of a training, or one of another version")
        if metadata.get("digest") != _digest(arrays, metadata["run"]):
            raise ValueError("its contents do not match their digest: the file is damaged")
        document = json.loads(metadata["run"])
        steps = document.pop("optimizer_steps")
        first, second, third = (arrays[name] for name in _ARRAYS)
        return Checkpoint(
            **{
                **document,
                "identity": Identity(**document["identity"]),
                "points": [Point(*values) for values in document["points"]],
            },
            state=(first, second, third, steps),
            best=arrays.get("best"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"{Path(path)}: the checkpoint cannot be used: {error}; remove it to start again"
        ) from error
