"""Options shared by the commands that measure."""

from __future__ import annotations

from pathlib import Path

import click

from llamacpu.cli.options import Decorator, complete_files

__all__ = ["batch", "check_plot", "chunks", "context", "plot", "resume"]

context: Decorator = click.option(
    "-c",
    "--context",
    type=click.IntRange(min=4, max=1 << 24),
    default=512,
    show_default=True,
    help="Tokens per chunk. Only figures for the same context can be compared.",
)
chunks: Decorator = click.option(
    "--chunks", type=click.IntRange(min=1), help="Measure only this many chunks. [default: the whole text]"
)
batch: Decorator = click.option(
    "-b",
    "--batch-tokens",
    type=click.IntRange(min=1, max=1 << 24),
    default=2048,
    show_default=True,
    help="Number of tokens processed per pass through the model; affects only the speed.",
)
resume: Decorator = click.option(
    "--resume",
    metavar="FILE",
    shell_complete=complete_files,
    help="Save the state to this file; if it exists, continue from it.",
)
plot: Decorator = click.option(
    "--plot",
    multiple=True,
    metavar="FILE",
    help="Plot the result to this file, .png or .svg; may be repeated. Requires llamacpu[plots].",
)


def check_plot(paths: tuple[str, ...]) -> None:
    """Raise an error, before anything is measured, for plots that could not be drawn."""
    if not paths:
        return
    for path in paths:
        if Path(path).suffix.lower() not in (".png", ".svg"):
            raise click.UsageError(f"--plot {path}: expected a name that ends in .png or .svg")
        if not Path(path).absolute().parent.is_dir():
            raise click.UsageError(f"--plot {path}: there is no such folder; make it, or give another name")
    from llamacpu.tools.plots import require

    require()
