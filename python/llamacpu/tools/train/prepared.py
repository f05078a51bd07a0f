"""The data of a training, ready to be trained on: read, tokenized, divided and packed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamacpu.errors import TrainingError
from llamacpu.tools.train.order import permutation
from llamacpu.tools.train.packing import Row, packed_rows
from llamacpu.tools.train.records import Data, read_records
from llamacpu.tools.train.samples import Encoder, Sample

if TYPE_CHECKING:
    from llamacpu.chat import Chat
    from llamacpu.tools.train.settings import TrainingSettings

__all__ = ["Prepared", "prepare"]

_ENOUGH = 200
_USUAL_SHARE = 0.05


@dataclass(frozen=True)
class Prepared:
    """Packed rows, and counts of what they were made of.

    samples            sequences for training
    validation_samples sequences that are kept for validation
    cut, skipped       samples that were cut, and left out, because they are too long
    """

    rows: list[Row]
    validation: list[Row]
    samples: int
    validation_samples: int
    cut: int
    skipped: int

    @property
    def tokens(self) -> int:
        """Tokens of the rows for training."""
        return sum(len(row.tokens) for row in self.rows)

    @property
    def counted(self) -> int:
        """Tokens of these that the loss counts."""
        return sum(row.counted for row in self.rows)


def prepare(
    chat: Chat,
    data: Data,
    settings: TrainingSettings,
    on_read: Callable[[int], None] | None = None,
    *,
    is_base: bool = False,
) -> Prepared:
    """Read and pack the data.

    is_base: whether the model was not trained to answer. Raises TrainingError if the data cannot be used or nothing is
    left to learn.
    """
    raw = is_base if settings.raw is None else settings.raw
    encoder = Encoder(chat, settings.length, settings.count, settings.too_long, raw)
    parts = _encoded(encoder, data, on_read)
    held, kept = _divided(encoder, parts, settings, on_read)
    rows = packed_rows(kept, settings.length, settings.seed)
    if not rows:
        left_out = f": {encoder.skipped} samples are longer than {settings.length} tokens" if encoder.skipped else ""
        raise TrainingError(f"the data hold nothing to learn{left_out}; expected at least one answer or text")
    return Prepared(
        rows, packed_rows(held, settings.length, settings.seed), len(kept), len(held), encoder.cut, encoder.skipped
    )


def _encoded(encoder: Encoder, data: Data, on_read: Callable[[int], None] | None) -> list[list[Sample]]:
    found = []
    for number, samples in enumerate(encoder.samples(read_records(data)), 1):
        found.append(samples)
        if on_read is not None:
            on_read(number)
    return [samples for samples in found if samples]


def _divided(
    encoder: Encoder,
    parts: list[list[Sample]],
    settings: TrainingSettings,
    on_read: Callable[[int], None] | None,
) -> tuple[list[Sample], list[Sample]]:
    """The samples for validation and those for training. What belongs together stays together."""
    given = settings.validation
    if isinstance(given, (str, os.PathLike)):
        held = _encoded(encoder, given, on_read)
        if not held:
            raise TrainingError(f"{given}: the validation data hold no answer and no text")
        return [sample for part in held for sample in part], [sample for part in parts for sample in part]
    share = (_USUAL_SHARE if len(parts) >= _ENOUGH else 0.0) if given is None else float(given)
    count = int(share) if share >= 1 else max(round(share * len(parts)), 1) if share else 0
    if count and count >= len(parts):
        raise TrainingError(
            f"validation takes {count} of {len(parts)} records, so that none is left to train on; "
            "take fewer, or give a file"
        )
    order = permutation(settings.seed, "validation", 0, len(parts)).tolist()
    held_indices = set(order[:count])
    return (
        [sample for index in sorted(held_indices) for sample in parts[index]],
        [sample for index, part in enumerate(parts) if index not in held_indices for sample in part],
    )
