"""Which requests should go to the same replica: those whose prompts share a prefix, which it has already computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["prefix_key", "ranked"]

# For a text without turns: enough of its beginning to tell documents apart, yet unchanged as it grows.
_CHARACTERS = 256
# Endpoints that never reuse a computed prompt: any replica will do.
_ANYWHERE = ("embed", "tokenize", "detokenize", "rerank", "moderations")

Replica = TypeVar("Replica")


def prefix_key(path: str, body: bytes) -> str:
    """Return a digest of what requests with the same prefix have in common; empty if any replica will do.

    A client that knows better names the conversation itself, in the OpenAI field `prompt_cache_key`. Otherwise the key
    is made from the model, what precedes the conversation (system prompt, tools) and the first user message, which
    stay the same in all turns. For a text prompt, its first 256 characters are used instead of messages.
    """
    if any(word in path for word in _ANYWHERE):
        return ""
    try:
        asked = json.loads(body) if body else None
    except (ValueError, RecursionError):
        return ""
    if not isinstance(asked, dict):
        return ""
    named = asked.get("prompt_cache_key")
    found = [named] if isinstance(named, str) and named else _beginning(asked)
    if not any(found):
        return ""
    text = json.dumps([asked.get("model"), *found], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def ranked(key: str, replicas: Iterable[tuple[str, Replica]]) -> list[Replica]:
    """Return replicas in a key's order of preference (rendezvous hashing: Thaler and Ravishankar, 1998).

    Each is given with its name. When a replica leaves, only its own keys move, each to the second in its order; when
    one joins, only the keys that prefer it move.
    """
    weighed = [(hashlib.sha256(f"{name}\n{key}".encode()).digest(), name, replica) for name, replica in replicas]
    return [replica for _, _, replica in sorted(weighed, key=lambda found: found[:2], reverse=True)]


def _beginning(asked: Mapping[str, Any]) -> list[Any]:
    before = [asked.get("system"), asked.get("instructions"), asked.get("tools")]
    turns = asked.get("messages")
    if turns is None:
        turns = asked.get("input")
    if isinstance(turns, list):
        return [*before, *_first_turn(turns)]
    for name in ("input", "prompt", "input_prefix"):
        text = asked.get(name)
        if isinstance(text, (str, list)) and text:
            return [*before, text[:_CHARACTERS]]
    return []


def _first_turn(turns: Sequence[Any]) -> list[Any]:
    """Return the messages up to and including the first that is not a system instruction."""
    for place, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in ("system", "developer"):
            return [[_said(turn) for turn in turns[: place + 1]]]
    return [[_said(turn) for turn in turns]]


def _said(turn: Any) -> Any:
    return [turn.get("role"), turn.get("content")] if isinstance(turn, dict) else turn
