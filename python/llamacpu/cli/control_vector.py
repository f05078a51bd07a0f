"""`llamacpu control-vector`: a control vector from pairs of prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import opening, options
from llamacpu.cli.terminal import ProgressBar

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import Load


class PairBar(ProgressBar):
    """The progress bar shown while pairs of prompts are read."""

    _TEXT = "Reading"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total} pairs"


@click.command("control-vector", short_help="Make a control vector from pairs of prompts.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("pairs", type=str, shell_complete=options.complete_files)
@click.option(
    "-o", "--output", required=True, metavar="FILE", shell_complete=options.complete_files, help="Output file."
)
@click.option(
    "--method",
    type=click.Choice(["pca", "mean"]),
    default="pca",
    show_default=True,
    help="Use the first principal component of the differences between hidden states, or their mean.",
)
@options.threads
@options.load
@options.overrides
def command(
    model: str, pairs: str, output: str, method: Any, threads: int | None, load: Load, overrides: dict[str, Any]
) -> None:
    """Make a control vector for MODEL (a .gguf file, or a name) from PAIRS, a file of JSON lines ('-': stdin).

    Each line is {"positive": ..., "negative": ...}, with a text or a list of messages each. The vector points from the
    negative to the positive prompts: run MODEL --control-vector FILE:STRENGTH, with a negative strength for the
    opposite direction.
    """
    from llamacpu.tools.control_vectors import control_vector, pairs_of_lines

    bar = PairBar()
    with opening.wrong_values(bar):
        given = list(pairs_of_lines(options.read_text(pairs).splitlines(), "stdin" if pairs == "-" else pairs))
        with opening.opened(model, threads=threads, load=load, overrides=overrides) as opened:
            path = control_vector(opened, given, output, method=method, on_progress=bar)
    click.echo(f"{path}: {len(given)} pairs", err=True)
