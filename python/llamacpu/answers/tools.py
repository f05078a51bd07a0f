"""Turns the tools and the response format of a request into grammars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.json_schema import as_resource, prepared

__all__ = [
    "any_strict",
    "grammar_of_format",
    "grammar_of_tools",
    "tool_names",
    "tool_schemas",
    "tools_of",
    "wanted_tool",
]


def tools_of(functions: Sequence[Any] | None, tools: Sequence[Any] | None) -> list[Any] | None:
    """The tools of a request, or None if there are none; `functions` is their older form."""
    if tools:
        return list(tools)
    return [{"type": "function", "function": function} for function in functions] if functions else None


def tool_names(tools: Sequence[Any] | None) -> list[str]:
    """The names of the functions in tool definitions."""
    return [*tool_schemas(tools)]


def tool_schemas(tools: Sequence[Any] | None) -> dict[str, Any]:
    """The argument schemas of the functions in tool definitions, by function name."""
    inner = [tool.get("function", tool) for tool in tools or () if isinstance(tool, Mapping)]
    named = [function for function in inner if isinstance(function, Mapping) and "name" in function]
    return {function["name"]: function.get("parameters") for function in named}


def any_strict(tools: Sequence[Any]) -> bool:
    """Whether any of the tools requires arguments that are guaranteed to be valid (`"strict": true`)."""
    from llamacpu.constraints.tool_definitions import function_of

    return any(function_of(tool).get("strict") is True for tool in tools)


def wanted_tool(choice: Any) -> str | None:
    """The name of the one function that must be called, or None. Raises ValueError for an invalid tool choice."""
    if choice is None or (isinstance(choice, str) and choice in ("any", "auto", "none", "required")):
        return None
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, Mapping):
        raise ValueError(f"tool_choice is {choice!r}; expected 'none', 'auto', 'required' or a function's name")
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"tool_choice is {choice!r}; expected 'none', 'auto', 'required' or a function's name")
    return name


def grammar_of_tools(tools: Sequence[Any], only: str | None) -> Grammar:
    """The grammar of a single tool call in JSON, with arguments that are valid under the tool's schema.

    only: the name of the function to call; None allows any. Raises ValueError if no tool matches.
    """
    from llamacpu.constraints.tool_definitions import for_objects, function_of

    forms = []
    for number, tool in enumerate(tools):
        function = function_of(tool)
        if only in (None, function["name"]):
            parameters = for_objects(
                prepared(_parameters_of(function), function.get("strict") is True), function["name"]
            )
            # References in the parameters are resolved within them.
            own = as_resource(parameters, f"tool-{number}")
            properties = {"name": {"const": function["name"]}, "parameters": own}
            form = {"type": "object", "properties": properties, "required": ["name", "parameters"]}
            forms.append({**form, "additionalProperties": False})
    if not forms:
        raise ValueError(f"tool_choice names {only!r}; expected one of {', '.join(tool_names(tools)) or 'no tools'}")
    return Grammar.json_schema({"anyOf": forms})


def _parameters_of(function: Mapping[str, Any]) -> Any:
    """The schema of a function's arguments; a function without a schema takes none."""
    parameters = function.get("parameters")
    return {"type": "object", "properties": {}} if parameters is None else parameters


def grammar_of_format(response_format: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar that a response format requires, or None if it allows any text.

    Raises ValueError for an invalid response format.
    """
    if response_format is None:
        return None
    if not isinstance(response_format, Mapping):
        raise ValueError(f"response_format is {response_format!r}; expected a dict such as {{'type': 'json_object'}}")
    if response_format.get("type") in (None, "text"):
        return None
    kind = response_format["type"]
    if kind == "json_object":
        schema = response_format.get("schema")
        return Grammar.any_json() if schema is None else Grammar.json_schema(schema)
    if kind == "json_schema":
        inner = response_format.get("json_schema")
        given = inner if isinstance(inner, Mapping) else response_format
        if given.get("schema") is None:
            raise ValueError("response_format has the type json_schema and no schema; expected json_schema.schema")
        return Grammar.json_schema(given["schema"], strict=given.get("strict") is True)
    raise ValueError(f"response_format has the type {kind!r}; expected text, json_object or json_schema")
