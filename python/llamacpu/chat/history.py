"""Normalizes conversations as clients write them, before they are adapted to individual templates."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamacpu.errors import TemplateError

Message = dict[str, Any]

# Roles of messages with the result of a tool, which need not be text.
_RESULTS = ("tool", "function", "ipython")
_MEDIA = re.compile("image|audio|video|file|document")
# The names under which clients give reasoning.
_REASONING = ("reasoning_content", "thinking", "reasoning")
_TEXTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}


def history(messages: Iterable[Any]) -> list[Message]:
    """The messages with content as a single string, `developer` as `system`, and functions as tools.

    Content that is None becomes empty. The older `function_call` and the role `function` become `tool_calls` and
    `tool`. Raises TemplateError for anything that is not a message, and for content that is not text.
    """
    if not isinstance(messages, Iterable) or isinstance(messages, (str, bytes, Mapping)):
        raise TemplateError(f"the messages are a {type(messages).__name__}; a list of dicts was expected")
    found: list[Message] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TemplateError(
                f"a message is a {type(message).__name__}; a dict with 'role' and 'content' was expected"
            )
        plain = {key: value for key, value in message.items() if key not in ("tool_calls", "function_call")}
        if plain.get("role") == "developer":
            plain["role"] = "system"
        plain["content"] = _text(message.get("content"), is_result=message.get("role") in _RESULTS)
        calls = _calls(message, number)
        if calls:
            plain["tool_calls"] = calls
        if plain.get("role") == "function":
            plain["role"] = "tool"
            plain.setdefault("tool_call_id", _call_of(found, plain.get("name")))
        found.append(plain)
    return found


def _text(content: Any, is_result: bool) -> Any:
    """Content as a single string; an object or a list that a tool returned is left as it is."""
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, (bool, int, float)):
        return json.dumps(content)
    if is_result and _is_data(content):
        return content
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, (list, tuple)):
        raise TemplateError(
            f"a message has content of the type {type(content).__name__}; a text or a list of parts was expected"
        )
    texts = []
    for part in content:
        kind = "text" if isinstance(part, str) else None
        if isinstance(part, Mapping):
            kind = part.get("type", "text" if "text" in part else "dict without 'type' and 'text'")
        if kind not in _TEXTS:
            kind = kind or type(part).__name__
            raise TemplateError(f"a message has content of the type {kind!r}; this model reads text only")
        texts.append(part if isinstance(part, str) else str(part.get(_TEXTS[kind]) or ""))
    return "\n".join(texts)


def _is_data(content: Any) -> bool:
    """Whether a tool returned an object or a list as its result, rather than message parts."""
    if isinstance(content, Mapping):
        return content.get("type") not in _TEXTS
    if not isinstance(content, (list, tuple)):
        return False
    kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
    if any(isinstance(kind, str) and _MEDIA.search(kind) for kind in kinds):
        return False
    return not all(
        isinstance(part, str) or kind in _TEXTS or (kind is None and isinstance(part, Mapping) and "text" in part)
        for part, kind in zip(content, kinds, strict=True)
    )


def as_text(content: Any) -> str:
    """The result of a tool as text: JSON if it is an object or a list."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)


def objects_as_text(messages: Sequence[Message]) -> list[Message]:
    """The messages with results that are objects or lists as JSON text, for templates that would print their `repr`."""
    return [
        {**message, "content": as_text(message["content"])} if message.get("role") in _RESULTS else message
        for message in messages
    ]


def _calls(message: Mapping[str, Any], number: int) -> list[Message]:
    calls = message.get("tool_calls")
    if not calls and isinstance(message.get("function_call"), Mapping):
        calls = [{"id": _short(f"{number}"), "type": "function", "function": dict(message["function_call"])}]
    found = []
    for call in calls or ():
        if not isinstance(call, Mapping):
            raise TemplateError(f"a tool call is a {type(call).__name__}; a dict with 'function' was expected")
        function = call.get("function", {key: call[key] for key in ("name", "arguments") if key in call})
        function = dict(function) if isinstance(function, Mapping) else {"name": function}
        if function.get("arguments") is None:
            function["arguments"] = {}
        found.append({**call, "type": call.get("type") or "function", "function": function})
    return found


def _call_of(messages: Sequence[Message], name: Any) -> str:
    """The id of the last call of a function, or an id derived from its name if there is none."""
    for message in reversed(messages):
        for call in reversed(message.get("tool_calls", ())):
            if call["function"].get("name") == name and call.get("id"):
                return str(call["id"])
    return _short(str(name))


def _short(text: str) -> str:
    """An id of nine letters and digits derived from a text by hashing."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:9]


def short_ids(messages: Sequence[Message]) -> list[Message]:
    """The messages with an id of nine letters and digits in every call and result, as Mistral's templates require.

    An id in another form is replaced by the same new one in a call and in its result.
    """
    found = []
    waiting: list[str] = []
    for number, message in enumerate(messages):
        calls = message.get("tool_calls")
        if calls:
            calls = [{**call, "id": _nine(call.get("id"), f"{number} {i}")} for i, call in enumerate(calls)]
            waiting = [call["id"] for call in calls]
            message = {**message, "tool_calls": calls}
        elif message.get("role") == "tool":
            given = message.get("tool_call_id")
            # A result without an id belongs to the first call without a result.
            identity = _nine(given, "") if given else (waiting[0] if waiting else _short("result"))
            if identity in waiting:
                waiting.remove(identity)
            message = {**message, "tool_call_id": identity}
        found.append(message)
    return found


def _nine(identity: Any, otherwise: str) -> str:
    text = str(identity) if identity else otherwise
    return text if len(text) == 9 and text.isascii() and text.isalnum() else _short(text)


def single_calls(messages: Sequence[Message]) -> list[Message]:
    """The messages with one call each, followed by its result, for templates that support only one."""
    found: list[Message] = []
    index = 0
    while index < len(messages):
        message, index = messages[index], index + 1
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            found.append(message)
            continue
        results = []
        while index < len(messages) and messages[index].get("role") == "tool":
            results.append(messages[index])
            index += 1
        for place, call in enumerate(calls):
            content = message["content"] if place == 0 else ""
            found.append({**message, "content": content, "tool_calls": [call]})
            answer = next((r for r in results if call.get("id") and r.get("tool_call_id") == call["id"]), None)
            if answer is None:
                answer = next((r for r in results if not r.get("tool_call_id")), None)
            if answer is not None:
                results = [result for result in results if result is not answer]
                found.append(answer)
        found += results
    return found


def merged_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with system text prepended to the next user message, for templates without system messages."""
    found: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.get("role") == "system" and isinstance(message["content"], str):
            waiting.append(message["content"])
        elif message.get("role") == "user" and waiting and isinstance(message["content"], str):
            found.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            found.append(message)
    return [*found, {"role": "user", "content": "\n\n".join(waiting)}] if waiting else found


def alternating(messages: Sequence[Message]) -> list[Message]:
    """The messages with adjacent ones of one role merged, for templates that require alternating roles.

    A conversation that begins with the assistant, such as a greeting, gets an empty user message before it.
    """
    found: list[Message] = []
    for message in messages:
        last = found[-1] if found else None
        plain = not message.get("tool_calls") and isinstance(message["content"], str)
        if (
            last is not None
            and plain
            and last.get("role") == message.get("role") != "tool"
            and isinstance(last["content"], str)
            and not last.get("tool_calls")
        ):
            found[-1] = {**last, "content": "\n\n".join(filter(None, (last["content"], message["content"])))}
        else:
            found.append(message)
    begin = next((place for place, message in enumerate(found) if message.get("role") != "system"), None)
    if begin is not None and found[begin].get("role") == "assistant":
        found.insert(begin, {"role": "user", "content": ""})
    return found


def calls_apart(messages: Sequence[Message]) -> list[Message]:
    """The messages with the text next to calls in a message of its own, which does not end the turn (Muse Glimmer)."""
    found: list[Message] = []
    for message in messages:
        if message.get("tool_calls") and message["content"]:
            found.append({key: value for key, value in message.items() if key != "tool_calls"} | {"end_turn": False})
            message = {key: value for key, value in message.items() if key not in _REASONING} | {"content": ""}
        found.append(message)
    return found


def thoughts_apart(messages: Sequence[Message]) -> list[Message]:
    """The messages with reasoning that is content between tags as reasoning, for templates that know no such tags."""
    found = []
    for message in messages:
        content = message["content"]
        if message.get("role") == "assistant" and isinstance(content, str) and content.startswith("<think>"):
            thought, closing, answer = content.removeprefix("<think>").partition("</think>")
            if closing and not message.get("reasoning_content"):
                message = {**message, "content": answer.lstrip(), "reasoning_content": thought.strip()}
        found.append(message)
    return found


def thoughts_as_parts(messages: Sequence[Message]) -> list[Message]:
    """The messages with reasoning as a part of the content, for templates that read it there (Mistral)."""
    found = []
    for message in messages:
        thought = next((message[key] for key in _REASONING if message.get(key)), None)
        if message.get("role") == "assistant" and isinstance(thought, str) and isinstance(message["content"], str):
            parts = [{"type": "thinking", "thinking": thought}, {"type": "text", "text": message["content"]}]
            message = {**message, "content": parts if message["content"] else parts[:1]}
        found.append(message)
    return found


def with_responses(messages: Sequence[Message]) -> list[Message]:
    """The messages with results, and the answer after them, in the message that called (older Gemma 4 templates)."""
    found: list[Message] = []
    for message in messages:
        calls = found[-1].get("tool_calls") if found else None
        if message.get("role") == "tool" and calls:
            named = {call.get("id"): call["function"].get("name") for call in calls if call.get("id")}
            name = named.get(message.get("tool_call_id")) or message.get("name")
            if name is None and len(found[-1].get("tool_responses", ())) < len(calls):
                name = calls[len(found[-1].get("tool_responses", ()))]["function"].get("name")
            response = {"name": name or "unknown", "response": message["content"]}
            found[-1] = {**found[-1], "tool_responses": [*found[-1].get("tool_responses", ()), response]}
            continue
        answers = message.get("role") == "assistant" and not message.get("tool_calls")
        if answers and calls and found[-1].get("tool_responses") and not found[-1]["content"]:
            found[-1] = {**found[-1], "content": message["content"]}
            continue
        found.append(message)
    return found
