"""What a training will do and need, before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.tools.train.loop import Pace
    from llamacpu.tools.train.prepared import Prepared

__all__ = ["TrainingPlan"]


@dataclass(frozen=True)
class TrainingPlan:
    """What a training will do and need. All sizes are in bytes."""

    samples: int
    """sequences to train on"""
    validation_samples: int
    tokens: int
    """tokens in an epoch"""
    counted: int
    """tokens of these that the loss counts"""
    cut: int
    """samples that were cut because they are longer than a row"""
    skipped: int
    """samples that were left out: too long, or nothing of what the loss counts would remain"""
    rows: int
    """rows into which the samples are packed"""
    batch: int
    """rows in a step"""
    steps: int
    epochs: float
    first_step: int
    """steps that a resumed run has behind it"""
    matrices: int
    """matrices that get an adapter"""
    parameters: int
    """numbers that are trained"""
    weight_bytes: int
    """of the model, as they are in memory, at most"""
    training_bytes: int
    """of parameters, moments, gradients and activations, at most"""
    kept_layers: int
    """layers that keep their activations for the backward pass, which makes it faster"""
    available_bytes: int | None
    """memory that is free; None if the system does not tell"""

    @property
    def memory_bytes(self) -> int:
        """The memory that the training needs at most."""
        return self.weight_bytes + self.training_bytes

    def lines(self) -> list[str]:
        """The plan for a reader."""
        lost = [f"{self.cut} cut" if self.cut else "", f"{self.skipped} left out" if self.skipped else ""]
        lost_text = f" ({', '.join(filter(None, lost))}: longer than a row)" if any(lost) else ""
        held = f", {self.validation_samples} for validation" if self.validation_samples else ""
        free = "" if self.available_bytes is None else f"; {amount(self.available_bytes)} are free"
        begun = f", {self.first_step} of them done" if self.first_step else ""
        return [
            f"data: {self.samples:,} samples{held}{lost_text}; "
            f"{self.tokens:,} tokens, {self.counted:,} of them counted by the loss",
            f"training: {self.steps:,} steps{begun}, {self.epochs:.3g} epochs of {self.rows:,} rows, "
            f"{self.batch} in a step; {self.parameters:,} parameters of {self.matrices} matrices",
            f"memory: {amount(self.memory_bytes)}: {amount(self.weight_bytes)} for the model's weights, "
            f"{amount(self.training_bytes)} for the training{free}",
        ]

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        pace: Pace,
        first_step: int,
        matrices: int,
        parameters: int,
        weight_bytes: int,
        training_bytes: int,
        kept_layers: int,
        available_bytes: int | None,
    ) -> TrainingPlan:
        """The plan for data that are prepared."""
        return cls(
            prepared.samples, prepared.validation_samples, prepared.tokens, prepared.counted, prepared.cut,
            prepared.skipped, len(prepared.rows), pace.batch, pace.steps, pace.epochs, first_step, matrices, parameters,
            weight_bytes, training_bytes, kept_layers, available_bytes,
        )  # fmt: skip
