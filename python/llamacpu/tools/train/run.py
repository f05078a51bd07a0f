"""`train`: from a model and data to an adapter."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from llamacpu import _native
from llamacpu.arguments import described, integer, number
from llamacpu.arguments import path as check_path
from llamacpu.chat import Chat, fixed_time, is_base_model
from llamacpu.engine.duty import Duty, cycle_of
from llamacpu.engine.model import EngineModel
from llamacpu.engine.priority import Priority, set_priority
from llamacpu.errors import TrainingError
from llamacpu.families.memory import amount
from llamacpu.memory import available_memory
from llamacpu.tools.train.adapters import (
    Adapter,
    check_peft,
    read_gguf_adapter,
    write_gguf_adapter,
    write_peft_folder,
)
from llamacpu.tools.train.layers import kept_layers
from llamacpu.tools.train.loop import Pace, Training, TrainingProgress
from llamacpu.tools.train.loss_log import LossLog
from llamacpu.tools.train.paths import Paths
from llamacpu.tools.train.picture import check_picture, draw_losses
from llamacpu.tools.train.plan import TrainingPlan
from llamacpu.tools.train.prepared import prepare
from llamacpu.tools.train.records import Data
from llamacpu.tools.train.result import TrainingResult
from llamacpu.tools.train.resumption import begun, checked, identity_of
from llamacpu.tools.train.settings import TrainingSettings
from llamacpu.tools.train.targets import chosen_targets

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.tools.train.trainer import TrainerLike

__all__ = ["train"]

_LAST_STEPS = 10
_USUAL_LENGTH = TrainingSettings().length
_COPIES = 16
"""Bytes per parameter of what Python holds: the copies for a checkpoint, and the best parameters so far."""


def train(
    model: str | os.PathLike[str] | EngineModel,
    data: Data,
    output: str | os.PathLike[str],
    settings: TrainingSettings | None = None,
    *,
    start_from: str | os.PathLike[str] | None = None,
    resume: bool = False,
    peft: str | os.PathLike[str] | bool | None = None,
    log: str | os.PathLike[str] | None = None,
    plot: str | os.PathLike[str] | None = None,
    template: str | None = None,
    checkpoint_seconds: float = 120.0,
    memory: int | None = None,
    threads: int | None = None,
    priority: Priority | None = None,
    duty: Duty = None,
    on_read: Callable[[int], None] | None = None,
    on_plan: Callable[[TrainingPlan], None] | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    cancel: CancelToken | None = None,
) -> TrainingResult:
    """Train a LoRA adapter of a model on conversations or texts; the model's own weights stay as they are.

    model        a GGUF file of any format, the name of a model, or an open `Model`
    data         files (.jsonl, .json, .parquet, .txt, .md), or dicts. A record has "messages", in the form of the
                 OpenAI API and with "tools" if it needs them; or "prompt" and "completion"; or "text"
    output       the adapter, a GGUF file, for `Model(..., lora=...)`, `llamacpu run --lora` and llama.cpp
    settings     rank, learning rate, epochs and so on; see `TrainingSettings`
    start_from   a GGUF adapter of the same rank and matrices, whose training is continued on these data
    resume       continue a run that was stopped or killed, from its checkpoint beside the output (.checkpoint)
    peft         the folder for Hugging Face's PEFT; None for one beside the output (lora-peft) if the names of the
                 family are known, False for none
    log          the loss curve, CSV or (.jsonl) JSON lines; None for a CSV file beside the output (lora-loss.csv)
    plot         the loss curve as a picture, .png or .svg; needs matplotlib
    template     a chat template in place of the file's, as in `Model.chat`
    checkpoint_seconds  time between two checkpoints; 0 writes one after every step
    memory       bytes that the training may take, weights included: layers whose activations fit in keep them, which is
                 faster; None for half of the free memory, and at most 4 GB
    priority, duty  of the process among other programs, and the most percent of the time in which it computes, as for
                 `Model`; an open model keeps its own duty if none is given
    on_read      called with the number of records read so far
    on_plan      called before the start with what the training will do and how much memory it needs
    on_progress  called after every row
    cancel       stops it from another thread

    A killed run that is resumed ends with the same bits as one that was not, and so do runs with other numbers of
    threads. Stopped by Ctrl-C or the token, it leaves a checkpoint.

    Raises TrainingError for data, settings or a checkpoint that cannot be used, a training that diverges, and while
    another one is at work on the same output; ModelError for a model that cannot be trained; MemoryError, before the
    start, if the training does not fit into the free memory; FileExistsError for an output that would replace something
    else; Cancelled.
    """
    settings = settings or TrainingSettings()
    if not isinstance(settings, TrainingSettings):
        raise TypeError(f"settings is {described(settings)}; expected TrainingSettings, as in TrainingSettings(rank=8)")
    number("checkpoint_seconds", checkpoint_seconds)
    integer("memory", memory)
    for name, value in (("start_from", start_from), ("log", log), ("plot", plot)):
        if value is not None:
            check_path(name, value)
    if plot is not None:
        check_picture(plot)
    cycle = cycle_of(duty)
    if priority is not None:
        set_priority(priority)
    started = monotonic()
    paths = Paths.of(output, peft, log)
    with paths.held():
        checkpoint = begun(paths.checkpoint, resume)
        opened = model if isinstance(model, EngineModel) else EngineModel(model, threads, duty=cycle)
        try:
            paths.check(opened.file.paths)
            if settings.length == _USUAL_LENGTH > opened.context_length:
                settings = replace(settings, length=opened.context_length)
            if settings.length > opened.context_length:
                raise TrainingError(
                    f"the length is {settings.length} tokens, and the model was trained for {opened.context_length}; "
                    "expected at most as many"
                )
            trainable = _native.trainable(opened._native)
            targets = chosen_targets(trainable, settings.matrices)
            peft_note = paths.settle_peft(lambda folder: check_peft(folder, opened.config.architecture, targets))
            first = None if start_from is None else read_gguf_adapter(start_from, opened.config.architecture)
            if first is not None:
                _check_first(first, Path(start_from or ""), targets, settings)
            # A run that is resumed on another day has the dates of its first one in its prompts.
            moment = datetime.fromisoformat(checkpoint.moment) if checkpoint else datetime.now()
            is_base = template is None and is_base_model(opened.metadata, Path(opened.path).name)
            with fixed_time(moment):
                prepared = prepare(Chat.of(opened, template), data, settings, on_read, is_base=is_base)
            pace = Pace.of(len(prepared.rows), settings)
            identity = identity_of(opened, prepared, first, settings)
            state = checked(identity, checkpoint, moment)
            sizes = {name: (rows, columns) for name, rows, columns in trainable}
            parameters = sum(settings.rank * sum(sizes[target]) for target in targets)
            of_file = sum(tensor.nbytes for tensor in opened.file.tensors)
            weights = _native.training_weights_nbytes(opened._native, of_file, settings.exact)
            free = available_memory()

            def shape(kept: int) -> _native.TrainerShape:
                return _native.TrainerShape(targets, settings.rank, settings.length, kept, settings.exact)

            def training_bytes(kept: int) -> int:
                return _native.training_nbytes(opened._native, shape(kept)) + _COPIES * parameters

            kept = kept_layers(opened.config.layers, lambda count: weights + training_bytes(count), memory, free)
            plan = TrainingPlan.of(
                prepared, pace, state.step, len(targets), parameters, weights, training_bytes(kept), kept, free
            )
            if on_plan is not None:
                on_plan(plan)
            _check_memory(plan, settings, memory)
            trainer: TrainerLike = _native.Trainer(opened._native, shape(kept), settings.effective_alpha, settings.seed)
            if state.state is not None:
                trainer.restore(*state.state)
            elif first is not None:
                trainer.set_parameters(first.flat(trainer.names))
            curve = LossLog(paths.log, state.points)
            training = Training(
                trainer, prepared.rows, prepared.validation, settings, state, path=paths.checkpoint,
                seconds=checkpoint_seconds, curve=curve, on_progress=on_progress, cancel=cancel,
                duty=cycle or opened.duty,
            )  # fmt: skip
            try:
                training.run()
            finally:
                curve.close(state.points)
            best = trainer.parameters() if state.best is None else state.best
            adapter = Adapter.of(trainer.names, best, settings.effective_alpha)
            write_gguf_adapter(paths.output, opened, adapter)
            if paths.peft is not None:
                write_peft_folder(paths.peft, opened, adapter, alpha=settings.given_alpha, rslora=settings.rslora)
            if plot is not None:
                draw_losses(plot, state.points, f"Loss of {paths.output.name}")
            paths.checkpoint.unlink()
        finally:
            if opened is not model:
                opened.close()
    losses = [point.loss for point in state.points if point.loss is not None][-_LAST_STEPS:]
    return TrainingResult(
        paths.output, paths.peft, peft_note, paths.log, plan, state.step,
        state.step if state.best is None else state.best_step, sum(losses) / len(losses), state.best_loss,
        training.stopped_early, monotonic() - started, list(state.points),
    )  # fmt: skip


def _check_memory(plan: TrainingPlan, settings: TrainingSettings, memory: int | None) -> None:
    free, whose = (plan.available_bytes, "are free") if memory is None else (memory, "are allowed")
    if free is not None and plan.memory_bytes > free:
        raise MemoryError(
            f"the training needs {amount(plan.memory_bytes)} ({amount(plan.weight_bytes)} for the model's weights, "
            f"{amount(plan.training_bytes)} for rows of {settings.length} tokens at rank {settings.rank}), and "
            f"{amount(free)} {whose}; lower the length or the rank, choose fewer matrices, or a smaller model"
        )


def _check_first(first: Adapter, path: Path, targets: list[str], settings: TrainingSettings) -> None:
    ranks = sorted({len(a) for a, _ in first.matrices.values()})
    if ranks != [settings.rank]:
        raise TrainingError(f"{path.name}: its rank is {', '.join(map(str, ranks))}, and {settings.rank} is asked for")
    if sorted(first.matrices) != sorted(targets):
        missing = sorted(set(targets) ^ set(first.matrices))
        raise TrainingError(f"{path.name}: its matrices are not those that are to be trained (as {missing[0]})")
    if abs(first.alpha - settings.effective_alpha) > 1e-6 * settings.effective_alpha:
        wanted = settings.effective_alpha
        raise TrainingError(f"{path.name}: its alpha is {first.alpha:g}, and {wanted:g} is asked for; give the same")
