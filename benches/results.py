"""The file of numbers that a benchmark writes with `--json`, for `plots.py` and for whoever calculates further."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import llamacpu
from llamacpu.engine import machine

_FORM = 1


def write(path: Path, benchmark: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the rows of a benchmark, with the machine and the settings that they were measured with.

    A row has "file", "part" ("prompt", "generate"), "threads", "tokens" (of the prompt, or before the generation) and
    "tokens_per_second": program -> best of the rounds; where known "kv_type", "ratio" to the best of the others,
    "limit" and "share" of it.
    """
    document = {
        "form": _FORM, "benchmark": benchmark, "date": time.strftime("%Y-%m-%d"), "llamacpu": llamacpu.__version__,
        "machine": machine.describe(), "settings": settings, "rows": rows,
    }  # fmt: skip
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read what `write` wrote. Raises ValueError for another file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("form") != _FORM or not isinstance(document.get("rows"), list):
        raise ValueError(f"{path} holds no results; expected a file of compare.py --json or compare_long.py --json")
    return document
