"""Those of Ollama's environment variables that define where and how a server listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacpu.server.ollama.requests import seconds_of

__all__ = ["settings_of"]

_PORT = 11434
_KEEP_ALIVE = "5m"


def settings_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return host, port, keep_alive and, if set, origins, context, parallel and queue from the variables.

    Raises ValueError for invalid values.
    """
    host, port = _address(environment.get("OLLAMA_HOST", ""))
    found: dict[str, Any] = {"host": host, "port": port}
    found["keep_alive"] = seconds_of(environment.get("OLLAMA_KEEP_ALIVE") or _KEEP_ALIVE)
    origins = [origin.strip() for origin in environment.get("OLLAMA_ORIGINS", "").split(",")]
    if any(origins):
        found["origins"] = tuple(origin for origin in origins if origin)
    for name, field in (
        ("OLLAMA_CONTEXT_LENGTH", "context"),
        ("OLLAMA_NUM_PARALLEL", "parallel"),
        ("OLLAMA_MAX_QUEUE", "queue"),
    ):
        value = environment.get(name, "").strip()
        if value and value != "0":
            if not (value.isascii() and value.isdecimal() and len(value) < 10):
                raise ValueError(f"{name} is {value[:40]!r}; expected a whole number")
            found[field] = int(value)
    return found


def _address(given: str) -> tuple[str, int]:
    """Host and port from "host", "host:port", ":port" or a URL."""
    text = given.strip().strip("\"'")
    scheme, separator, rest = text.partition("://")
    default = _PORT
    if separator:
        default = {"http": 80, "https": 443}.get(scheme, _PORT)
        text = rest
    text = text.partition("/")[0]
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
        port = tail.removeprefix(":")
    elif text.count(":") > 1:
        host, port = text, ""
    else:
        host, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdecimal() and int(port[:9]) <= 65535 and len(port) < 6):
        raise ValueError(f"OLLAMA_HOST is {given[:60]!r}; expected host:port")
    return host or "127.0.0.1", int(port) if port else default
