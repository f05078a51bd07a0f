"""What all endpoints of a server share."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamacpu.server.metrics import Metrics
    from llamacpu.server.pool import ModelPool
    from llamacpu.server.running import Running
    from llamacpu.server.settings import Settings

__all__ = ["State"]


@dataclass
class State:
    """Settings, models, and what is being computed."""

    settings: Settings
    models: ModelPool
    running: Running
    metrics: Metrics
    started: float = field(default_factory=time.time)
    ready: bool = False
