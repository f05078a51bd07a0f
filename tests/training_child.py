"""Trains with the NumPy trainer and kills itself: `training_child.py MODEL DATA OUTPUT RESUME WHEN NUMBER`.

WHEN is "step" or "write": before the gradients of a row are computed, or while a checkpoint is written.
"""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import numpy_trainer
from llamacpu.tools.train import TrainingSettings, run, train

SETTINGS = TrainingSettings(
    rank=2, length=32, steps=12, batch=2, learning_rate=0.02, validation=5, evaluate_every=4, seed=3, patience=0
)


def native(trainer: Any = numpy_trainer.NumpyTrainer) -> SimpleNamespace:
    """What the training takes from the native module."""
    return SimpleNamespace(
        trainable=numpy_trainer.trainable,
        training_nbytes=numpy_trainer.training_nbytes,
        training_weights_nbytes=numpy_trainer.training_weights_nbytes,
        Trainer=trainer,
        TrainerShape=numpy_trainer.TrainerShape,
    )


def main(model: str, data: str, output: str, resume: str, when: str, number: int) -> None:
    counts = {"step": 0, "write": 0}

    def die(what: str) -> None:
        counts[what] += 1
        if what == when and counts[what] == number:
            os.kill(os.getpid(), signal.SIGKILL)

    class Mortal(numpy_trainer.NumpyTrainer):
        def step(self, *arguments: Any) -> tuple[float, int]:
            die("step")
            return super().step(*arguments)

    sync = os.fsync

    def fsync(descriptor: int) -> None:
        die("write")
        sync(descriptor)

    os.fsync = fsync
    run._native = native(Mortal)  # type: ignore[assignment]
    train(model, data, output, SETTINGS, resume=resume == "resume", checkpoint_seconds=0.0)


if __name__ == "__main__":
    main(*sys.argv[1:6], int(sys.argv[6]))
