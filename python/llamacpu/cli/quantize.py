"""`llamacpu quantize`: a smaller model file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import ProgressBar, tell, write
from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.engine.priority import Priority
    from llamacpu.tools.quantize import Quantization


class QuantizationBar(ProgressBar):
    """The progress in bytes of the new file."""

    _TEXT = "Quantizing"

    def _amounts(self, done: int, total: int) -> str:
        return f"{amount(done)}/{amount(total)}"


class MeasuringBar(ProgressBar):
    """How many groups of tensors have been measured."""

    _TEXT = "Measuring"

    def _amounts(self, done: int, total: int) -> str:
        return f"{done}/{total}"


def _pair(_context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        pattern, sign, name = value.rpartition("=")
        if not sign or not pattern or not name:
            raise click.BadParameter(f"{value!r:.60} is not PATTERN=TYPE, such as 'ffn_down=Q6_K'", param=option)
        pairs.append((pattern, name))
    return tuple(pairs)


def _kind(value: str) -> bool:
    """Whether a word names a preset or a file type's number."""
    from llamacpu.tools.quantize.presets import preset_named

    try:
        preset_named(value)
    except ValueError:
        return False
    return True


@click.command("quantize", short_help="Make a smaller file of a model.")
@click.argument("source", type=str, shell_complete=options.complete_files)
@click.argument("target", type=str, required=False)
@click.argument("preset", type=str, required=False)
@click.option("--target-size", metavar="SIZE", help="Choose types by measurement, for a file of this size (5GB).")
@click.option("--target-bits", type=float, metavar="BITS", help="The same, for this average number of bits per weight.")
@click.option("--text", type=click.Path(exists=True, dir_okay=False), help="Text for that measurement.")
@click.option("--imatrix", type=click.Path(exists=True, dir_okay=False), help="Importance matrix of the model.")
@click.option("--include-weights", multiple=True, metavar="PART", help="Use it only for tensors with PART in the name.")
@click.option(
    "--exclude-weights", multiple=True, metavar="PART", help="Do not use it for tensors with PART in the name."
)
@click.option(
    "--tensor-type",
    "tensor_types",
    multiple=True,
    callback=_pair,
    metavar="PATTERN=TYPE",
    help="The type of tensors whose name contains a match of the regular expression; may be repeated.",
)
@click.option("--output-tensor-type", metavar="TYPE", help="The type of the output matrix.")
@click.option("--token-embedding-type", metavar="TYPE", help="The type of the token embeddings.")
@click.option("--leave-output-tensor", is_flag=True, help="Keep the output matrix as it is.")
@click.option("--pure", is_flag=True, help="Give all tensors the same type.")
@click.option("--allow-requantize", is_flag=True, help="Quantize tensors that are already quantized, with a loss.")
@click.option("--keep-split", is_flag=True, help="Write as many files as the source has.")
@options.overrides
@click.option("--dry-run", is_flag=True, help="Show types and sizes without writing anything.")
@click.option("--tensors", "show_tensors", is_flag=True, help="List every tensor.")
@click.option("--threads", type=click.IntRange(1), help="Number of threads; all cores by default.")
@options.priority
@options.as_json
def command(
    source: str,
    target: str | None,
    preset: str | None,
    target_size: str | None,
    target_bits: float | None,
    text: str | None,
    imatrix: str | None,
    include_weights: tuple[str, ...],
    exclude_weights: tuple[str, ...],
    tensor_types: tuple[tuple[str, str], ...],
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    leave_output_tensor: bool,
    pure: bool,
    allow_requantize: bool,
    keep_split: bool,
    overrides: dict[str, Any],
    dry_run: bool,
    show_tensors: bool,
    threads: int | None,
    priority: Priority | None,
    as_json: bool,
) -> None:
    """Write the model SOURCE (a GGUF file) to TARGET with the types of PRESET, Q4_K_M by default.

    Without TARGET the new file is beside SOURCE, with the preset in its name. Presets, from large to small: F32, F16,
    BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, NVFP4, IQ4_NL, IQ4_XS, Q3_K_L, Q3_K_M,
    Q3_K_S, IQ3_M, IQ3_S, IQ3_XS, IQ3_XXS, Q2_K, Q2_K_S, IQ2_M, IQ2_S, IQ2_XS, IQ2_XXS, IQ1_M, IQ1_S; Q2_0, TQ2_0 and
    TQ1_0 for ternary models, Q1_0 for those of one bit, MXFP4_MOE for mixtures of experts, COPY to keep the types.
    Those from IQ3_XXS down to IQ1_S, except Q2_K, need an importance matrix (--imatrix). Each tensor gets the type that
    llama-quantize gives it.

    With --target-size or --target-bits instead of a preset, each tensor gets the type that suits the size best: what an
    error in each part of the model does to its predictions is measured first, with a temporary copy of the model.
    """
    from llamacpu.engine.priority import set_priority
    from llamacpu.tools.quantize import quantize
    from llamacpu.tools.quantize.presets import preset_named

    if target is not None and preset is None and _kind(target):
        target, preset = None, target
    sized = target_size or (None if target_bits is None else f"{target_bits:g}bits")
    name = None if sized and preset is None else preset_named(preset or "Q4_K_M").name
    if target is None and not dry_run:
        stem = Path(source).name.removesuffix(".gguf")
        target = str(Path(source).with_name(f"{stem}-{name or sized}.gguf"))
    if priority is not None:
        set_priority(priority)
    bar, measuring = QuantizationBar(), MeasuringBar()
    try:
        done = quantize(
            source,
            target,
            name,
            target_size=target_size,
            target_bits=target_bits,
            text=None if text is None else options.read_text(text),
            imatrix=imatrix,
            include_weights=include_weights,
            exclude_weights=exclude_weights,
            tensor_types=tensor_types,
            output_type=output_tensor_type,
            embedding_type=token_embedding_type,
            leave_output=leave_output_tensor,
            pure=pure,
            allow_requantize=allow_requantize,
            keep_split=keep_split,
            overrides=overrides,
            dry_run=dry_run,
            threads=threads,
            on_progress=bar,
            on_measured=measuring,
        )
    finally:
        bar.clear()
        measuring.clear()
    if done.missing:
        names = ", ".join(done.missing[:5]) + (f" and {len(done.missing) - 5} more" if len(done.missing) > 5 else "")
        tell(f"the importance matrix has no entry for {names}; quantized without")
    write(json.dumps(_facts(done)) + "\n" if as_json else _text(done, show_tensors))


def _facts(done: Quantization) -> dict[str, Any]:
    return {
        "paths": [str(path) for path in done.paths],
        "preset": done.preset,
        "bytes": done.nbytes,
        "bits_per_weight": done.bits_per_weight,
        "seconds": done.seconds,
        "without_importance": list(done.missing),
        "tensors": [
            {
                "name": c.name,
                "shape": c.shape,
                "from": c.before,
                "to": c.after,
                "bytes": c.nbytes,
                "importance": c.with_importance,
            }
            for c in done.changes
        ],
    }


def _text(done: Quantization, show_tensors: bool) -> str:
    lines = []
    if show_tensors:
        width = max((len(change.name) for change in done.changes), default=0)
        for change in done.changes:
            shape = " x ".join(map(str, change.shape))
            types = f"{change.before:>7} -> {change.after:<7}"
            lines.append(f"{change.name:{width}}  {shape:>20}  {types}  {amount(change.nbytes)}")
    counts = Counter(change.after for change in done.changes)
    kinds = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    what = ", ".join(map(str, done.paths)) or "would be written"
    lines.append(f"{what}: {amount(done.nbytes)}, {done.bits_per_weight:.2f} bits per weight ({kinds})")
    if done.paths:
        lines.append(f"{done.preset or 'measured and written'} in {done.seconds:.1f} s")
    return "\n".join(lines) + "\n"
