"""The state that all endpoints of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llamacpu.server.guard import Guard
    from llamacpu.server.metrics import Metrics
    from llamacpu.server.pool import ModelPool
    from llamacpu.server.running import Work
    from llamacpu.server.settings import Settings
    from llamacpu.server.stored import Store

__all__ = ["State"]


@dataclass
class State:
    """Settings, models, and running work."""

    settings: Settings
    models: ModelPool
    work: Work
    metrics: Metrics
    guard: Guard | None = None
    store: Store | None = None
    started: float = field(default_factory=time.time)

    @property
    def status(self) -> Literal["ok", "loading model", "shutting down"]:
        """Whether the server is ready to answer requests."""
        if self.work.draining:
            return "shutting down"
        served = self.models.default.served
        loading = not self.models.failed if served is None else served.engine.state == "loading"
        return "loading model" if loading and not self.models.on_demand else "ok"
