"""The functions in tool definitions, and the schemas of their arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacpu.constraints.schema_references import resolved
from llamacpu.errors import GrammarError

__all__ = ["for_objects", "function_of", "parameters_of"]

_MANY_FORMS = frozenset(("$ref", "allOf", "anyOf", "oneOf"))


def function_of(tool: Any) -> Mapping[str, Any]:
    """The function in a tool definition. Raises GrammarError if there is none with a usable name."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if function is None or not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise GrammarError(f"a tool has the name {name!r}; expected a text of letters, digits, '_' and '-'")
    return function  # type: ignore[no-any-return]


def for_objects(schema: dict[str, Any], name: str) -> dict[str, Any]:
    """The schema of a function's arguments, restricted to objects. Raises GrammarError if it excludes them."""
    types = schema.get("type", "object")
    if "object" not in (types if isinstance(types, list) else [types]):
        raise GrammarError(f"the parameters of the tool {name} have the type {types!r}; expected 'object'")
    return {**schema, "type": "object"}


def parameters_of(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments: that of the definition if it is strict, otherwise that of any object."""
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict") is not True:
        return {"type": "object"}
    name = function["name"]
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        # This is how pydantic writes a model that contains itself: the root is one of its definitions.
        target = resolved(schema, schema["$ref"])
        if isinstance(target, dict):
            schema = {**{key: value for key, value in schema.items() if key != "$ref"}, **target}
    if not isinstance(schema, dict) or schema.get("type", "object") != "object" or _MANY_FORMS & set(schema):
        raise GrammarError(f"the parameters of the strict tool {name} are no plain object; expected type 'object'")
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or not set(required) <= set(properties):
        raise GrammarError(f"the strict tool {name} requires arguments that its properties do not name")
    return {**schema, "type": "object", "properties": properties}
