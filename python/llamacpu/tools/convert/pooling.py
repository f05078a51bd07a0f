"""How the vectors of tokens become one: modules.json of sentence-transformers, and heads of classifiers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.source import Source

__all__ = ["set_pooling"]

_KINDS = {"mean": 1, "cls": 2, "lasttoken": 3}
_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "lasttoken"}
MAX_BYTES = 1 << 20


def set_pooling(source: Source, keys: Keys) -> None:
    """Set pooling_type as the checkpoint says it, if it does."""
    pooling = _pooling(source.checkpoint.folder)
    if pooling is not None:
        kind = next((kind for flag, kind in _FLAGS.items() if pooling.get(flag)), pooling.get("pooling_mode"))
        if kind not in _KINDS:
            raise CheckpointError(f"the pooling {kind!r:.40} is not supported; expected one of {', '.join(_KINDS)}")
        keys.set("pooling_type", _KINDS[kind])
    classifier = source.config.get("classifier_pooling")
    if classifier in ("cls", "mean"):
        keys.set("classifier.pooling_type", _KINDS[classifier])
    elif classifier is not None and source.architecture.endswith("ForSequenceClassification"):
        raise CheckpointError(f"config.json: classifier_pooling is {classifier!r:.40}; expected cls or mean")


def _pooling(folder: Path) -> dict[str, Any] | None:
    modules = _json(folder / "modules.json")
    for module in modules if isinstance(modules, list) else []:
        if isinstance(module, dict) and str(module.get("type", "")).endswith("Pooling"):
            path = Path(str(module.get("path", "")))
            if path.is_absolute() or ".." in path.parts:
                raise CheckpointError(f"modules.json: the path {str(path)!r:.80} leads out of the folder")
            found = _json(folder / path / "config.json")
            return found if isinstance(found, dict) else {}
    return None


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path.name}: {path.stat().st_size} bytes; expected at most {MAX_BYTES}")
    try:
        return json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: not valid JSON: {error}") from None
