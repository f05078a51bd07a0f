"""The training loop: rows in, steps of the optimizer, evaluations, checkpoints.

The rows of a step, its learning rate and every random order are functions of the settings and the number of the step,
so a checkpoint between two steps continues to the same bits.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING

from llamacpu import log
from llamacpu.engine.duty import DutyCycle, working
from llamacpu.errors import TrainingError
from llamacpu.tools.train.checkpoints import Checkpoint, Point, write_checkpoint
from llamacpu.tools.train.interrupts import held_interrupts
from llamacpu.tools.train.loss_log import LossLog
from llamacpu.tools.train.order import permutation
from llamacpu.tools.train.packing import Row
from llamacpu.tools.train.schedule import learning_rate, warm_up_steps
from llamacpu.tools.train.settings import TrainingSettings

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.tools.train.trainer import TrainerLike

__all__ = ["Pace", "Training", "TrainingProgress"]

_RECENT = 10
"""Steps whose mean loss the progress shows."""


@dataclass(frozen=True)
class Pace:
    """How many steps a training has, and how many rows each of them takes."""

    steps: int
    batch: int
    epochs: float
    evaluate_every: int

    @classmethod
    def of(cls, rows: int, settings: TrainingSettings) -> Pace:
        """The pace for a number of rows: a few data are passed through more often, in smaller steps."""
        epochs = settings.epochs or 3
        batch = settings.batch or next((size for size in range(8, 1, -1) if epochs * math.ceil(rows / size) >= 100), 1)
        batch = min(batch, rows)
        each = math.ceil(rows / batch)
        if settings.steps is not None:
            steps = settings.steps
        else:
            steps = each * (settings.epochs or max(epochs, math.ceil(100 / each)))
        return cls(steps, batch, steps / each, settings.evaluate_every or max(steps // 10, 1))


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is.

    step, steps        steps done, and of how many
    row, rows          rows of the current step that are done, and of how many
    loss               mean loss of the latest steps in nats per counted token; None before the first one
    validation_loss    of the latest evaluation; None without one
    tokens_per_second  read since the start, or the resumption; None at first
    seconds_left       by that speed; early stopping may make it shorter
    """

    step: int
    steps: int
    row: int
    rows: int
    loss: float | None
    validation_loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None


class Training:
    """A training in progress; `checkpoint` is its state between two steps."""

    def __init__(
        self,
        trainer: TrainerLike,
        rows: Sequence[Row],
        validation: Sequence[Row],
        settings: TrainingSettings,
        checkpoint: Checkpoint,
        *,
        path: str | os.PathLike[str],
        seconds: float,
        curve: LossLog | None = None,
        on_progress: Callable[[TrainingProgress], None] | None = None,
        cancel: CancelToken | None = None,
        duty: DutyCycle | None = None,
    ) -> None:
        self.checkpoint: Checkpoint = checkpoint
        self.pace: Pace = Pace.of(len(rows), settings)
        self._trainer, self._rows, self._validation = trainer, rows, validation
        self._settings = settings
        self._path, self._seconds = path, seconds
        self._curve, self._on_progress, self._cancel = curve, on_progress, cancel
        self._duty = duty
        self._warm_up = warm_up_steps(settings.warm_up, self.pace.steps)
        self._order: tuple[int, list[int]] = (-1, [])
        self._began = self._saved = monotonic()
        self._tokens_since = 0
        self._tokens_per_step = sum(len(row.tokens) for row in rows) * self.pace.epochs / self.pace.steps

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not improved for as many evaluations as the settings allow."""
        patience = self._settings.patience
        return bool(patience) and self.checkpoint.evaluations_since_best >= patience

    def run(self) -> None:
        """Train to the last step, or until the validation loss does not improve any more.

        An exception, Ctrl-C and the cancel token included, leaves a checkpoint of the last complete step behind.
        Raises TrainingError if the loss is no finite number.
        """
        self.save()
        try:
            while True:
                if self._evaluation_due():
                    self._evaluate()
                if self.checkpoint.step >= self.pace.steps or self.stopped_early:
                    break
                self._step()
                if self._curve is not None:
                    self._curve.sync(self.checkpoint.points)
                if monotonic() - self._saved >= self._seconds:
                    self.save()
        except BaseException:
            self.save()
            raise

    def save(self) -> None:
        """Write the checkpoint."""
        self.checkpoint.state = self._trainer.state()
        write_checkpoint(self._path, self.checkpoint)
        self._saved = monotonic()

    def _step(self) -> None:
        state, settings = self.checkpoint, self._settings
        rows = self._rows_of(state.step)
        self._trainer.clear_gradients()
        total, count, tokens = 0.0, 0, 0
        for done, row in enumerate(rows):
            self._tell(done, len(rows))
            with working(self._duty, self._cancel):
                sum_, counted = self._trainer.step(row.tokens, row.segments, row.targets, self._cancel)
            total, count, tokens = total + sum_, count + counted, tokens + len(row.tokens)
            self._tokens_since += len(row.tokens)
        self._check(total, "loss")
        rate = learning_rate(settings.learning_rate, settings.schedule, state.step, self.pace.steps, self._warm_up)
        with working(self._duty, self._cancel), held_interrupts():
            norm = self._trainer.optimizer_step(
                rate,
                (settings.beta1, settings.beta2),
                settings.epsilon,
                settings.weight_decay,
                settings.clip_norm or None,
                float(max(count, 1)),
            )
            self._check(norm, "gradient")
            state.step += 1
            state.tokens += tokens
            epoch = state.step * self.pace.epochs / self.pace.steps
            loss = total / max(count, 1)
            state.points.append(Point(state.step, epoch, state.tokens, loss, norm, rate))
        log.info("step %d of %d: loss %.4f, learning rate %.3g", state.step, self.pace.steps, loss, rate)
        self._tell(0, self.pace.batch)

    def _check(self, value: float, name: str) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {name} of step {self.checkpoint.step + 1} is {value}: the training has diverged; "
                f"try a lower learning rate than {self._settings.learning_rate:g}"
            )

    def _rows_of(self, step: int) -> list[Row]:
        each = math.ceil(len(self._rows) / self.pace.batch)
        epoch, number = divmod(step, each)
        if self._order[0] != epoch:
            self._order = epoch, permutation(self._settings.seed, "rows", epoch, len(self._rows)).tolist()
        start = number * self.pace.batch
        return [self._rows[index] for index in self._order[1][start : start + self.pace.batch]]

    def _evaluation_due(self) -> bool:
        state = self.checkpoint
        if not self._validation or (state.points and state.points[-1].validation_loss is not None):
            return False
        return state.step % self.pace.evaluate_every == 0 or state.step == self.pace.steps

    def _evaluate(self) -> None:
        total, count = 0.0, 0
        for row in self._validation:
            with working(self._duty, self._cancel):
                loss, counted = self._trainer.loss(row.tokens, row.segments, row.targets, self._cancel)
            total, count = total + loss, count + counted
        self._check(total, "validation loss")
        loss, state = total / max(count, 1), self.checkpoint
        log.info("validation loss after step %d: %.4f", state.step, loss)
        better = state.best_loss is None or loss < state.best_loss
        best = self._trainer.parameters() if better else state.best
        with held_interrupts():
            if not state.points:
                state.points.append(Point(0, 0.0, 0))
            state.points[-1] = replace(state.points[-1], validation_loss=loss)
            state.evaluations_since_best = 0 if better else state.evaluations_since_best + 1
            if better:
                state.best_loss, state.best_step, state.best = loss, state.step, best

    def _tell(self, row: int, rows: int) -> None:
        if self._on_progress is None:
            return
        state, pace = self.checkpoint, self.pace
        losses = [point.loss for point in state.points[-_RECENT:] if point.loss is not None]
        evaluations = (point.validation_loss for point in reversed(state.points) if point.validation_loss is not None)
        seconds = monotonic() - self._began
        speed = self._tokens_since / seconds if self._tokens_since and seconds > 0 else None
        steps_left = max(pace.steps - state.step - row / max(rows, 1), 0)
        left = None if speed is None else steps_left * self._tokens_per_step / speed
        self._on_progress(
            TrainingProgress(
                state.step, pace.steps, row, rows, sum(losses) / len(losses) if losses else None,
                next(evaluations, None), speed, left,
            )
        )  # fmt: skip
