"""Messages and tools as Ollama's templates see them: the structs of its API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.chat.go_template.values import JsonList, JsonMap, Record
from llamacpu.chat.tool_calls import DECODER
from llamacpu.chat.traced import Traced, has_data

__all__ = ["message_of", "messages_of", "tools_of"]


def messages_of(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The fields of each message; values that are not strings become empty, so callers pass content as JSON text."""
    return [
        {
            "Role": _text(one.get("role")),
            "Content": _text(one.get("content")),
            "Thinking": _text(one.get("reasoning_content")),
            "Images": [],
            "ToolCalls": [_call(call, place) for place, call in enumerate(one.get("tool_calls") or ())],
            "ToolName": _text(one.get("tool_name") or one.get("name")),
            "ToolCallID": _text(one.get("tool_call_id")),
        }
        for one in messages
    ]


def message_of(fields: Mapping[str, Any]) -> Record:
    """A message as the struct of Ollama's API, from its fields."""
    layout = (
        ("role", "Role", False), ("content", "Content", False), ("thinking", "Thinking", True),
        ("images", "Images", True), ("tool_calls", "ToolCalls", True), ("tool_name", "ToolName", True),
        ("tool_call_id", "ToolCallID", True),
    )  # fmt: skip
    return Record("Message", fields, layout)


def tools_of(tools: Sequence[Any]) -> JsonList:
    """The available tools as the structs of Ollama's API."""
    found = JsonList()
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict):
            fields = {"Type": _text(tool.get("type") or "function"), "Function": _function(function)}
            layout = (("type", "Type", False), ("function", "Function", False))
            found.append(Record("Tool", fields, layout, json=True))
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _marked(value: Any) -> Any:
    """The value with all strings marked as the caller's data."""
    if isinstance(value, dict):
        return {_marked(key): _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    return Traced(value) if isinstance(value, str) else value


def _call(call: Any, place: int) -> Record:
    function = call.get("function") if isinstance(call, dict) else None
    function = function if isinstance(function, dict) else {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = DECODER.decode(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            arguments = {"arguments": arguments}
        arguments = _marked(arguments) if has_data(call["function"]["arguments"]) else arguments
    fields = {
        "Index": place,
        "Name": _text(function.get("name")),
        "Arguments": JsonMap(arguments if isinstance(arguments, dict) else {}),
    }
    layout = (("index", "Index", False), ("name", "Name", False), ("arguments", "Arguments", False))
    named = {"ID": _text(call.get("id")), "Function": Record("ToolCallFunction", fields, layout)}
    return Record("ToolCall", named, (("id", "ID", True), ("function", "Function", False)))


_FUNCTION = (("name", "Name"), ("description", "Description"), ("parameters", "Parameters"))
_PARAMETERS = (
    ("type", "Type"), ("$defs", "Defs"), ("items", "Items"), ("required", "Required"), ("properties", "Properties"),
)  # fmt: skip
_PROPERTY = (
    ("anyOf", "AnyOf"), ("type", "Type"), ("items", "Items"), ("description", "Description"), ("enum", "Enum"),
    ("properties", "Properties"), ("required", "Required"),
)  # fmt: skip


def _record(
    kind: str, given: Mapping[str, Any], known: Sequence[tuple[str, str]], changed: Mapping[str, Any],
    always: Sequence[str],
) -> Record:  # fmt: skip
    """A struct from a JSON object: the API's fields in its order, then other keys, which appear only in the JSON."""
    fields: dict[str, Any] = {field: given.get(name) for name, field in known}
    fields.update(changed)
    layout = [(name, field, name not in always) for name, field in known]
    for name in given:
        if name not in dict(known):
            fields[f" {name}"] = given[name]
            layout.append((name, f" {name}", False))
    return Record(kind, fields, layout, json=True)


def _function(given: Mapping[str, Any]) -> Record:
    parameters = given.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    properties = parameters.get("properties")
    inner = {
        "Type": _text(parameters.get("type")) or "object",
        "Required": list(parameters.get("required") or ()),
        "Properties": _properties(properties),
    }
    record = _record("ToolFunctionParameters", parameters, _PARAMETERS, inner, ("type", "properties"))
    changed = {"Name": _text(given.get("name")), "Description": _text(given.get("description")), "Parameters": record}
    return _record("ToolFunction", given, _FUNCTION, changed, ("name", "description", "parameters"))


def _properties(given: Any) -> JsonMap:
    return JsonMap({name: _property(one) for name, one in given.items()} if isinstance(given, dict) else {})


def _property(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    changed: dict[str, Any] = {
        "Description": _text(given.get("description")),
        "Type": given.get("type") or "",
        "AnyOf": [_property(one) for one in given.get("anyOf") or ()],
        "Enum": given.get("enum") or [],
    }
    if isinstance(given.get("properties"), dict):
        changed["Properties"] = _properties(given["properties"])
    return _record("ToolProperty", given, _PROPERTY, changed, ())
