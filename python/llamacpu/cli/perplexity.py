"""`llamacpu perplexity`: how well a model predicts a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import adapter_options, measure_options, opening, options
from llamacpu.cli.measure_bar import MeasureBar, run
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import KVType, Load
    from llamacpu.engine.priority import Priority
    from llamacpu.tools.perplexity import Perplexity, PerplexityMeasurement


@click.command("perplexity", short_help="Measure how well a model predicts a text.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...", shell_complete=options.complete_files)
@measure_options.context
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Use overlapping chunks: each starts this many tokens after the one before, and only its last tokens count.",
)
@measure_options.chunks
@measure_options.batch
@measure_options.resume
@click.option(
    "--save-logits",
    metavar="FILE",
    help="Write the log-probabilities of all tokens to this file, in llama.cpp's form, for 'llamacpu compare'.",
)
@click.option("--each-chunk", is_flag=True, help="Print one line per chunk.")
@measure_options.plot
@adapter_options.adapters
@options.kv_type
@options.threads
@options.priority
@options.duty
@options.load
@options.overrides
@options.as_json
def command(
    model: str,
    texts: tuple[str, ...],
    context: int,
    stride: int | None,
    chunks: int | None,
    batch_tokens: int,
    resume: str | None,
    save_logits: str | None,
    each_chunk: bool,
    plot: tuple[str, ...],
    lora: Any,
    control_vectors: Any,
    kv_type: KVType,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
    load: Load,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    """Measure how well MODEL (a .gguf file, or a name) predicts every TEXT, a file of UTF-8 text.

    The text is cut into chunks of --context tokens, and the predictions of the second half of each count, exactly as
    llama.cpp's llama-perplexity does it, so that figures can be compared. Lower is better: a perplexity of 8 means
    that the model is as unsure about the next token as if it had to choose among 8.

    Ctrl-C stops the measurement and prints the figures of finished chunks. With --resume, it can be continued later.
    """
    from llamacpu.tools.chunks import chunks_of
    from llamacpu.tools.perplexity import PerplexityMeasurement

    if len(texts) > 1 and (resume or save_logits):
        raise click.UsageError("--resume and --save-logits are for one TEXT")
    measure_options.check_plot(plot)
    found: list[tuple[str, Perplexity]] = []
    with opening.opened(
        model,
        threads=threads,
        priority=priority,
        duty=duty,
        load=load,
        overrides=overrides,
        **adapter_options.opened(lora, control_vectors),
    ) as own:
        for text in texts:
            measurement = PerplexityMeasurement(
                own,
                chunks_of(own, Path(text), context, stride, chunks),
                batch_tokens=batch_tokens,
                kv_type=kv_type,
                resume=resume,
                cancel=None,
            )
            with measurement.saving(save_logits):
                complete = _run(measurement, each_chunk and not as_json)
            result = measurement.result()
            found.append((text, result))
            if not as_json and result.chunks:
                write(_line(text if len(texts) > 1 else "", result))
            if not complete:
                break
    if as_json and any(result.chunks for _, result in found):
        documents = [{"model": Path(own.path).name, "text": text, **result.summary()} for text, result in found]
        write(json.dumps(documents[0] if len(texts) == 1 else documents) + "\n")
    if plot and any(result.chunks for _, result in found):
        from llamacpu.tools.plots import perplexity_plot

        for path in plot:
            perplexity_plot(path, [(Path(text).name, result) for text, result in found if result.chunks])
    if not complete:
        raise click.Abort


def _run(measurement: PerplexityMeasurement, each_chunk: bool) -> bool:
    """Run to the end, with a bar; False if Ctrl-C came first."""
    written = measurement.chunks_done

    def note(bar: MeasureBar) -> None:
        nonlocal written
        running = measurement.running()
        bar.note = f"perplexity {running[-1]:.4f}"
        if each_chunk:
            bar.clear()
            write("".join(f"{index + 1}\t{running[index]:.4f}\n" for index in range(written, len(running))))
        written = measurement.chunks_done

    return run(measurement, note)


def _line(name: str, result: Perplexity) -> str:
    before = f"{name}: " if name else ""
    return (
        f"{before}perplexity {result.value:.4f} ± {result.error:.5f} ({len(result.tokens)} tokens in {result.chunks} "
        f"chunks of {result.context}; {100 * result.accuracy:.2f} % were the model's first choice)\n"
    )
