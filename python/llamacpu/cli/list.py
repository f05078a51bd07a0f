"""`llamacpu list`: the models on this machine."""

from __future__ import annotations

import json
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import write
from llamacpu.families.memory import amount


@click.command("list", short_help="List models on this machine, including those of other programs.")
@options.context
@options.kv_type
@options.as_json
def command(context: int | None, kv_type: str, as_json: bool) -> None:
    """List the models on this machine: pulled ones, and those of Ollama, the Hugging Face cache, LM Studio, llama.cpp
    and the folders in LLAMACPU_FOLDERS, which are used in place.

    Each name works wherever a command takes MODEL. FITS says whether the weights and the KV cache for --context (8192
    tokens by default, or the model's training context if that is shorter) fit into free memory.
    """
    from llamacpu.store.entries import entries
    from llamacpu.store.facts import describe
    from llamacpu.store.places import places

    rows = [describe(entry, context, kv_type) for entry in entries(places())]
    if as_json:
        write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    if not rows:
        click.echo("No models here yet; get one with: llamacpu pull llama3.2", err=True)
        return
    write(_table([("NAME", "SIZE", "QUANT", "FITS", "ORIGIN"), *map(_row, rows)]))


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    fits = facts["fits"]
    told = "unreadable" if "architecture" not in facts else "no support" if not facts["runs"] else "?"
    return (
        _printable(facts["name"]), amount(facts["size_bytes"]), facts["quantization"] or "-",
        told if fits is None else "yes" if fits else "no", facts["origin"],
    )  # fmt: skip


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text.encode("utf-8", "replace").decode())


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
