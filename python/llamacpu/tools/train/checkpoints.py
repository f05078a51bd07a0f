"""Checkpoints of a training: one file with all that a resumed run needs to reach the same bits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llamacpu.errors import TrainingError
from llamacpu.tools.train import safetensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.tools.train.packing import Row

__all__ = ["Checkpoint", "Identity", "Point", "digest_of", "read_checkpoint", "write_checkpoint"]

_FORMAT = "llamacpu training checkpoint 1"
_STATE, _BEST = "state.", "best."


@dataclass(frozen=True)
class Identity:
    """What a run is made of; a checkpoint continues the same run only."""

    model: str
    """fingerprint of the model"""
    data: str
    """digest of the packed rows and of those for validation"""
    adapter: str
    """digest of the adapter's first values"""
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


@dataclass
class Checkpoint:
    """The state of a run between two steps."""

    identity: Identity
    date: str
    """what chat templates write as today's date"""
    step: int = 0
    tokens: int = 0
    points: list[Point] = field(default_factory=list)
    best_loss: float | None = None
    best_step: int = 0
    evaluations_since_best: int = 0
    state: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    best: Mapping[str, NDArray[np.float32]] | None = None
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


def digest_of_arrays(arrays: Mapping[str, NDArray[Any]]) -> str:
    """64 hexadecimal digits that stand for named arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint: the older one stays until the new one is complete and on disk."""
    arrays = {_STATE + name: array for name, array in checkpoint.state.items()}
    arrays |= {_BEST + name: array for name, array in (checkpoint.best or {}).items()}
    document = {
        **{name: value for name, value in vars(checkpoint).items() if name not in ("state", "best", "points")},
        "identity": asdict(checkpoint.identity),
        "points": [list(asdict(point).values()) for point in checkpoint.points],
        "has_best": checkpoint.best is not None,
    }
    text = json.dumps(document)
    metadata = {"format": _FORMAT, "run": text, "digest": _digest(arrays, text)}
    safetensors.write(path, arrays, metadata, "a checkpoint of a training")


def _digest(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    return hashlib.sha256((digest_of_arrays(arrays) + text).encode()).hexdigest()


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint. Raises TrainingError for a file that is none, or is damaged; OSError if it cannot be read."""
    try:
        arrays, metadata = safetensors.read(path)
        if metadata.get("format") != _FORMAT:
            raise ValueError("it is not a checkpoint of a training, or one of another version")
        if metadata.get("digest") != _digest(arrays, metadata["run"]):
            raise ValueError("its contents do not match their digest: the file is damaged")
        document = json.loads(metadata["run"])
        has_best = document.pop("has_best")
        return Checkpoint(
            **{**document, "identity": Identity(**document["identity"])}
            | {"points": [Point(*values) for values in document["points"]]},
            state={name[len(_STATE) :]: array for name, array in arrays.items() if name.startswith(_STATE)},
            best={name[len(_BEST) :]: array for name, array in arrays.items() if name.startswith(_BEST)}
            if has_best
            else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{Path(path)}: the checkpoint cannot be used: {error}; remove it to start again") from error
