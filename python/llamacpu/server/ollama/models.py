"""Model information in Ollama's API: tags, show, ps, version; and push, which is refused."""

from __future__ import annotations

import hashlib
import math
import time
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llamacpu.engine.machine import version as own_version
from llamacpu.errors import StoreError
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.types import FILE_TYPES
from llamacpu.multimodal.projectors import has_vision
from llamacpu.server.ollama.answers import refuse_changes
from llamacpu.server.ollama.requests import ModelBody
from llamacpu.server.streams import JsonResponse
from llamacpu.store.local import find
from llamacpu.store.manifests import Preset
from llamacpu.store.modelfile import Modelfile, written
from llamacpu.store.parameters import as_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llamacpu.server.endpoints import Call
    from llamacpu.server.pool import Entry

__all__ = ["ps", "push", "show", "tags", "version"]

# The Ollama version whose API this is; clients compare it with the version that they need.
_VERSION = "0.12.0"


async def tags(call: Call) -> Response:
    """List all models."""
    models = call.state.models
    return JsonResponse({"models": [_tag(models.find(name), name) for name in models.names]})


async def ps(call: Call) -> Response:
    """List the models in memory."""
    found = []
    for entry in call.state.models.entries.values():
        served = entry.served
        if served is None:
            continue
        left = served.expires_after
        until = (
            _EPOCH_END if left is None else _moment(time.time() + max(left - (time.monotonic() - served.used_at), 0))
        )
        tag = _tag(entry, entry.name)
        del tag["modified_at"]
        more = {"size": served.nbytes, "expires_at": until, "size_vram": 0, "context_length": served.context}
        found.append({**tag, **more})
    return JsonResponse({"models": found})


async def show(call: Call) -> Response:
    """Return all information about a model."""
    body: ModelBody = call.body
    entry = call.state.models.find(body.wanted)
    metadata, details = _facts(entry)
    try:
        preset = entry.preset
    except StoreError:
        preset = Preset()
    template = metadata.get("tokenizer.chat_template") or preset.template or ""
    capabilities = ["completion"]
    if "tools" in str(template).lower():
        capabilities.append("tools")
    if "tokenizer.ggml.prefix_token_id" in metadata or "tokenizer.ggml.fim_pre_token_id" in metadata:
        capabilities.append("insert")
    if any(word in str(template) for word in ("enable_thinking", "<think>", "reasoning_strength", "reasoning_effort")):
        capabilities.append("thinking")
    if _sees(entry, metadata, call.state.settings.mmproj is not None):
        capabilities.append("vision")
    info: dict[str, Any] = {}
    for key, value in metadata.items():
        if isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            info[key] = value
        elif body.verbose and not isinstance(value, float):
            info[key] = [item.item() if hasattr(item, "item") else item for item in value]
        else:
            info[key] = None
    return JsonResponse(
        {
            "license": "\n".join(preset.licenses) or str(metadata.get("general.license", "")),
            "modelfile": written(_modelfile(entry.name, preset)),
            "parameters": as_text(preset.parameters),
            "template": preset.template or (template if isinstance(template, str) else ""),
            **({"system": preset.system} if preset.system else {}),
            **(
                {"messages": [dict(zip(("role", "content"), one, strict=True)) for one in preset.messages]}
                if preset.messages
                else {}
            ),
            "details": details,
            "model_info": info,
            "capabilities": capabilities,
            "modified_at": _moment(entry.created),
        }
    )


def _sees(entry: Entry, metadata: Mapping[str, Any], given: bool) -> bool:
    """Whether a model sees pictures; of one that is not in memory, whether there is a vision encoder for it."""
    if entry.served is not None:
        return getattr(entry.served.model, "vision", None) is not None
    if given:
        return True
    found = None if entry.named is None else find(entry.named)
    if found is not None and found.projector is not None:
        return True
    return isinstance(entry.source, Path) and has_vision(entry.source, metadata)


def _modelfile(source: str, preset: Preset) -> Modelfile:
    return Modelfile(source, preset.parameters, preset.system, preset.template, preset.messages, preset.licenses)


async def version(call: Call) -> Response:
    """Return the versions of the API and of this server."""
    return JsonResponse({"version": _VERSION, "llamacpu": own_version})


async def push(call: Call) -> Response:
    """Refuse to send a model to a registry."""
    raise refuse_changes("push")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


_EPOCH_END = (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(days=365_000)).isoformat().replace("+00:00", "Z")


def _tag(entry: Entry, name: str) -> dict[str, Any]:
    tagged = name if ":" in name else f"{name}:latest"
    _, details = _facts(entry)
    digest = hashlib.sha256(f"{entry.name} {entry.nbytes} {entry.created}".encode()).hexdigest()
    return {
        "name": tagged, "model": tagged, "modified_at": _moment(entry.created), "size": entry.nbytes, "digest": digest,
        "details": details,
    }  # fmt: skip


def _facts(entry: Entry) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """The metadata of a model and the details derived from it; no metadata if its file cannot be read."""
    if entry.served is not None:
        return entry.served.model.metadata, _details(entry.served.model.metadata, entry.nbytes, None)
    if not isinstance(entry.source, Path):
        return entry.source.metadata, _details(entry.source.metadata, entry.nbytes, None)
    try:
        return _read(entry.source, entry.source.stat().st_mtime_ns)
    except (OSError, ValueError):
        return {}, _details({}, entry.nbytes, None)


@lru_cache(maxsize=64)
def _read(path: Path, _changed: int) -> tuple[Mapping[str, Any], dict[str, Any]]:
    with GGUFFile(path) as file:
        count = sum(math.prod(tensor.shape) for tensor in file.tensors)
        return dict(file.metadata), _details(file.metadata, path.stat().st_size, count)


def _details(metadata: Mapping[str, Any], nbytes: int, count: int | None) -> dict[str, Any]:
    family = str(metadata.get("general.architecture", ""))
    label = metadata.get("general.size_label")
    if not isinstance(label, str):
        label = "" if count is None else f"{count / 1e9:.1f}B" if count >= 1e9 else f"{count / 1e6:.2f}M"
    kind = metadata.get("general.file_type")
    level = FILE_TYPES.get(kind, "unknown") if isinstance(kind, int) else "unknown"
    return {
        "parent_model": "", "format": "gguf", "family": family, "families": [family] if family else [],
        "parameter_size": label, "quantization_level": level,
    }  # fmt: skip
