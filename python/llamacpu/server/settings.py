"""What a server allows and how much of it, each limit stated once."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from llamacpu.engine.interfaces import KVType

__all__ = ["Settings"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The limits and permissions of a server. The defaults are closed: nothing but this machine's own programs.

    api_keys        one of these is wanted as `Authorization: Bearer` or `x-api-key`; none: no key is asked for
    origins         web origins that browsers may call from ("https://example.com", "*" for all)
    hosts           further names that the Host header may have ("*" for all); addresses and localhost always may
    parallel        answers that are computed at once; further requests wait
    queue           requests that may wait; one more is refused with 429
    timeout         seconds that an answer may take before it ends, where it is
    guard_threshold  probability of "unsafe" from which on a guard refuses
    ollama          GET / says "Ollama is running" to programs, as some ask
    store_changes   clients may pull, copy and delete models of llamacpu's own store, and use all that are in it
    kv_memory       bytes of keys and values of each model; None for half of what the machine has left
    prefix_cache    folder in which the keys and values of prompts outlive the process; None for memory alone
    prefix_cache_bytes  most that this folder may hold
    context         most tokens of a conversation; None for what the model was trained for
    kv_type         how keys and values are stored
    body_bytes      largest body of a request
    body_seconds    longest time that a body may take to arrive
    send_seconds    longest time that a client may take nothing of a response
    header_bytes    largest head of a request
    header_seconds  longest time that a head may take to arrive
    schema_bytes    largest JSON schema or grammar
    json_depth      deepest nesting of a body
    choices         most answers to one request (`n`, prompts times `n`)
    inputs          most texts of one request for embeddings
    connections     most connections at once; one more is answered with 503
    grace_seconds   how long running answers may go on after the server was asked to end
    ping_seconds    silence after which a stream carries a sign of life
    """

    api_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    parallel: int = 16
    queue: int = 256
    timeout: float = 3600.0
    context: int | None = None
    kv_type: KVType = "f16"
    guard_threshold: float = 0.5
    ollama: bool = False
    store_changes: bool = False
    kv_memory: int | None = None
    prefix_cache: str | os.PathLike[str] | None = None
    prefix_cache_bytes: int = 8 << 30
    body_bytes: int = 16 << 20
    body_seconds: float = 30.0
    send_seconds: float = 60.0
    header_bytes: int = 64 << 10
    header_seconds: float = 15.0
    schema_bytes: int = 256 << 10
    json_depth: int = 64
    choices: int = 16
    inputs: int = 2048
    connections: int = 1024
    grace_seconds: float = 10.0
    ping_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Check every number. Raises ValueError."""
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                lowest = 0 if name in ("queue", "grace_seconds") else 1e-3
                if not lowest <= value < float("inf"):
                    raise ValueError(f"{name} is {value!r}; expected a number above 0")
        for origin in self.origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"the allowed origin is {origin!r}; expected scheme and host without a path, as "
                    "https://example.com, or * for all"
                )
        for host in self.hosts:
            if not host.strip() or set(host) & set("/ @,"):
                raise ValueError(f"the allowed host is {host!r}; expected a name as models.example.com, or * for all")
        if any(not key.strip() for key in self.api_keys):
            raise ValueError("an API key is empty; give a text that cannot be guessed")
