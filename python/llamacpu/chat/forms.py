"""The forms in which chat templates expect a conversation.

Clients write a conversation in one way, templates read it in several. Here are the ways, the most usual first; the
caller takes the first that the template renders with the last message in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llamacpu.errors import TemplateError

Message = dict[str, Any]


def forms(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], source: str) -> Iterator[list[Message]]:
    """The conversation in the forms that the template `source` may want.

    The arguments of tool calls come as JSON text; most templates want an object, some the text. A message that only
    calls a tool has no content: null for some templates, empty for others. Some read content as a list of parts. A
    template that knows nothing of tools gets them as text.
    """
    plain = [_message(message) for message in messages]
    if "tool_calls" not in source:
        plain = [_as_words(message) for message in plain]
    if tools and not re.search(r"\btools\b", source):
        plain = _with_instructions(plain, tools)
    if any(message.get("tool_calls") for message in plain):
        for content in (None, ""):
            for convert in (_as_object, _as_text):
                yield [_with_calls(message, content, convert) for message in plain]
    else:
        yield plain
    yield [{**m, "content": [{"type": "text", "text": m["content"]}]} if _has_text(m) else m for m in plain]


def shows(text: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the text of the last user's message, if there is one, is in a rendered prompt."""
    content = next((message.get("content") for message in reversed(messages) if message.get("role") == "user"), None)
    if isinstance(content, list):
        content = content[0].get("text") if content else None
    return not isinstance(content, str) or content.strip() in text


def _message(message: Mapping[str, Any]) -> Message:
    """The message with its content as one text."""
    if not isinstance(message, Mapping):
        raise TemplateError(f"a message is a {type(message).__name__}; a dict with 'role' and 'content' was expected")
    found = {key: value for key, value in message.items() if key != "tool_calls" or value}
    parts = found.get("content")
    if isinstance(parts, (list, tuple)):
        kinds = {part.get("type", "text") if isinstance(part, Mapping) else type(part).__name__ for part in parts}
        if kinds - {"text"}:
            raise TemplateError(
                f"a message has content of the type {min(kinds - {'text'})!r}; this model reads text only"
            )
        found["content"] = "\n".join(str(part.get("text", "")) for part in parts)
    return found


def _has_text(message: Message) -> bool:
    return isinstance(message.get("content"), str)


def _with_calls(message: Message, content: str | None, convert: Callable[[Any], Any]) -> Message:
    calls = message.get("tool_calls")
    if not calls:
        return message
    rebuilt = []
    for call in calls:
        call = dict(call)
        if isinstance(call.get("function"), Mapping):
            function = dict(call["function"])
            function["arguments"] = convert(function.get("arguments", {}))
            call["function"] = function
        rebuilt.append(call)
    return {**message, "content": message.get("content") or content, "tool_calls": rebuilt}


def _as_object(arguments: Any) -> Any:
    if isinstance(arguments, str):
        try:
            return json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return arguments
    return arguments


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


_INSTRUCTIONS = """You can call these functions:

{tools}

To call one, answer with nothing but a JSON object: {{"name": <function name>, "parameters": <arguments as an object>}}
Otherwise answer in plain text."""


def _with_instructions(messages: list[Message], tools: Sequence[Any]) -> list[Message]:
    """The tools explained in the first message of the system or the user."""
    text = _INSTRUCTIONS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    for index, message in enumerate(messages):
        if message.get("role") in ("system", "user") and _has_text(message):
            changed = {**message, "content": f"{text}\n\n{message['content']}"}
            return [*messages[:index], changed, *messages[index + 1 :]]
    return [{"role": "user", "content": text}, *messages]


def _as_words(message: Message) -> Message:
    """Calls and results of tools in words, for templates that have none for them."""
    if message.get("role") == "tool":
        return {"role": "user", "content": f"The function returned: {message.get('content')}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    lines = [message["content"]] if message.get("content") else []
    for call in calls:
        function = call.get("function", call)
        parameters = _as_object(function.get("arguments", {}))
        lines.append(json.dumps({"name": function.get("name"), "parameters": parameters}, ensure_ascii=False))
    return {"role": message.get("role", "assistant"), "content": "\n".join(lines)}
