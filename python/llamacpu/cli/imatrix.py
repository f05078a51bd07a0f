"""`llamacpu imatrix`: measure which inputs of the weights matter, for quantization."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import click

from llamacpu.cli import measure_options, opening, options
from llamacpu.cli.measure_bar import run

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import KVType
    from llamacpu.engine.priority import Priority
    from llamacpu.tools.imatrix_file import ImportanceMatrix


class Settings(TypedDict):
    """Settings of the measurement."""

    output: bool
    kv_type: KVType
    resume: str | None


@click.command("imatrix", short_help="Compute an importance matrix for quantization.")
@click.argument("model", type=str, required=False, shell_complete=options.complete_files)
@click.argument("texts", nargs=-1, metavar="[TEXT]...", shell_complete=options.complete_files)
@click.option("-o", "--output-file", "path", metavar="FILE", default="imatrix.gguf", show_default=True)
@click.option(
    "--output-format",
    type=click.Choice(["gguf", "dat"]),
    help="Form of the file; dat is llama.cpp's older one. [default: dat for a name that ends so, else gguf]",
)
@measure_options.context
@measure_options.chunks
@click.option(
    "--process-output", is_flag=True, help="Measure the output matrix as well; slower. Prints the perplexity."
)
@click.option("--parse-special", is_flag=True, help="Parse control tokens written in the text, as in rendered chats.")
@click.option(
    "--in-file",
    "in_files",
    multiple=True,
    metavar="FILE",
    shell_complete=options.complete_files,
    help="Add the sums in this file; may be repeated. Without MODEL and TEXT, the files are only combined.",
)
@measure_options.resume
@measure_options.plot
@options.kv_type
@options.threads
@options.priority
@options.duty
def command(
    model: str | None,
    texts: tuple[str, ...],
    path: str,
    output_format: Literal["gguf", "dat"] | None,
    context: int,
    chunks: int | None,
    process_output: bool,
    parse_special: bool,
    in_files: tuple[str, ...],
    resume: str | None,
    plot: tuple[str, ...],
    kv_type: KVType,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
) -> None:
    """Measure the importance matrix of MODEL (a .gguf file, or a name) on every TEXT, a file of UTF-8 text.

    'llamacpu quantize --imatrix' and llama.cpp's llama-quantize use the file to preserve the weights that matter most
    in low-bit types. MODEL should be in F16, BF16 or Q8_0, and the text representative of what the model will be used
    for: a few hundred chunks of 512 tokens in all of its languages, with code or chats if it is to write them.

    Ctrl-C stops the measurement; the file then holds the finished chunks. With --resume, it can be continued later.
    """
    from llamacpu.tools.imatrix import combined
    from llamacpu.tools.imatrix_file import read_importance_matrix
    from llamacpu.tools.imatrix_writer import write_importance_matrix

    if not texts and (model is not None or not in_files):
        raise click.UsageError("no TEXT; only files of --in-file can be added up without MODEL and TEXT")
    if resume and len(texts) != 1:
        raise click.UsageError("--resume is for one TEXT")
    measure_options.check_plot(plot)
    _check_place(path)
    form = output_format or ("dat" if path.endswith(".dat") else "gguf")
    found = [read_importance_matrix(name) for name in in_files]
    complete = True
    if model is not None:
        settings_of_model = {"threads": threads, "priority": priority, "duty": duty}
        settings: Settings = {"output": process_output, "kv_type": kv_type, "resume": resume}
        measured, complete = _measured(
            model, texts, found, (context, chunks, parse_special), settings, settings_of_model
        )
        found += measured
    if not any(matrix.entries for matrix in found):
        raise click.Abort
    matrix = combined(found, context, path)
    write_importance_matrix(path, matrix, form)
    _say_what_is_missing(matrix, path)
    for picture in plot:
        from llamacpu.tools.imatrix import mean_importance
        from llamacpu.tools.plots import sensitivity_plot

        title = f"Inputs of the weights: {Path(path).name}, {matrix.chunks} chunks"
        sensitivity_plot(picture, mean_importance(matrix), title=title, unit="mean square of the inputs")
    if not complete:
        raise click.Abort


def _measured(
    model: str,
    texts: tuple[str, ...],
    others: list[ImportanceMatrix],
    cut: tuple[int, int | None, bool],
    settings: Settings,
    settings_of_model: dict[str, Any],
) -> tuple[list[ImportanceMatrix], bool]:
    """The matrices of the texts, and whether all of them are complete."""
    from llamacpu.tools.chunks import chunks_of
    from llamacpu.tools.imatrix import ImatrixMeasurement

    found = []
    with opening.opened(model, **settings_of_model) as own:
        context, limit, parse_special = cut
        all_chunks = [chunks_of(own, Path(text), context, None, limit, parse_special) for text in texts]
        for text, chunks in zip(texts, all_chunks, strict=True):
            measurement = ImatrixMeasurement(own, chunks, text, **settings)
            for other in others:
                measurement.check(other)
            complete = run(measurement)
            if settings["output"] and measurement.chunks_done:
                value, error = measurement.perplexity()
                click.echo(f"{text}: perplexity {value:.4f} ± {error:.5f}", err=True)
            found.append(measurement.result())
            if not complete:
                return found, False
    return found, True


def _check_place(path: str) -> None:
    """Raise an error, before anything is measured, for a file that could not be written."""
    if not Path(path).absolute().parent.is_dir():
        raise click.UsageError(f"--output-file {path}: there is no such folder; make it, or give another name")
    if Path(path).is_dir():
        raise click.UsageError(f"--output-file {path}: this is a folder; give the name of a file")


def _say_what_is_missing(matrix: ImportanceMatrix, path: str) -> None:
    missing = sum(int((entry.counts == 0).sum()) for entry in matrix.entries.values())
    click.echo(f"{path}: {len(matrix.entries)} tensors, {matrix.chunks} chunks.", err=True)
    if missing:
        click.echo(f"{missing} matrices of experts saw no token; more text would reach them.", err=True)
