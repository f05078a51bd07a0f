"""Hidden states of scheduled sessions: computed between the steps of running streams, a few texts at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from llamacpu.engine.interfaces import CancelToken, Logits, ModelLike, StepOutput, TokenIds
from llamacpu.engine.pictures import MixedTokens
from llamacpu.scheduler.jobs import Slot
from llamacpu.scheduler.memory import Memory
from llamacpu.scheduler.scheduler import IN_USE, Scheduler

__all__ = ["run_hidden"]

Pairs = Sequence[tuple[Slot, TokenIds]]
# The number of tokens whose hidden states are computed between two steps of running streams.
_HIDDEN_TOKENS = 128


def run_hidden(
    model: ModelLike,
    scheduler: Scheduler,
    memory: Memory,
    pairs: Pairs,
    layers: Sequence[int],
    logits: Logits,
    cancel: CancelToken | None,
) -> list[StepOutput]:
    """Extend the sessions by their tokens; arguments, result and errors are those of `Model.step_hidden`.

    After an error every session is as it was before.
    """
    starts = [slot.native.position for slot, _ in pairs]
    found: list[StepOutput] = []
    try:
        for group in _groups(pairs):
            step = partial(_step, model, scheduler, memory)
            [(slot, ids), *others] = group
            if others or len(ids) <= 2 * _HIDDEN_TOKENS or not model.config.causal or isinstance(ids, MixedTokens):
                found += scheduler.call(partial(step, group, layers, logits, cancel))
                continue
            parts: list[StepOutput] = []
            for start in range(0, len(ids), _HIDDEN_TOKENS):
                piece = ids[start : start + _HIDDEN_TOKENS]
                last = start + _HIDDEN_TOKENS >= len(ids)
                wanted: Logits = logits if last or logits == "all" else "none"
                parts += scheduler.call(partial(step, [(slot, piece)], layers, wanted, cancel))
            found.append(_joined(parts, logits))
    except BaseException:
        with scheduler.changed:
            for (slot, _), start in zip(pairs, starts, strict=True):
                if slot.native.position > start:
                    slot.native.truncate(start)
                    slot.pages.truncate(start)
        raise
    return found


def _step(
    model: ModelLike,
    scheduler: Scheduler,
    memory: Memory,
    pairs: Pairs,
    layers: Sequence[int],
    logits: Logits,
    cancel: CancelToken | None,
) -> list[StepOutput]:
    """Run in the scheduler's thread."""
    with scheduler.changed:
        if any(slot.busy for slot, _ in pairs):
            raise RuntimeError(IN_USE)
        pages = [slot.pages.missing(slot.native.position, len(ids)) * slot.pages.page_bytes for slot, ids in pairs]
        memory.free(sum(pages))
    found = model.step_hidden([(slot.native, ids) for slot, ids in pairs], layers, logits, cancel)
    with scheduler.changed:
        for slot, ids in pairs:
            slot.pages.grow(slot.native.position - len(ids), len(ids))
            scheduler.shares.charge(slot.client, len(ids))
    return found


def _joined(parts: Sequence[StepOutput], logits: Logits) -> StepOutput:
    """The output of one item that was computed in pieces."""
    import numpy

    rows = parts[-1].logits
    if logits == "all":
        rows = numpy.concatenate([part.logits for part in parts if part.logits is not None])
    return StepOutput(rows, numpy.concatenate([part.hidden for part in parts], axis=1))


def _groups(pairs: Pairs) -> Iterator[list[tuple[Slot, TokenIds]]]:
    """Split the items into groups of whole items, short enough for others not to wait long, if they can be."""
    group: list[tuple[Slot, TokenIds]] = []
    tokens = 0
    for slot, ids in pairs:
        if group and tokens + len(ids) > _HIDDEN_TOKENS:
            yield group
            group, tokens = [], 0
        group.append((slot, ids))
        tokens += len(ids)
    if group:
        yield group
