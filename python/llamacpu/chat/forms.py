"""The forms in which chat templates expect a conversation.

Clients write conversations in one form; templates read several. This module yields those forms, the most common first;
the caller uses the first one that the template renders completely.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from llamacpu.chat.history import (
    Message,
    alternating,
    as_text,
    calls_apart,
    history,
    merged_system,
    objects_as_text,
    short_ids,
    single_calls,
    thoughts_apart,
    thoughts_as_parts,
    with_responses,
)
from llamacpu.chat.tool_calls import DECODER

# No template changes digits, whereas it may change the case of letters or strip white space.
_HALVES = re.compile("[\ud800-\udfff]")
_SENTINEL = "4{:04d}90817263"


class Form(NamedTuple):
    """A conversation in one form: the messages, the tools, and the names of the changes applied."""

    messages: list[Message]
    tools: list[Any]
    changes: tuple[str, ...] = ()


def forms(messages: Sequence[Any], tools: Sequence[Any], source: str) -> Iterator[Form]:
    """Yield the conversation in the forms that a template may expect.

    source: the template, or the words in it that show what it supports.

    The arguments of tool calls are given as an object first, then as JSON text, which some templates expect. A message
    that only calls a tool has empty content for most templates, null for some. A template without support for tools
    gets them as plain text. Then come changes for templates that do not support everything in the conversation, as few
    as possible: results that are objects as JSON text, ids of nine characters, one call per message, system messages
    merged into the user's, adjacent messages of one role merged, calls as plain text, and tools with all their keys.
    The last form gives content as a list of parts.
    """
    plain, offered = history(messages), [_tool(tool) for tool in tools]
    if "tool_calls" not in source:
        plain = _in_words(plain)
    if "tool_responses" in source and "tool_call_id" not in source:
        plain = with_responses(plain)
    if "<think>" not in source and ("to=self" in source or "<|channel|>" in source):
        plain = thoughts_apart(plain)
    if "reasoning_content" not in source and re.search(r"""== ?['"]thinking['"]""", source):
        plain = thoughts_as_parts(plain)
    if "end_turn" in source:
        plain = calls_apart(plain)
    if offered and not re.search(r"\btools\b", source):
        plain = _with_instructions(plain, offered)
    changes: dict[str, Callable[[Form], Form]] = {
        "objects": lambda form: form._replace(messages=objects_as_text(form.messages)),
        "ids": lambda form: form._replace(messages=short_ids(form.messages)),
        "single": lambda form: form._replace(messages=single_calls(form.messages)),
        "system": lambda form: form._replace(messages=merged_system(form.messages)),
        "tools": lambda form: form._replace(tools=[_complete(tool) for tool in form.tools]),
        "words": lambda form: form._replace(messages=_in_words(form.messages)),
        "alternating": lambda form: form._replace(messages=alternating(form.messages)),
    }
    first = Form(plain, offered)
    # Calls as plain text may leave adjacent messages of one role, so this change is always a candidate.
    able = [name for name, change in changes.items() if change(first) != first or name == "alternating"]
    if not offered and re.search(r"\btools\b", source):
        able.append("tools")  # an empty list, for templates that iterate over it without a check
    for count in range(len(able) + 1):
        for chosen in combinations(able, count):
            form = first
            for name in chosen:
                form = changes[name](form)
            if form == first and chosen and "tools" not in chosen:
                continue
            yield from _written(form._replace(changes=chosen))
    yield first._replace(
        messages=[{**m, "content": [{"type": "text", "text": m["content"]}]} if _has_text(m) else m for m in plain],
        changes=("parts",),
    )


def _written(form: Form) -> Iterator[Form]:
    if not any(message.get("tool_calls") for message in form.messages):
        yield form
        return
    for content in ("", None):
        for convert in (_as_object, _as_text):
            yield form._replace(messages=[_with_calls(message, content, convert) for message in form.messages])


def missing(form: Form, text: str, render: Callable[[Form], str]) -> set[str]:
    """Which of "system", "user", "calls", "results", "tools" and "text" a rendered prompt leaves out.

    "text" is the text of messages that call tools. A text that seems to be missing may only have been changed by the
    template, so the prompt is rendered again with digits in its place.
    """
    functions = [tool.get("function") for tool in form.tools if isinstance(tool, Mapping)]
    names = [function.get("name") for function in functions if isinstance(function, Mapping)]
    tools = set() if all(_is_in(str(name), text) for name in names if name) else {"tools"}
    found = _left_out(form.messages, text)
    if not found:
        return tools
    marked = []
    for place, message in enumerate(form.messages):
        shown = message.get("role") in ("system", "user", "tool") or message.get("tool_calls")
        shown = shown and message.get("content")
        marked.append({**message, "content": _SENTINEL.format(place)} if shown and _has_text(message) else message)
    if form.changes == ("parts",):
        return found | tools
    try:
        return tools | (found & _left_out(marked, render(form._replace(messages=marked))))
    except Exception:
        return found | tools


def _left_out(messages: Sequence[Message], text: str) -> set[str]:
    found: set[str] = set()
    kinds: dict[str, str | None] = {"system": "system", "user": "user", "tool": "results"}
    for message in messages:
        kind = kinds.get(str(message.get("role")))
        content = message.get("content")
        if not isinstance(content, str) and kind == "results":
            content = as_text(content)
        elif isinstance(content, list):
            content = content[0].get("text") if content else None
        kind = "text" if message.get("tool_calls") else kind
        if kind and isinstance(content, str) and not _is_in(content.strip(), text):
            found.add(kind)
        for call in message.get("tool_calls", ()):
            if not _is_in(str(call["function"].get("name", "")), text):
                found.add("calls")
    return found


def _is_in(content: str, text: str) -> bool:
    return content in text or any(json.dumps(content, ensure_ascii=escaped)[1:-1] in text for escaped in (False, True))


def _tool(tool: Any) -> Any:
    """The definition of a tool in OpenAI's format."""
    if isinstance(tool, Mapping) and "function" not in tool and "name" in tool:
        return {"type": "function", "function": dict(tool)}
    return tool


def _complete(tool: Any) -> Any:
    """The tool with its description and parameters filled in if they are absent."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        return tool
    parameters = function.get("parameters") or {}
    if isinstance(parameters, Mapping):
        parameters = {"type": "object", "properties": {}, "required": [], **parameters}
    described = {"description": "", **function}
    return {**tool, "type": "function", "function": {**described, "parameters": parameters}}


def _in_words(messages: Sequence[Message]) -> list[Message]:
    return [_as_words(message) for message in messages]


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
            value = DECODER.decode(arguments) if arguments.strip() else {}
            return {} if value is None else _whole(value)
        except (ValueError, RecursionError):
            return arguments
    return arguments


def _whole(value: Any) -> Any:
    """A JSON value with valid Unicode strings: unpaired surrogates, which models may write, become U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else _HALVES.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


_INSTRUCTIONS = """You can call these functions:

{tools}

To call one, answer with nothing but a JSON object: {{"name": <function name>, "parameters": <arguments as an object>}}
Otherwise answer in plain text."""


def _with_instructions(messages: list[Message], tools: Sequence[Any]) -> list[Message]:
    """The messages with the tools explained in the first system or user message."""
    text = _INSTRUCTIONS.format(tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    for index, message in enumerate(messages):
        if message.get("role") in ("system", "user") and _has_text(message):
            changed = {**message, "content": f"{text}\n\n{message['content']}"}
            return [*messages[:index], changed, *messages[index + 1 :]]
    return [{"role": "user", "content": text}, *messages]


def _as_words(message: Message) -> Message:
    """Tool calls and results as plain text, for templates that do not support them."""
    if message.get("role") == "tool":
        return {"role": "user", "content": f"The function returned: {as_text(message.get('content'))}"}
    calls = message.get("tool_calls")
    if not calls:
        return message
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(str(part["text"]) for part in content if part.get("type") == "text")
    lines = [content] if content else []
    for call in calls:
        function = call.get("function", call)
        parameters = _as_object(function.get("arguments", {}))
        lines.append(json.dumps({"name": function.get("name"), "parameters": parameters}, ensure_ascii=False))
    return {"role": message.get("role", "assistant"), "content": "\n".join(lines)}
