"""general.*: what the model card (README.md), generation_config.json and the names say about a model."""

from __future__ import annotations

import json
import re
from typing import Any

from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.model_id import ModelId, parse_model_id, title

__all__ = ["set_card"]

MAX_README_BYTES = 4 << 20
_SAMPLING = {
    "sequence": ("sequence", "string"), "top_k": ("top_k", "int32"), "top_p": ("top_p", "float32"),
    "min_p": ("min_p", "float32"), "xtc_probability": ("xtc_probability", "float32"),
    "xtc_threshold": ("xtc_threshold", "float32"), "temp": ("temperature", "float32"),
    "penalty_last_n": ("penalty_last_n", "int32"), "penalty_repeat": ("penalty_repeat repetition_penalty", "float32"),
    "mirostat": ("mirostat", "int32"), "mirostat_tau": ("mirostat_tau", "float32"),
    "mirostat_eta": ("mirostat_eta", "float32"),
}  # fmt: skip
# Key to the names that cards have for it, in order.
_CARD = {
    "name": "name model_name",
    "author": "author model_author model_creator",
    "version": "version model_version",
    "organization": "organization model_organization",
    "finetune": "finetune model_finetune",
    "basename": "basename model_basename model_type",
    "description": "description model_description",
    "size_label": "size_label model_size_label",
    "license": "license",
    "license.name": "license_name",
    "license.link": "license_link",
    "source.url": "url model_url",
    "source.doi": "doi model_doi",
    "source.uuid": "uuid model_uuid",
    "source.repo_url": "repo_url model_repo_url",
}
_RELATED = ("name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url")
_HUB = re.compile(r"https?://huggingface.co/([^/]+/[^/]+)")


def set_card(
    keys: Keys, checkpoint: Checkpoint, model_id: str, parameters: int, size: str, name: str | None = None
) -> None:
    """Set the keys that begin with "general.", except architecture, type and file type.

    model_id: the name of the folder or repository. parameters: of the model. size: its label, if neither card nor name
    has one. name: of the model, if given.
    """
    _set_sampling(keys, checkpoint)
    card = _card(checkpoint)
    values = {
        key: next((card[n] for n in names.split() if card.get(n) is not None), None) for key, names in _CARD.items()
    }
    path = checkpoint.config.get("_name_or_path")
    if isinstance(path, str) and path.count("/") <= 1:
        _fill(values, parse_model_id(path, parameters) if path else ModelId())
    _fill(values, parse_model_id(model_id, parameters))
    if name is not None:
        values["name"] = name
    values["name"] = values["name"] or model_id
    values["size_label"] = values["size_label"] or size
    if isinstance(values["license"], list):
        values["license"] = ",".join(map(str, values["license"]))
    for key, value in values.items():
        if value is not None:
            keys.add(f"general.{key}", str(value), "string")
    _set_related(keys, "base_model", _listed(card, "base_model", "base_models", "base_model_sources"), parameters)
    _set_related(keys, "dataset", _listed(card, "datasets", "dataset", "dataset_sources"), parameters)
    for key, names in (("tags", ("tags", "pipeline_tag")), ("languages", ("languages", "language"))):
        keys.add(f"general.{key}", [_text(text) for n in names for text in _listed(card, n) or []], "string")


def _fill(values: dict[str, Any], model: ModelId) -> None:
    for key, value in model._asdict().items():
        if values[key] is None and value is not None:
            values[key] = title(value) if key in ("name", "organization") else value


def _set_sampling(keys: Keys, checkpoint: Checkpoint) -> None:
    path = checkpoint.file("generation_config.json")
    if path is None or path.stat().st_size > MAX_README_BYTES:
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError):
        return  # some published models have a damaged one, and nothing depends on it
    for key, (names, kind) in _SAMPLING.items():
        value = next((found[n] for n in names.split() if n in found), None) if isinstance(found, dict) else None
        if value is not None:
            keys.add(f"general.sampling.{key}", value, kind)


def _card(checkpoint: Checkpoint) -> dict[str, Any]:
    """The YAML at the beginning of README.md."""
    path = checkpoint.file("README.md")
    if path is None or path.stat().st_size > MAX_README_BYTES:
        return {}
    lines = path.read_text("utf-8", "replace").splitlines()
    if not lines or lines[0] != "---":
        return {}
    end = lines.index("---", 1) if "---" in lines[1:] else len(lines)
    # An unquoted `no` is a language here, not a boolean, and some cards are indented with tabs.
    text = "\n".join([*lines[1:end], ""]).replace("- no\n", '- "no"\n').replace("\t", "  ")
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError(f"README.md: the model card is not valid YAML: {error}; correct or remove it") from None
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    # An unquoted `no` in brackets, the language, is a boolean in YAML.
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _listed(card: dict[str, Any], *names: str) -> list[Any] | None:
    """The entries under the first of these names; None if the card has none of them."""
    name = next((name for name in names if name in card), None)
    if name is None:
        return None
    value = card[name]
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _set_related(keys: Keys, kind: str, entries: list[Any] | None, parameters: int) -> None:
    """The models or data sets that the model was made from."""
    if entries is None:
        return
    keys.add(f"general.{kind}.count", len(entries), "uint32")
    for number, entry in enumerate(entries):
        facts = _related(entry, parameters) if isinstance(entry, str) else entry
        for key in _RELATED:
            if isinstance(facts, dict) and facts.get(key) is not None:
                keys.add(f"general.{kind}.{number}.{key}", str(facts[key]), "string")


def _related(entry: str, parameters: int) -> dict[str, str]:
    facts = {}
    name = entry
    if entry.startswith(("http://", "https://", "ssh://")):
        facts["repo_url"] = entry
        match = _HUB.fullmatch(entry)
        if match is None:
            return facts
        name = match[1]
    model = parse_model_id(name, parameters)
    if model.name is not None:
        facts["name"] = title(model.name)
    if model.organization is not None:
        facts["organization"] = title(model.organization)
        facts.setdefault("repo_url", f"https://huggingface.co/{model.organization}/{model.name}")
    if model.version is not None:
        facts["version"] = model.version
    return facts
