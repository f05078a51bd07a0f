"""The options --lora and --control-vector."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.files import is_file

__all__ = ["adapters", "control_vectors", "lora", "opened"]

_LAYERS = re.compile(r"(\d{1,6})-(\d{1,6})")


def _number(text: str) -> float | None:
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _parsed_lora(given: str, option: click.Parameter) -> tuple[str, float]:
    """FILE or FILE:SCALE; a file whose name ends like that is meant as it is."""
    file, colon, last = given.rpartition(":")
    scale = _number(last)
    if is_file(given) or not colon or scale is None:
        file, scale = given, 1.0
    if not file:
        raise click.BadParameter(f"{given!r}; expected FILE or FILE:SCALE", param=option)
    return file, scale


def _parsed_vector(given: str, option: click.Parameter) -> tuple[str, float, tuple[int, int] | None]:
    """FILE, FILE:STRENGTH or FILE:STRENGTH:FROM-TO."""
    file, layers = given, None
    before, _, last = file.rpartition(":")
    match = _LAYERS.fullmatch(last)
    if before and match is not None and not is_file(given):
        file, layers = before, (int(match[1]), int(match[2]))
        if layers[0] > layers[1]:
            raise click.BadParameter(f"{given!r}; expected the first layer before the last one", param=option)
    before, colon, last = file.rpartition(":")
    strength = _number(last)
    if layers is None and (is_file(file) or not colon or strength is None):
        return file, 1.0, None
    if strength is None or not before:
        raise click.BadParameter(f"{given!r}; expected FILE, FILE:STRENGTH or FILE:STRENGTH:FROM-TO", param=option)
    return before, strength, layers


lora: options.Decorator = click.option(
    "--lora",
    multiple=True,
    metavar="FILE[:SCALE]",
    shell_complete=options.complete_files,
    callback=lambda _context, option, given: [_parsed_lora(text, option) for text in given],
    help="Apply this LoRA adapter (a .gguf file or a name) with this scale; may be repeated.",
)
control_vectors: options.Decorator = click.option(
    "--control-vector",
    "control_vectors",
    multiple=True,
    metavar="FILE[:STRENGTH[:FROM-TO]]",
    shell_complete=options.complete_files,
    callback=lambda _context, option, given: [_parsed_vector(text, option) for text in given],
    help="Add this control vector to the output of these layers (counted from 0), with this strength; may be repeated.",
)


def adapters(function: options.Function) -> options.Function:
    """Add both options."""
    return lora(control_vectors(function))


def opened(lora: Any, control_vectors: Any) -> dict[str, Any]:
    """The arguments of `Model` for the values of both options; adapters are downloaded if needed."""
    found = [(_file(file), scale) for file, scale in lora]
    return {"lora": found or None, "control_vectors": control_vectors or None}


def _file(name: str) -> Path:
    from llamacpu.store.names import local_path

    return Path(name) if is_file(name) or local_path(name) is not None else options.named_file(name)
