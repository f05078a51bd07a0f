"""How much memory the machine has, and how much of it is free."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["available_memory", "total_memory"]


def total_memory() -> int | None:
    """Return the bytes of memory of the machine; None if the system does not report it."""
    return _memory_of_linux("MemTotal") or _pages("SC_PHYS_PAGES") or _windows_memory()[0]


def available_memory() -> int | None:
    """Return the bytes that programs can still use without swapping; None if the system does not report it."""
    return _memory_of_linux("MemAvailable") or _windows_memory()[1]


def _memory_of_linux(field: str) -> int | None:
    for line in _lines():
        key, _, value = line.partition(":")
        if key == field and value.split()[:1] and value.split()[0].isdigit():
            return int(value.split()[0]) * 1024
    return None


def _pages(name: str) -> int | None:
    try:
        return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _windows_memory() -> tuple[int | None, int | None]:
    """Total and available bytes, according to GlobalMemoryStatusEx."""
    if sys.platform != "win32":
        return None, None
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_uint32),
            ("load", ctypes.c_uint32),
            *((name, ctypes.c_uint64) for name in ("total", "free", "a", "b", "c", "d", "e")),
        )

    status = Status(length=ctypes.sizeof(Status))
    if not ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return int(status.total), int(status.free)


def _lines() -> list[str]:
    try:
        return Path("/proc/meminfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
