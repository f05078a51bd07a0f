"""Functions rendered as the type definitions that the functionary models were trained to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.errors import TemplateError

DEEPEST = 64


def definitions(functions: Sequence[Mapping[str, Any]], indent: str = "") -> str:
    """The type definitions of functions in one namespace; `indent` precedes the lines of each.

    Raises TemplateError for parameters nested more than `DEEPEST` levels deep.
    """
    lines = ["// Supported function definitions that should be called when necessary.", "namespace functions {", ""]
    shared: dict[str, Any] = {}
    for function in functions:
        shared.update((function.get("parameters") or {}).get("$defs") or {})
    lines += [f"  type {name} = {_type(schema, 1)};" for name, schema in shared.items()]
    for function in functions:
        parameters = function.get("parameters") or {}
        required = parameters.get("required") or ()
        lines += [f"{indent}// {function.get('description') or ''}", f"{indent}type {function['name']} = (_: {{"]
        for name, schema in (parameters.get("properties") or {}).items():
            schema = schema if isinstance(schema, Mapping) else {}
            mark = "" if name in required else "?"
            lines.append(f"{2 * indent}// {schema.get('description') or ''}")
            lines.append(f"{2 * indent}{name}{mark}: {_type(schema, 2)},")
        lines += [f"{indent}}}) => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def _type(schema: Any, level: int) -> str:
    """The type of a value, with its inner lines indented by `level` steps."""
    if level > DEEPEST:
        raise TemplateError(f"a tool's parameters are nested more than {DEEPEST} levels deep")
    if not isinstance(schema, Mapping):
        return "any"
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = schema.get("type", "any")
    if kind == "array":
        return f"Array<{_type(schema.get('items') or {}, level + 1)}>"
    if kind == "object":
        space = "  " * level
        inner = [f"{space}  {name}: {_type(s, level + 1)},\n" for name, s in (schema.get("properties") or {}).items()]
        return "{\n" + "".join(inner) + space + "}"
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    return " | ".join(kind) if isinstance(kind, list) else str(kind)
