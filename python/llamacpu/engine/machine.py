"""Facts about the machine: processor, memory, and what llamacpu chooses for it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any, Final

from llamacpu import _native
from llamacpu.memory import available_memory, total_memory

__all__ = [
    "available_memory",
    "describe",
    "kernels",
    "memory_bandwidth",
    "processor_name",
    "product_peak",
    "total_memory",
    "version",
]

memory_bandwidth: Final = _native.memory_bandwidth
product_peak: Final = _native.product_peak
version: str = _native.__version__
"""The version of llamacpu."""


def describe() -> dict[str, Any]:
    """Plain facts for JSON: processor, instruction sets (`isa` is the chosen one), threads, memory, versions."""
    import numpy

    facts = _native.cpu_facts()
    chosen = list(facts["chosen_features"])
    # Tiles in software are for tests: nobody misses them.
    features = [name for name in facts["processor_features"] if name in chosen or name != "software-tiles"]
    return {
        "processor": processor_name(),
        "architecture": facts["architecture"],
        "instruction_sets": list(facts["available"]),
        "isa": facts["chosen"],
        "isa_features": chosen,
        "processor_features": features,
        "isa_forced_by": "LLAMACPU_ISA" if os.environ.get("LLAMACPU_ISA") else None,
        "threads": facts["threads"],
        "threads_reason": facts["threads_reason"],
        "logical_processors": os.cpu_count(),
        "memory_bytes": total_memory(),
        "available_memory_bytes": available_memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "llamacpu": _native.__version__,
    }


def kernels() -> dict[str, str]:
    """Format of weights -> the kernel that multiplies with it on this machine."""
    from llamacpu.kernels import FORMATS

    isa = _native.cpu_facts()["chosen"]
    return {
        name: f"{isa}, " + ("32-bit float products" if row.block_elements == 1 else "packed rows, integer products")
        for name, row in FORMATS.items()
    }


def processor_name() -> str:
    """The processor's name as its maker gave it, as far as the system reports it."""
    if sys.platform == "linux":
        for line in _lines("/proc/cpuinfo"):
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model", "cpu model") and value.strip():
                return value.strip()
    elif sys.platform == "darwin":
        name = _command_output("sysctl", "-n", "machdep.cpu.brand_string")
        if name:
            return name
    return platform.processor() or platform.machine() or "unknown"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _command_output(*command: str) -> str:
    import subprocess

    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
