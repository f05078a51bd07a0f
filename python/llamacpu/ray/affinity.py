"""Which requests should meet in one replica: those whose prompts begin alike, since it has that beginning computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

__all__ = ["prefix_key", "ranked"]

# A text without turns: as much of its beginning as tells documents apart and does not change while it grows.
_CHARACTERS = 256
# Endpoints that compute no prompt twice: any replica will do.
_ANYWHERE = ("embed", "tokenize", "detokenize", "rerank", "moderations")

Replica = TypeVar("Replica")


def prefix_key(path: str, body: bytes) -> str:
    """What requests with the same beginning have in common, as a digest; empty where any replica will do.

    A client that knows better names the conversation itself, in the OpenAI field `prompt_cache_key`. Otherwise it is
    the model, what stands before the conversation (system prompt, tools) and its first message of a user: they stay
    the same in all turns. Of a prompt that is a text, the first 256 characters.
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
    """Replicas in the order in which a key prefers them (rendezvous hashing: Thaler and Ravishankar, 1998).

    Each comes with its name. When one goes, only its own keys move, each to the second in its order; when one comes,
    only the keys that prefer it move.
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
    """All up to the first message that is no instruction of the system."""
    for place, turn in enumerate(turns):
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in ("system", "developer"):
            return [[_said(turn) for turn in turns[: place + 1]]]
    return [[_said(turn) for turn in turns]]


def _said(turn: Any) -> Any:
    return [turn.get("role"), turn.get("content")] if isinstance(turn, dict) else turn
