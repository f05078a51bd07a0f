"""`llamacpu train`: an adapter from one's own data."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import tell, write
from llamacpu.tools.train.settings import TrainingSettings

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.priority import Priority
    from llamacpu.tools.train import TrainingResult

_DEFAULTS = TrainingSettings()


def _validation(_context: click.Context, option: click.Parameter, text: str | None) -> float | str | None:
    """A share ("5%", "0.05"), a number of records, or a file."""
    if text is None:
        return None
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        pass
    if not Path(text).is_file():
        raise click.BadParameter(f"{text!r}; expected a share such as 5%, a number of records or a file", param=option)
    return text


def _size(_context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Bytes: "6GB", "6000 MB"."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r}; expected a size such as 6GB", param=option)
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


@click.command("train", short_help="Train a LoRA adapter on one's own data.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("data", type=click.Path(exists=True), nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="FILE", help="The adapter, a .gguf file.")
@click.option("--rank", type=int, default=_DEFAULTS.rank, show_default=True, help="Rank of the adapter's matrices.")
@click.option("--alpha", type=float, help="Scale of the adapter, divided by the rank. [default: twice the rank]")
@click.option(
    "--matrices",
    metavar="NAMES",
    default="all",
    show_default=True,
    help="Which matrices get an adapter: all, attention, feed_forward, or names such as attn_q,attn_v,output.",
)
@click.option("--rslora", is_flag=True, help="Divide alpha by the root of the rank, for high ranks (rsLoRA).")
@click.option("--dropout", type=float, default=0.0, help="Dropout of the adapter's input; only 0 is supported.")
@click.option(
    "--length",
    type=int,
    default=_DEFAULTS.length,
    show_default=True,
    help="Tokens in a row, into which samples are packed: the memory of a step grows with it.",
)
@click.option(
    "--too-long",
    type=click.Choice(["cut", "skip"]),
    default="cut",
    show_default=True,
    help="What to do with a sample that is longer than a row.",
)
@click.option("--text", "count_all", is_flag=True, help="Learn every token of the data, not only the answers.")
@click.option(
    "--raw/--chat",
    default=None,
    help="Join prompts and completions as they are, or with the chat template. [default: depends on the model]",
)
@click.option("--template", metavar="NAME", help="Chat template in place of the file's: a name, or Jinja source.")
@click.option("--epochs", type=int, help="Passes over the data. [default: 3, more for small data sets]")
@click.option("--steps", type=int, help="Steps of the optimizer, instead of epochs.")
@click.option("--batch", type=int, help="Rows per step. [default: 8, fewer for small data sets]")
@click.option(
    "--learning-rate", type=float, default=_DEFAULTS.learning_rate, show_default=True, help="Highest learning rate."
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "linear", "constant"]),
    default=_DEFAULTS.schedule,
    show_default=True,
    help="How the learning rate falls after the warm-up.",
)
@click.option(
    "--warm-up",
    type=float,
    default=_DEFAULTS.warm_up,
    show_default=True,
    help="Share of the steps in which the learning rate rises; 1 and above: their number.",
)
@click.option(
    "--beta1", type=float, default=_DEFAULTS.beta1, show_default=True, help="AdamW: decay of the first moment."
)
@click.option(
    "--beta2", type=float, default=_DEFAULTS.beta2, show_default=True, help="AdamW: decay of the second moment."
)
@click.option(
    "--epsilon",
    type=float,
    default=_DEFAULTS.epsilon,
    show_default=True,
    help="AdamW: added to the second moment's root.",
)
@click.option(
    "--weight-decay", type=float, default=_DEFAULTS.weight_decay, show_default=True, help="AdamW: decay of the weights."
)
@click.option(
    "--clip-norm",
    type=float,
    default=_DEFAULTS.clip_norm,
    show_default=True,
    help="Maximum norm of the gradients, to which larger ones are scaled down; 0 for no limit.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the initial values and the order.")
@click.option(
    "--validation",
    callback=_validation,
    metavar="SHARE|FILE",
    help="Data kept out of the training: a share (5%), a number of records or a file. [default: 5% of 200 or more]",
)
@click.option("--evaluate-every", type=int, help="Steps between evaluations. [default: a tenth of all steps]")
@click.option(
    "--patience",
    type=int,
    default=_DEFAULTS.patience,
    show_default=True,
    help="Stop after this many evaluations without improvement; 0 to never stop early.",
)
@click.option("--from", "start_from", metavar="FILE", help="Continue the training of this adapter.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue an interrupted or killed run, to the same bits.",
)
@click.option(
    "--checkpoint-seconds", type=click.FloatRange(min=0), default=120.0, show_default=True,
    help="Seconds between checkpoints.",
)  # fmt: skip
@click.option("--peft", metavar="FOLDER", help="Folder for the adapter in PEFT's format. [default: beside the output]")
@click.option("--no-peft", is_flag=True, help="Do not write that folder.")
@click.option(
    "--log", metavar="FILE", help="File for the loss curve, .csv or .jsonl. [default: a .csv beside the output]"
)
@click.option(
    "--memory",
    callback=_size,
    metavar="SIZE",
    help="Memory that the training may use, as in 6GB; more makes it faster. [default: half of what is free, at most "
    "4GB]",
)
@click.option("--exact", is_flag=True, help="Compute all products in 32-bit floats, in up to twice the time.")
@click.option("--plot", metavar="FILE", help="Draw the loss curve to a .png or .svg file; needs matplotlib.")
@options.threads
@options.priority
@options.duty
@options.as_json
def command(
    model: str,
    data: tuple[str, ...],
    output: str,
    count_all: bool,
    template: str | None,
    start_from: str | None,
    resume: bool,
    checkpoint_seconds: float,
    peft: str | None,
    no_peft: bool,
    log: str | None,
    plot: str | None,
    memory: int | None,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train a LoRA adapter of MODEL (a .gguf file of any format, or a name) on DATA.

    DATA are .jsonl, .json or .parquet files with "messages", "prompt" and "completion", or "text", or text files.
    Of conversations, only the assistant's answers are learned. Beside the output, the adapter is also written in the
    format of Hugging Face's PEFT, and the loss curve. Ctrl-C writes a checkpoint, from which --resume continues.

    Use the adapter with: llamacpu run MODEL --lora FILE
    """
    from llamacpu.cli.training_bar import ReadingBar, TrainingBar
    from llamacpu.tools.train import train

    if peft is not None and no_peft:
        raise click.UsageError("--peft and --no-peft; give one of them")
    try:
        settings = TrainingSettings(count="all" if count_all else "answers", **given)
    except ValueError as error:
        raise click.UsageError(_with_options(str(error))) from None
    reading, bar = ReadingBar(), TrainingBar()

    def show_plan(plan: Any) -> None:
        reading.clear()
        for line in plan.lines():
            tell(line)

    try:
        result = train(
            options.named_file(model) if model else model,
            data,
            output,
            settings,
            start_from=start_from,
            resume=resume,
            peft=False if no_peft else peft,
            log=log,
            plot=plot,
            template=template,
            checkpoint_seconds=checkpoint_seconds,
            memory=memory,
            threads=threads,
            priority=priority,
            duty=duty,
            on_read=reading.count,
            on_plan=show_plan,
            on_progress=bar.update,
        )
    except KeyboardInterrupt:
        reading.clear()
        bar.clear()
        if Path(f"{output}.checkpoint").exists():
            tell(f"Stopped. To go on: {_resuming()}")
        raise click.Abort from None
    finally:
        reading.clear()
        bar.clear()
    _report(result, as_json)


def _with_options(text: str) -> str:
    """An error about a field of the settings with the name of its option."""
    name = text.split(" ", 1)[0]
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    return f"--{name.replace('_', '-')}{text[len(name) :]}" if name in known else text


def _resuming() -> str:
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    return shlex.join(["llamacpu", *arguments, "--resume"])


def _report(result: TrainingResult, as_json: bool) -> None:
    if as_json:
        document = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(result).items()
            if name not in ("plan", "points")
        }
        document["plan"] = dataclasses.asdict(result.plan)
        document["points"] = [dataclasses.asdict(point) for point in result.points]
        write(json.dumps(document) + "\n")
        return
    from llamacpu.cli.training_bar import duration

    ended = "stopped early after" if result.stopped_early else "done:"
    tell(f"{ended} {result.steps} steps in {duration(result.seconds)}, loss {result.loss:.4f}")
    if result.validation_loss is not None:
        tell(f"validation loss {result.validation_loss:.4f} after step {result.best_step}, whose adapter was written")
    if result.peft_note:
        tell(f"no PEFT folder: {result.peft_note}")
    write("".join(f"{path}\n" for path in (result.adapter, result.peft, result.log) if path is not None))
