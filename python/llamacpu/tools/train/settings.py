"""The settings of a training, and their checks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llamacpu.arguments import described, flag, integer, number
from llamacpu.tools.train.schedule import Schedule

__all__ = ["TrainingSettings"]

_INTEGERS = {
    "rank": (1, 4096), "length": (2, 1 << 20), "epochs": (1, 1 << 20), "steps": (1, 1 << 30), "batch": (1, 1 << 20),
    "seed": (0, (1 << 63) - 1), "patience": (0, 1 << 20), "evaluate_every": (1, 1 << 30),
}  # fmt: skip
# The bounds, of which "(" and ")" are excluded.
_NUMBERS = {
    "alpha": "(0, 1e6]", "learning_rate": "(0, 10]", "warm_up": "[0, 1e9]", "beta1": "[0, 1)", "beta2": "[0, 1)",
    "epsilon": "(0, 1]", "weight_decay": "[0, 10]", "clip_norm": "[0, 1e9]", "dropout": "[0, 1)",
}  # fmt: skip
_CHOICES = {
    "schedule": ("cosine", "linear", "constant"),
    "count": ("answers", "all"),
    "too_long": ("cut", "skip"),
}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How a LoRA adapter is trained. The defaults work for most data.

    Raises TypeError or ValueError for a value that is not possible.
    """

    rank: int = 16
    """rank of the two matrices A and B that stand for the change of each weight matrix"""
    alpha: float | None = None
    """the change is B A times alpha / rank (alpha / sqrt(rank) with `rslora`); None for twice the rank"""
    matrices: str | tuple[str, ...] = "all"
    """which matrices get an adapter: "all" in attention and feed-forward networks, "attention", "feed_forward", or
    names as in the file ("attn_q", "token_embd", "output") or as in Hugging Face's models ("q_proj", "lm_head")"""
    rslora: bool = False
    """whether the change is scaled for stable training at high ranks (rsLoRA, Kalajdzievski 2023)"""
    dropout: float = 0.0
    """dropout of the adapters' input; only 0 is supported"""

    length: int = 512
    """tokens in a row, into which samples are packed; a longer sample is cut or left out. 512 becomes the context of a
    model that was trained for less"""
    too_long: Literal["cut", "skip"] = "cut"
    count: Literal["answers", "all"] = "answers"
    """which tokens the loss counts: those that the assistant writes and those of completions, or all"""
    raw: bool | None = None
    """whether a prompt and its completion are joined as they are, instead of by the chat template; None if the file has
    no template and names no chat model"""

    epochs: int | None = None
    """passes over the data; None for 3, or as many as make 100 steps if the data are few"""
    steps: int | None = None
    """steps of the optimizer, instead of epochs"""
    batch: int | None = None
    """rows in a step, whose gradients are accumulated; None for 8, or fewer so that there are 100 steps"""
    learning_rate: float = 2e-4
    schedule: Schedule = "cosine"
    warm_up: float = 0.03
    """a share of the steps, or their number if it is at least 1"""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    """of AdamW: a share of the parameters, times the learning rate, taken off in every step"""
    clip_norm: float = 1.0
    """the norm to which longer gradients are shortened; 0 leaves them"""
    exact: bool = False
    """whether products with quantized weights are computed in 32-bit floats, in up to twice the time; otherwise
    activations and gradients are rounded to 8 bits for them, as activations are when the model runs"""
    seed: int = 0
    """of the adapters' first values and of every random order"""

    validation: float | str | os.PathLike[str] | None = None
    """a share of the records that is kept out of the training (below 1), their number, or a file of others; None
    for 5 % if there are at least 200 records, else 0"""
    evaluate_every: int | None = None
    """steps between two evaluations of the loss on these; None for ten evaluations in the run"""
    patience: int = 3
    """evaluations without improvement after which the training stops; 0 never stops it"""

    def __post_init__(self) -> None:
        for name, (least, most) in _INTEGERS.items():
            value = getattr(self, name)
            integer(name, value)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} is {value}; expected {least} to {most}")
        for name, bounds in _NUMBERS.items():
            value = getattr(self, name)
            number(name, value)
            if value is not None and not _within(value, bounds):
                raise ValueError(f"{name} is {value}; expected a number in {bounds}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                expected = " or ".join(repr(choice) for choice in choices)
                raise ValueError(f"{name} is {described(getattr(self, name))}; expected {expected}")
        flag("rslora", self.rslora)
        flag("raw", self.raw)
        flag("exact", self.exact)
        if self.dropout:
            raise ValueError(
                f"dropout is {self.dropout}; only 0 is supported: a lower rank or fewer steps regularize, too"
            )
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given; expected one of them")
        self._check_matrices()
        self._check_validation()

    def _check_matrices(self) -> None:
        names: Any = self.matrices
        if not isinstance(names, str):
            if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) for name in names):
                raise TypeError(f"matrices is {described(names)}; expected a name or a list of names")
            object.__setattr__(self, "matrices", tuple(names))

    def _check_validation(self) -> None:
        value = self.validation
        if isinstance(value, (str, os.PathLike)) or value is None:
            return
        number("validation", value)
        if not (0 <= value < 1 or (value == int(value) and value >= 1)):
            raise ValueError(f"validation is {value}; expected a share below 1, a number of records or a file")

    @property
    def effective_alpha(self) -> float:
        """The alpha whose quotient with the rank is the factor of B A, as runtimes compute it."""
        alpha = 2.0 * self.rank if self.alpha is None else float(self.alpha)
        return alpha * math.sqrt(self.rank) if self.rslora else alpha

    @property
    def given_alpha(self) -> float:
        """The alpha as it was given."""
        return 2.0 * self.rank if self.alpha is None else float(self.alpha)

    def as_json(self) -> dict[str, Any]:
        """The settings as values of a JSON document."""
        values = asdict(self)
        if isinstance(self.validation, (str, os.PathLike)):
            # What is in the file counts, not where it lies.
            values["validation"] = "a file"
        if not isinstance(self.matrices, str):
            values["matrices"] = list(self.matrices)
        return values


def _within(value: float, bounds: str) -> bool:
    low, high = (float(end) for end in bounds[1:-1].split(","))
    above = value > low if bounds[0] == "(" else value >= low
    below = value < high if bounds[-1] == ")" else value <= high
    return above and below
