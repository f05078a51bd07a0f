"""`llamacpu merge`: a model file with LoRA adapters merged into its weights."""

from __future__ import annotations

from typing import Any

import click

from llamacpu.cli import adapter_options, opening, options
from llamacpu.cli.terminal import ProgressBar
from llamacpu.families.memory import amount


class MergeBar(ProgressBar):
    """The progress bar shown while the file is written."""

    _TEXT = "Merging"

    def _amounts(self, done: int, total: int) -> str:
        return f"{amount(done)}/{amount(total)}"


@click.command("merge", short_help="Merge LoRA adapters into a model file.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@adapter_options.lora
@click.option(
    "-o", "--output", required=True, metavar="FILE", shell_complete=options.complete_files, help="Output file."
)
@click.option(
    "--type",
    "kind",
    metavar="TYPE",
    help="Tensor type of the changed matrices: F16, Q8_0, Q4_K and so on. [default: the type each has now]",
)
def command(model: str, lora: Any, output: str, kind: str | None) -> None:
    """Write MODEL (a .gguf file, or a name) with LoRA adapters merged into its weights to a new file.

    Quantized matrices are dequantized, merged and quantized again, with a small loss; --lora of the other commands
    applies an adapter without loss. Only one tensor is in memory at a time.
    """
    from llamacpu.tools.merge import merge

    if not lora:
        raise click.UsageError("no adapter; give at least one with --lora FILE or --lora FILE:SCALE")
    adapters = adapter_options.opened(lora, None)["lora"]
    bar = MergeBar()
    with opening.wrong_values(bar):
        path = merge(options.named_file(model), adapters, output, type=kind.upper() if kind else None, on_progress=bar)
    click.echo(f"{path}: {amount(path.stat().st_size)}", err=True)
