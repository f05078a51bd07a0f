"""Checks the messages of a training record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacpu.errors import TrainingError

__all__ = ["conversation", "from_share", "is_trained"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython")
_SHARE_ROLES = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant",
    "assistant": "assistant", "model": "assistant", "tool": "tool", "observation": "tool",
}  # fmt: skip


def conversation(messages: Any, place: str) -> list[dict[str, Any]]:
    """The messages as dicts.

    Raises TrainingError for anything that is no list of messages, and for one in which no answer is trained.
    """
    if not isinstance(messages, list) or not messages:
        found = "empty" if isinstance(messages, list) else f"a {type(messages).__name__}"
        raise TrainingError(f"{place}: 'messages' is {found}; expected a list of objects with 'role' and 'content'")
    found_messages = []
    for number, message in enumerate(messages, 1):
        where = f"{place}, message {number}"
        if not isinstance(message, Mapping):
            raise TrainingError(
                f"{where}: this is a {type(message).__name__}; expected an object with 'role' and 'content'"
            )
        role = message.get("role")
        if role not in _ROLES:
            raise TrainingError(f"{where}: the role is {role!r:.40}; expected one of {', '.join(_ROLES)}")
        content = message.get("content")
        called = role == "assistant" and bool(message.get("tool_calls") or message.get("function_call"))
        if content is None and not called:
            raise TrainingError(f"{where}: it has no 'content'; expected a text")
        if role == "assistant" and not called and content in ("", []):
            raise TrainingError(f"{where}: the answer is empty; expected a text or 'tool_calls'")
        found_messages.append(dict(message))
    if not any(message["role"] == "assistant" for message in found_messages):
        raise TrainingError(f"{place}: no message has the role 'assistant', so there is no answer to learn")
    if not any(map(is_trained, found_messages)):
        raise TrainingError(f"{place}: every answer has the weight 0, so there is nothing to learn")
    return found_messages


def is_trained(message: Mapping[str, Any]) -> bool:
    """Whether the loss counts this message: an answer, unless its "weight" is 0 or its "train" false."""
    return message.get("role") == "assistant" and message.get("weight") != 0 and message.get("train") is not False


def from_share(messages: Any, place: str) -> Any:
    """Messages in ShareGPT's form ("from" and "value") as "role" and "content"; others as they are."""
    if not isinstance(messages, list):
        return messages
    found = []
    for number, message in enumerate(messages, 1):
        if isinstance(message, Mapping) and "from" in message:
            role = _SHARE_ROLES.get(str(message["from"]))
            if role is None:
                known = ", ".join(_SHARE_ROLES)
                raise TrainingError(
                    f"{place}, message {number}: 'from' is {message['from']!r:.40}; expected one of {known}"
                )
            rest = {key: value for key, value in message.items() if key not in ("from", "value")}
            message = {**rest, "role": role, "content": message.get("value")}
        found.append(message)
    return found
