"""Whether a checkpoint continues the run that is asked for, and in words why not."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.errors import TrainingError
from llamacpu.tools.train.checkpoints import Checkpoint, Identity, digest_of, read_checkpoint

if TYPE_CHECKING:
    from llamacpu.engine.model import EngineModel
    from llamacpu.tools.train.adapters import Adapter
    from llamacpu.tools.train.prepared import Prepared
    from llamacpu.tools.train.settings import TrainingSettings

__all__ = ["begun", "checked", "identity_of"]


def begun(path: Path, resume: bool) -> Checkpoint | None:
    """The checkpoint to resume from; None for a new run.

    Raises TrainingError if there is none to resume from, and if a new run would overwrite one.
    """
    if not resume:
        if path.exists():
            raise TrainingError(
                f"{path} is the checkpoint of a run that has not ended; resume it (--resume, resume=True), or remove it"
            )
        return None
    if not path.exists():
        raise TrainingError(f"there is no checkpoint {path} to resume from; start without resuming")
    return read_checkpoint(path)


def checked(identity: Identity, checkpoint: Checkpoint | None, moment: datetime) -> Checkpoint:
    """The state to start from. Raises TrainingError for a checkpoint of another run, naming what differs."""
    if checkpoint is None:
        return Checkpoint(identity, moment.isoformat())
    now, then = identity, checkpoint.identity
    if then.model != now.model:
        raise TrainingError("the checkpoint belongs to a run with another model; resume it with that one")
    changed = [
        f"{name} ({_told(then.settings.get(name))}, now {_told(value)})"
        for name, value in now.settings.items()
        if value != then.settings.get(name)
    ]
    if changed:
        told = ", ".join(changed)
        raise TrainingError(f"the checkpoint belongs to a run with other settings: {told}; give those of its start")
    if then.adapter != now.adapter:
        raise TrainingError("the checkpoint belongs to a run that started from another adapter; give that one")
    if then.data != now.data:
        raise TrainingError(
            "the checkpoint belongs to a run with other data, or with another chat template; resume it with those"
        )
    return checkpoint


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


def identity_of(model: EngineModel, prepared: Prepared, first: Adapter | None, settings: TrainingSettings) -> Identity:
    """The identity of a run."""
    digest = ""
    if first is not None:
        hashed = hashlib.sha256()
        for target in sorted(first.matrices):
            for array in first.matrices[target]:
                hashed.update(target.encode() + array.astype("<f4").tobytes())
        digest = hashed.hexdigest()
    return Identity(model.fingerprint, digest_of(prepared.rows, prepared.validation), digest, settings.as_json())
