"""Prompt Guard: does a text try to take over a model (injection, jailbreak)?

Any encoder with a classifier can be used. A text longer than the model's context is read in overlapping windows, and
the worst window counts (as the model card of Prompt Guard recommends: its context is 512 tokens).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.errors import ModelError
from llamacpu.sampling.functions import exp
from llamacpu.tasks.embeddings import vectors

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, ModelLike

__all__ = ["PromptGuard", "guard_prompt", "labels_of"]

# Labels for a harmless text; if the model has none of them, the first class is taken as harmless.
_HARMLESS = ("benign", "safe", "label_0")


@dataclass(frozen=True)
class PromptGuard:
    """A verdict.

    malicious     whether `probability` reaches the threshold
    probability   total probability of all labels but the harmless one, in the window where it is highest
    label         the most likely label of that window
    scores        the probability of every label in that window
    windows       number of windows in which the text was read
    """

    malicious: bool
    probability: float
    label: str
    scores: Mapping[str, float]
    windows: int


def labels_of(model: ModelLike) -> list[str]:
    """The names of the classes from the file, or LABEL_0, LABEL_1, ... if it has none.

    Raises ModelError for a model without a classifier and for labels that do not match its classes.
    """
    classes = model.config.classes
    if not classes:
        raise ModelError(
            f"the model ({model.config.architecture}) has no classifier; open a Prompt Guard model, or another encoder "
            "that gives classes"
        )
    key = f"{model.config.architecture}.classifier.output_labels"
    labels = list(model.metadata.strings(key)) if key in model.metadata else [f"LABEL_{i}" for i in range(classes)]
    if len(labels) != classes or len(set(labels)) != classes:
        raise ModelError(f"{key} has {len(labels)} names for {classes} classes; expected a name of its own for each")
    return labels


def guard_prompt(
    model: ModelLike, text: str, *, threshold: float = 0.5, cancel: CancelToken | None = None
) -> PromptGuard:
    """Judge a text.

    Raises ModelError for a model without a classifier, ValueError for a threshold outside 0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold}; expected 0 to 1")
    labels = labels_of(model)
    harmless = next((i for i, label in enumerate(labels) if label.lower() in _HARMLESS), 0)
    states = np.stack(list(vectors(model, _windows(model, text), "cls", cancel=cancel)))
    scores = model.classify(states).astype(np.float64)
    worst, windows = None, len(scores)
    for row in scores:
        powers = exp(row - row.max())
        shares = powers / powers.sum()
        if worst is None or shares[harmless] < worst[harmless]:
            worst = shares
    assert worst is not None
    # The sum over the other labels rather than 1 minus the harmless one, so that a probability of 1e-20 is not lost.
    probability = float(sum(share for i, share in enumerate(worst) if i != harmless))
    return PromptGuard(
        malicious=probability >= threshold,
        probability=probability,
        label=labels[int(worst.argmax())],
        scores=dict(zip(labels, worst.tolist(), strict=True)),
        windows=windows,
    )


def _windows(model: ModelLike, text: str) -> Iterator[list[int]]:
    """Yield the windows of a text, each enclosed in the special tokens; adjacent windows overlap by half."""
    tokenizer, limit = model.tokenizer, model.context_length
    plain, frame = tokenizer.encode(text, add_special=False), tokenizer.encode("")
    first = 1 if tokenizer.add_bos else 0
    before, after = frame[:first], frame[first:]
    room = max(limit - len(before) - len(after), 1)
    step = max(room // 2, 1)
    start = 0
    while True:
        yield [*before, *plain[start : start + room], *after]
        if start + room >= len(plain):
            return
        start += step
