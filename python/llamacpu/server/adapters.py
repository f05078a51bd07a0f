"""The LoRA adapters of a served model: clients choose among them by number, with scales of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.engine.model import EngineModel
from llamacpu.server.errors import invalid

if TYPE_CHECKING:
    from llamacpu.engine.adapters import Adapter
    from llamacpu.engine.interfaces import ModelLike

__all__ = ["ServedAdapters"]

_LIMIT = 3e38


class ServedAdapters:
    """The adapters that a model was started with, and the scales that requests get that choose none."""

    def __init__(self, model: ModelLike, lora: Sequence[tuple[str | os.PathLike[str], float]]) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.adapters: list[Adapter] = []
        self._scales: list[float] = []
        if not isinstance(model, EngineModel):
            return
        if lora:
            vectors = model.adapters.control_vectors
            self.adapters = [model.adapter(path) for path, _ in lora]
            self._scales = [scale for _, scale in lora]
            model.set_adapters(list(zip(self.adapters, self._scales, strict=True)), vectors)
        else:
            self.adapters = [adapter for adapter, _ in model.adapters.lora]
            self._scales = [scale for _, scale in model.adapters.lora]

    def rows(self) -> list[dict[str, Any]]:
        """Return what llama-server tells about its adapters."""
        with self._lock:
            pairs = list(zip(self.adapters, self._scales, strict=True))
        rows = []
        for number, (adapter, scale) in enumerate(pairs):
            row: dict[str, Any] = {
                "id": number,
                "path": os.fspath(adapter.path),
                "scale": scale,
                "task_name": adapter.task_name,
                "prompt_prefix": adapter.prompt_prefix,
            }
            if adapter.invocation_tokens:
                row["alora_invocation_tokens"] = list(adapter.invocation_tokens)
            rows.append(row)
        return rows

    def chosen(self, wanted: Sequence[Any] | None) -> list[tuple[Adapter, float]] | None:
        """Return the adapters of a request that names some, by `id` and `scale`; those not named have a scale of 0.

        None for a request that names none. Raises ApiError for numbers that do not exist.
        """
        if wanted is None:
            return None
        return list(zip(self.adapters, self._chosen(wanted), strict=True))

    def change(self, wanted: Sequence[Any]) -> None:
        """Set the scales of requests that choose none; adapters that are not named get 0. Raises ApiError."""
        scales = self._chosen(wanted)
        with self._lock:
            self._scales = scales
            if isinstance(self._model, EngineModel) and self.adapters:
                vectors = self._model.adapters.control_vectors
                self._model.set_adapters(list(zip(self.adapters, scales, strict=True)), vectors)

    def _chosen(self, wanted: Sequence[Any]) -> list[float]:
        scales = [0.0] * len(self.adapters)
        for entry in wanted:
            if entry.id >= len(scales):
                there = f"expected 0 to {len(scales) - 1}" if scales else "this model was started without adapters"
                raise invalid(f"lora names the adapter {entry.id}; {there}", "lora")
            if not abs(entry.scale) < _LIMIT:
                raise invalid(f"lora has the scale {entry.scale}; expected a number", "lora")
            scales[entry.id] = entry.scale
        return scales
