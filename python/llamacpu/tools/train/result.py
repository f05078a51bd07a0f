"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llamacpu.tools.train.checkpoints import Point
from llamacpu.tools.train.plan import TrainingPlan

__all__ = ["TrainingResult"]


@dataclass(frozen=True)
class TrainingResult:
    """A finished training."""

    adapter: Path
    """the GGUF file of the adapter"""
    peft: Path | None
    """the folder of the same adapter for Hugging Face's PEFT; None if none was written"""
    peft_note: str | None
    """why there is no such folder, if one was to be written only if possible"""
    log: Path
    """the loss curve as a file"""
    plan: TrainingPlan
    steps: int
    """steps done"""
    best_step: int
    """the step whose adapter was written: that of the lowest validation loss, or the last one"""
    loss: float
    """mean loss of the last ten steps, in nats per counted token"""
    validation_loss: float | None
    """the lowest one; None without validation data"""
    stopped_early: bool
    """whether the training ended because the validation loss did not improve any more"""
    seconds: float
    """of this call: those of a run before it was resumed do not count"""
    points: list[Point] = field(repr=False)
    """the loss curve, a point for each step, and one for an evaluation before the first"""
