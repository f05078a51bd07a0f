"""llama-cpp-python's sampling arguments as `Sampling`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llamacpu.sampling import Sampling

log = logging.getLogger("llamacpu")

# The steps of llama-cpp-python, which are fewer than llama.cpp's.
_STEPS = ("penalties", "top_k", "typical_p", "top_p", "min_p", "temperature")


def samplings(
    *,
    temp: float,
    tfs_z: float = 1.0,
    penalize_nl: bool = True,
    mirostat_mode: int = 0,
    logit_bias: Mapping[Any, float] | None = None,
    **settings: Any,
) -> Sampling:
    """The settings of a request. A negative temperature draws from the model's own distribution."""
    if tfs_z != 1.0 or not penalize_nl:
        log.info("tfs_z and penalize_nl have no effect")
    bias = {int(token): float(value) for token, value in (logit_bias or {}).items()}
    steps = _STEPS if temp >= 0 else ("penalties",)
    return Sampling(
        temperature=temp if temp >= 0 else 1.0,
        samplers=steps,
        min_keep=1,
        mirostat=mirostat_mode,
        logit_bias=bias,
        **settings,
    )
