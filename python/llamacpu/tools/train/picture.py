"""The loss curve as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llamacpu.errors import TrainingError
from llamacpu.tools import plots
from llamacpu.tools.train.checkpoints import Point

__all__ = ["check_picture", "draw_losses"]


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise an error if the picture could not be drawn: TrainingError for its name, ImportError without matplotlib."""
    if Path(path).suffix.lower() not in (".png", ".svg"):
        raise TrainingError(f"the picture is called {Path(path).name!r}; expected a name that ends in .png or .svg")
    plots.require()


def draw_losses(path: str | os.PathLike[str], points: Sequence[Point], title: str) -> None:
    """Draw the losses of the steps and of the evaluations."""
    steps = [(point.step, point.loss) for point in points if point.loss is not None]
    plots.loss_plot(
        path,
        [step for step, _ in steps],
        [loss for _, loss in steps],
        validation=[(point.step, point.validation_loss) for point in points if point.validation_loss is not None],
        title=title,
    )
