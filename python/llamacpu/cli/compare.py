"""`llamacpu compare`: how far a model is from the one it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamacpu.cli import measure_options, options
from llamacpu.cli.measure_bar import MeasureBar, run
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import KVType
    from llamacpu.engine.priority import Priority
    from llamacpu.tools.compare import ComparisonMeasurement
    from llamacpu.tools.comparison import Comparison
    from llamacpu.tools.figures import Figure


@click.command("compare", short_help="Measure how far a model is from the one it was made from.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("original", type=str, shell_complete=options.complete_files)
@click.argument("text", required=False, shell_complete=options.complete_files)
@measure_options.context
@measure_options.chunks
@measure_options.batch
@measure_options.resume
@measure_options.plot
@options.kv_type
@options.threads
@options.priority
@options.duty
@options.as_json
@click.pass_context
def command(
    click_context: click.Context,
    model: str,
    original: str,
    text: str | None,
    context: int,
    chunks: int | None,
    batch_tokens: int,
    resume: str | None,
    plot: tuple[str, ...],
    kv_type: KVType,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
    as_json: bool,
) -> None:
    """Measure how far the predictions of MODEL are from those of ORIGINAL over TEXT, a file of UTF-8 text.

    MODEL is a .gguf file or a name, usually a quantized file; ORIGINAL is the file that it was made from, or a file of
    log-probabilities that 'llamacpu perplexity --save-logits' or llama.cpp's llama-perplexity wrote; then there is no
    TEXT, and --context is that of the file.

    The Kullback-Leibler divergence (in nats) is 0 for equal predictions. Below 0.01 a difference is hard to notice;
    above 0.1 answers often change.

    Ctrl-C stops the measurement and prints the figures of finished chunks. With --resume, it can be continued later.
    """
    from llamacpu.engine.priority import set_priority
    from llamacpu.tools.compare import comparison_of
    from llamacpu.tools.logit_file import is_logit_file

    measure_options.check_plot(plot)
    if priority is not None:
        set_priority(priority)
    if is_logit_file(original):
        if text is not None:
            raise click.UsageError(f"{original} has the tokens of its text; leave out TEXT")
        if click_context.get_parameter_source("context") is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"the context is that of {original}; leave out --context")
        source = Path(original)
    else:
        if text is None:
            raise click.UsageError("no TEXT; only a file of log-probabilities in place of ORIGINAL has its own")
        source = options.named_file(original) if original else Path(original)
    with comparison_of(
        options.named_file(model) if model else model,
        source,
        None if text is None else Path(text),
        context=context,
        chunks=chunks,
        threads=threads,
        duty=duty,
        batch_tokens=batch_tokens,
        kv_type=kv_type,
        resume=resume,
        cancel=None,
    ) as measurement:
        complete = _run(measurement)
        result = measurement.result()
    if result.chunks:
        if as_json:
            names = {"model": model, "original": original, "text": text}
            write(json.dumps({**names, **result.summary()}) + "\n")
        else:
            write(_table(result))
        for path in plot:
            from llamacpu.tools.plots import comparison_plot

            comparison_plot(path, result, f"{Path(model).name} beside {Path(original).name}")
    if not complete:
        raise click.Abort


def _run(measurement: ComparisonMeasurement) -> bool:
    """Run to the end, with a bar; False if Ctrl-C came first."""

    def note(bar: MeasureBar) -> None:
        bar.note = f"divergence {measurement.columns['divergences'].mean():.5f}"

    return run(measurement, note)


def _table(result: Comparison) -> str:
    def row(name: str, figure: Figure, digits: int, percent: bool = False) -> str:
        factor, unit = (100, " %") if percent else (1, "")
        value, error = f"{factor * figure.value:.{digits}f}", f"{factor * figure.error:.{digits}f}"
        return f"{name:<34}{value:>12} ± {error}{unit}\n"

    divergences = result.percentiles(result.divergences)
    differences = result.percentiles(result.probability_differences)
    lines = [
        f"{len(result.tokens)} tokens in {result.chunks} chunks of {result.context}\n\n",
        row("perplexity", result.perplexity, 6),
        row("perplexity of the original", result.original_perplexity, 6),
        row("ratio", result.ratio, 6),
        row("logarithm of the ratio", result.log_ratio, 6),
        row("difference", result.perplexity_difference, 6),
        f"{'correlation of the logarithms':<34}{100 * result.correlation:>12.2f} %\n\n",
        row("divergence", result.divergence, 6),
        *(f"{'  ' + name:<34}{value:>12.6f}\n" for name, value in divergences.items()),
        "\n",
        row("same most probable token", result.agreement, 3, True),
        row("difference of probabilities, RMS", result.rms_difference, 3, True),
        row("difference of probabilities, mean", result.mean_difference, 3, True),
        *(f"{'  ' + name:<34}{100 * value:>12.3f} %\n" for name, value in differences.items()),
    ]
    return "".join(lines)
