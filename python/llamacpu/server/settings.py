"""The limits and permissions of a server, each defined once."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from llamacpu.engine.adapter_set import ControlVectorUse
from llamacpu.engine.duty import Duty
from llamacpu.engine.interfaces import KVType
from llamacpu.engine.priority import Priority

__all__ = ["Settings"]

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The limits and permissions of a server. The defaults admit only programs on this machine.

    api_keys        keys, one of which is required as `Authorization: Bearer` or `x-api-key`; empty: no key is required
    origins         web origins that browsers may call from ("https://example.com", "*" for all)
    hosts           further names allowed in the Host header ("*" for all); addresses and localhost are always allowed
    parallel        answers that are computed at once; further requests wait
    queue           requests that may wait; further ones are refused with 429
    timeout         seconds after which an answer is cut off
    guard_threshold  probability of "unsafe" at or above which a guard refuses
    ollama          GET / answers programs with "Ollama is running", which some of them check for
    store_changes   clients may pull, copy and delete models of llamacpu's own store, and use all models in it
    kv_memory       bytes of keys and values of each model; None for half of the memory that the machine has left
    prefix_cache    folder in which the keys and values of prompts outlive the process; None for memory only
    prefix_cache_bytes  maximum bytes in this folder
    lora            LoRA adapters of the models: pairs of a path and a scale; clients choose among them by number
    control_vectors  control vectors of the models, as for `llamacpu.Model`
    draft_model     source of drafts of the models, as for `llamacpu.Model.open_draft`; they are used while a request
                    runs alone. None for what the text itself repeats
    mmproj          the vision encoder of the models; None for those that lie beside them
    image_tokens    most tokens of a picture; None for what the model was trained with
    image_crops     most crops of a long picture, shown beside the whole (Gemma 3); 0 for none
    image_files     clients may name files of this machine as pictures
    image_addresses  clients may name addresses on the web as pictures; the server fetches them
    priority        of the server's process among other programs, as for `llamacpu.Model`; None changes nothing
    duty            the most percent of the time in which the models together compute; None for no limit
    context         maximum tokens of a conversation; None for the context that the model was trained for
    kv_type         storage type of keys and values
    body_bytes      maximum size of a request body
    body_seconds    maximum time for a body to arrive
    send_seconds    maximum time for which a client may read nothing of a response
    header_bytes    maximum size of a request head
    header_seconds  maximum time for a request head to arrive
    schema_bytes    maximum size of a JSON schema or grammar
    json_depth      maximum nesting depth of a body
    choices         maximum answers per request (`n`, or the number of prompts times `n`)
    inputs          maximum texts per embedding request
    connections     maximum simultaneous connections; further ones are answered with 503
    grace_seconds   how long running answers may continue after the server was asked to shut down
    ping_seconds    silence after which a stream sends a keep-alive
    """

    api_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    parallel: int = 16
    queue: int = 256
    timeout: float = 3600.0
    lora: Sequence[tuple[str | os.PathLike[str], float]] = ()
    control_vectors: Sequence[ControlVectorUse] = ()
    draft_model: str | os.PathLike[str] | None = None
    mmproj: str | os.PathLike[str] | None = None
    image_tokens: int | None = None
    image_crops: int = 0
    image_files: bool = False
    image_addresses: bool = False
    priority: Priority | None = None
    duty: Duty = None
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
        """Check all values. Raises ValueError."""
        for name, value in vars(self).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                lowest = 0 if name in ("queue", "grace_seconds", "image_crops") else 1e-3
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
