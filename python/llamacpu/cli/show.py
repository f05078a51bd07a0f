"""`llamacpu show`: where a model is stored, what comes with it, and its licence."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import write
from llamacpu.errors import StoreError
from llamacpu.families.memory import amount
from llamacpu.store.entries import Entry

_BUILT_WITH_LLAMA = "Built with Llama"


@click.command("show", short_help="Show where a model is stored, its settings, and its licence.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.option("--license", "part", flag_value="license", help="Print only the licence.")
@click.option("--modelfile", "part", flag_value="modelfile", help="Print a Modelfile that recreates this model.")
@click.option("--parameters", "part", flag_value="parameters", help="Print only the settings that come with it.")
@click.option("--system", "part", flag_value="system", help="Print only the system prompt that comes with it.")
@click.option("--template", "part", flag_value="template", help="Print only the chat template that comes with it.")
@options.context
@options.kv_type
@options.as_json
def command(model: str, part: str | None, context: int | None, kv_type: str, as_json: bool) -> None:
    """Show where MODEL (a name or a .gguf file) lies, its size and memory, the settings and the system prompt that come
    with it, and its licence."""
    from llamacpu.store.facts import describe
    from llamacpu.store.known import did_you_mean
    from llamacpu.store.local import find

    entry = find(model)
    if entry is None:
        raise StoreError(f"{model} is not on this machine; `llamacpu list` shows what is{did_you_mean(model)}")
    preset = entry.preset
    if part is not None:
        write(_part(entry, part))
        return
    facts = describe(entry, context, kv_type)
    text = "\n".join(preset.licenses)
    llama = _BUILT_WITH_LLAMA in text or "llama" in str(facts.get("license") or "").lower()
    told = dataclasses.asdict(preset)
    told["template_used"] = _template_used(facts, preset.template)
    facts |= {"notice": _BUILT_WITH_LLAMA if llama else None, "settings": dict(told.pop("parameters")), **told}
    write(json.dumps(facts, ensure_ascii=False) + "\n" if as_json else _as_text(facts))


def _template_used(facts: dict[str, Any], own: str | None) -> str | None:
    """A description of the template that conversations use."""
    if facts.get("chat_template"):
        return "the file's own" + (" (that of the Modelfile: --template modelfile)" if own else "")
    return "that of the Modelfile" if own else None


def _part(entry: Entry, part: str) -> str:
    """The text of one thing that comes with a model. Raises StoreError if the model does not have it."""
    from llamacpu.store import create, parameters

    preset = entry.preset
    found = {
        "license": "\n".join(text.rstrip() + "\n" for text in preset.licenses),
        "parameters": parameters.as_text(preset.parameters),
        "system": preset.system,
        "template": preset.template,
    }
    text = create.text_of(entry) if part == "modelfile" else found[part]
    if not text:
        raise StoreError(f"no {part} came with {entry.name}" + _ELSEWHERE.get(part, ""))
    return text if text.endswith("\n") else text + "\n"


_ELSEWHERE = {
    "license": "; the page of the model names it",
    "template": "; `llamacpu info` shows what the file has",
}


def _as_text(facts: dict[str, Any]) -> str:
    rows = [("name", facts["name"]), ("origin", facts["origin"]), ("file", facts["path"])]
    if facts["files"] > 1:
        rows.append(("parts", str(facts["files"])))
    if facts["projector"]:
        rows.append(("projector", facts["projector"]))
    rows += [("size", amount(facts["size_bytes"])), ("quantization", facts["quantization"] or "-")]
    if "architecture" in facts:
        rows += [("architecture", facts["architecture"]), ("parameters", f"{facts['parameters']:,}")]
    if facts["runs"]:
        rows.append(("memory", f"{amount(facts['memory_bytes'])} with {facts['context']:,} tokens of context"))
        fits = {None: "unknown", True: "yes", False: "no"}[facts["fits"]]
        free = facts["available_bytes"]
        rows.append(("fits", fits if free is None else f"{fits}: {amount(free)} are free"))
    else:
        rows.append(("does not run", facts["problem"]))
    for key, value in facts["settings"].items():
        rows.append((key, json.dumps(value, ensure_ascii=False)))
    if facts["template"]:
        rows.append(("template", facts["template_used"]))
    if facts["messages"]:
        rows.append(("messages", f"{len(facts['messages'])} before every conversation"))
    if facts["system"]:
        rows.append(("system", facts["system"].strip().replace("\n", "\n  ")))
    if facts["licenses"] or facts.get("license"):
        first = next((line.strip() for text in facts["licenses"] for line in text.splitlines() if line.strip()), "")
        rows.append(("license", f"{first or facts.get('license')}" + ("  (all of it: --license)" if first else "")))
    if facts["notice"]:
        rows.append(("notice", facts["notice"]))
    width = max(len(name) for name, _ in rows) + 2
    return "".join(f"{name:<{width}}{value}\n" for name, value in rows)
