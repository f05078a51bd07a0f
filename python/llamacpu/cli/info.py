"""`llamacpu info`: the contents of a model file, and how much memory it needs."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import options
from llamacpu.cli.info_drafter import drafter_facts, drafter_rows, predictor_layers
from llamacpu.cli.info_vision import require_encoder, vision_facts, vision_rows
from llamacpu.cli.terminal import write
from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.gguf.file import GGUFFile

_LONGEST_TEXT = 60


@click.command("info", short_help="Show what is in a model file and how much memory it needs.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@options.mmproj
@options.image_tokens
@options.image_crops
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Count the tokens of this picture, too. May be repeated.",
)
@options.context
@options.kv_type
@click.option("--tensors", "show_tensors", is_flag=True, help="List every tensor.")
@options.overrides
@options.as_json
def command(
    model: str,
    mmproj: str | None,
    image_tokens: int | None,
    image_crops: int,
    images: tuple[Path, ...],
    context: int | None,
    kv_type: str,
    show_tensors: bool,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    """Show what is in MODEL (a .gguf file, or a name) and how much memory it needs. Only its header is read."""
    from llamacpu.families.registry import config_for
    from llamacpu.gguf.file import GGUFFile

    path, encoder = options.file_and_encoder(model)
    with GGUFFile(path if model else model, overrides) as file:
        facts = describe(file, context, kv_type, show_tensors)
        if facts["runs"] or mmproj or facts["architecture"] == "clip":
            config = config_for(file) if facts["runs"] else None
            facts["vision"] = vision_facts(
                file, config, mmproj, image_tokens, encoder, max_crops=image_crops, images=images
            )
        if images:
            require_encoder(facts.get("vision"))
    if as_json:
        write(json.dumps(facts, ensure_ascii=False) + "\n")
    else:
        write(_as_text(facts))


def describe(file: GGUFFile, context: int | None, kv_type: str, with_tensors: bool) -> dict[str, Any]:
    """The facts about a file as plain values for JSON."""
    types = Counter(tensor.type_name for tensor in file.tensors)
    sizes: Counter[str] = Counter()
    for tensor in file.tensors:
        sizes[tensor.type_name] += tensor.nbytes
    facts: dict[str, Any] = {
        "path": str(file.path),
        "files": len(file.paths),
        "gguf_version": file.version,
        "name": _plain(file.metadata.get("general.name")),
        "architecture": _plain(file.metadata.get("general.architecture")),
        "parameters": sum(math.prod(tensor.shape) for tensor in file.tensors),
        "weight_bytes": sum(tensor.nbytes for tensor in file.tensors),
        "types": {name: {"tensors": count, "bytes": sizes[name]} for name, count in types.most_common()},
        **_model_facts(file, context, kv_type),
        "metadata": {key: _plain(value) for key, value in file.metadata.items()},
    }
    if with_tensors:
        facts["tensors"] = [
            {"name": tensor.name, "type": tensor.type_name, "shape": list(tensor.shape), "bytes": tensor.nbytes}
            for tensor in file.tensors
        ]
    return facts


def _model_facts(file: GGUFFile, context: int | None, kv_type: str) -> dict[str, Any]:
    """Sizes and memory of the model, or only the reason if this version cannot run it, and what a drafter fits."""
    from llamacpu.engine.room import Room
    from llamacpu.errors import LlamaCpuError
    from llamacpu.families.registry import config_for

    try:
        config = config_for(file)
    except LlamaCpuError as error:
        drafter = drafter_facts(file)
        if drafter is not None:
            return {"runs": False, "problem": drafter.get("problem", str(error)), "drafter": drafter}
        return {"runs": False, "problem": str(error)}
    room = Room(file, config, context, kv_type)
    return {
        "runs": True,
        "layers": config["layers"],
        "embedding_length": config["embedding_length"],
        "heads": config["heads"],
        "kv_heads": config["kv_heads"],
        "feed_forward": config["feed_forward"],
        "experts": config["experts"],
        "experts_used": config["experts_used"],
        "vocab_size": config["vocab_size"],
        "context_length": config["context_length"],
        "prediction_layers": predictor_layers(file, config),
        "memory": {
            "context": room.context,
            "kv_type": room.kv_type,
            "weight_bytes": room.weights,
            "expert_bytes": room.experts,
            "kv_bytes": room.keys,
            "state_bytes": room.states,
            "total_bytes": room.weights + room.keys + room.states,
            "available_bytes": room.free,
            "fits": room.fits,
            "longest_context": room.longest_contexts(),
            "in_words": room.fitting(),
        },
    }


def _plain(value: Any) -> Any:
    """A metadata value for JSON; a long list is reduced to its length and first entries."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return _plain(value.item())
    try:
        first = [_plain(entry) for entry in value[:8]]
        return first if len(value) <= 8 else {"length": len(value), "first": first}
    except TypeError:
        return str(value)


def _one(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _as_text(facts: dict[str, Any]) -> str:
    rows = [("file", facts["path"] + (f" and {facts['files'] - 1} more" if facts["files"] > 1 else ""))]
    rows += [("name", facts["name"] or "-"), ("architecture", facts["architecture"] or "-")]
    rows += [("parameters", f"{facts['parameters']:,}"), ("weights", amount(facts["weight_bytes"]))]
    for name, entry in facts["types"].items():
        rows.append((f"  {name}", f"{entry['tensors']} tensors, {amount(entry['bytes'])}"))
    if facts["runs"]:
        memory = facts["memory"]
        recurrent = memory["state_bytes"] > 0
        rows += [
            ("layers", str(facts["layers"])),
            ("embedding length", str(facts["embedding_length"])),
            ("heads", f"{_one(facts['heads'])}, with {_one(facts['kv_heads'])} for keys and values"),
            ("feed forward", _one(facts["feed_forward"])),
        ]
        if facts["experts"]:
            rows.append(("experts", f"{facts['experts_used']} of {facts['experts']} for a token"))
        rows += [
            ("vocabulary", f"{facts['vocab_size']:,} tokens"),
            ("context", f"{facts['context_length']:,} tokens"),
            (
                "memory",
                f"{amount(memory['total_bytes'])} with {memory['context']:,} tokens of context: weights "
                f"{amount(memory['weight_bytes'])}, keys and values {amount(memory['kv_bytes'])} "
                f"({memory['kv_type']}, taken as the conversation grows)"
                + (f", states of recurrent layers {amount(memory['state_bytes'])} at most" if recurrent else ""),
            ),
            ("fits", memory["in_words"]),
        ]
        if facts["prediction_layers"]:
            rows.append(("drafts", "layers for multi-token prediction; llamacpu run MODEL --draft-model self"))
    elif drafter := drafter_rows(facts.get("drafter")):
        rows += drafter
    else:
        rows.append(("does not run", facts["problem"]))
    rows += vision_rows(facts.get("vision"))
    width = max(len(name) for name, _ in rows) + 2
    text = "".join(f"{name:<{width}}{value}\n" for name, value in rows)
    text += "\nmetadata\n" + "".join(f"  {key} = {_short(value)}\n" for key, value in facts["metadata"].items())
    if "tensors" in facts:
        text += "\ntensors\n" + "".join(
            f"  {tensor['name']}  {tensor['type']}  {' x '.join(map(str, tensor['shape']))}\n"
            for tensor in facts["tensors"]
        )
    return text


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['length']} entries, first {_short(value['first'])}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text)} characters)"
