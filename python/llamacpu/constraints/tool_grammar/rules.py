"""Rules for calls in JSON and in Python notation, and the choice of the rules that a grammar needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.constraints.compiler import schema_text
from llamacpu.constraints.grammar_texts import as_regex, quoted
from llamacpu.constraints.json_schema import member

__all__ = ["COMMON", "OPENINGS", "SPACE", "json_rules", "needed", "python_rules", "value_rules"]

# The name under which a schema refers to itself where one of its properties is used alone.
_ROOT = "parameters"
SPACE = r"( |\n {0,8})?"
# The lexer takes the longest token that is allowed, and text that is not a call is one of them: what distinguishes a
# call from text must be one token from its first letter on.
OPENINGS = {"NAME": "name", "KEY": "(parameters|arguments)", "TYPE": "type", "FUNCTION": "function"}
COMMON = r"""
ws: SPACE?
SPACE: / |\n {0,8}/
colon: ws ":" ws
comma: ws "," ws
WORD_NAME: "\"name\""
WORD_FUNCTION: "\"function\""
words: "\"parameters\"" | "\"arguments\""
keyword: KEYWORD "=" any
KEYWORD: /[A-Za-z_][A-Za-z_0-9]{0,40}/
any: %json {}
"""
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|/(?:[^/\\]|\\.)*/|([A-Za-z_][A-Za-z_0-9]*)')


def json_rules(number: int, name: str, schema: Mapping[str, Any]) -> list[str]:
    """The rules of one function: its arguments in JSON, and calls around them."""
    written, body = quoted(quoted(name)), f"body_{number}"
    first, then = (
        f"colon {written} comma words colon arguments_{number}",
        f"colon arguments_{number} comma WORD_NAME colon {written}",
    )
    inner = f'"{{" ws {body} ws "}}"'
    return [
        f"arguments_{number}: %json {schema_text(schema, strict=True)}",
        f"{body}: WORD_NAME {first} | words {then}",
        f'name_{number}: {first} ws "}}"',
        f'key_{number}: {then} ws "}}"',
        f'type_{number}: colon WORD_FUNCTION comma ({body} | WORD_FUNCTION colon {inner}) ws "}}"',
        f'function_{number}: colon {inner} ws "}}"',
    ]


def value_rules(number: int, schema: Mapping[str, Any], strict: bool = True) -> list[str]:
    """The rules of the single arguments of a function in JSON, in the schema's order."""
    return [
        f"value_{number}_{place}: %json {schema_text(member(schema, key, _ROOT), strict=strict)}"
        for place, key in enumerate(schema.get("properties") or ())
    ]


def python_rules(number: int, name: str, schema: Mapping[str, Any]) -> list[str]:
    """The rules of a function's calls in Python's notation, with values in JSON's; they use those of `value_rules`."""
    found = [
        f'python_{number}: {quoted(name)} ".call"? "(" keywords_{number}',
        f"PYTHON_{number}: /\\[{SPACE}{as_regex(name)}(\\.call)?\\(/",
        f'keywords_{number}: ws keywords_{number}_0_first ws ")"',
    ]
    properties = schema.get("properties")
    if properties is None:
        return [*found, f"keywords_{number}_0_first: (keyword (comma keyword)*)?"]
    # In the schema's order; arguments that are not required may be left out. All but the first follow a comma.
    required = schema.get("required", ())
    for place, key in enumerate(properties):
        found.append(f'keyword_{number}_{place}: {quoted(key)} "=" value_{number}_{place}')
        now, then = f"keywords_{number}_{place}", f"keywords_{number}_{place + 1}"
        for position, before in (("first", ""), ("later", "comma ")):
            rule = f"{now}_{position}: {before}keyword_{number}_{place} {then}_later"
            found.append(rule if key in required else f"{rule} | {then}_{position}")
    end = len(properties)
    return [*found, f'keywords_{number}_{end}_first: ""', f'keywords_{number}_{end}_later: ""']


def needed(start: str, rules: Iterable[str]) -> list[str]:
    """The rules that can be reached from the body of a rule, in their order."""
    bodies: dict[str, list[str]] = {}
    for rule in rules:
        bodies.setdefault(rule.partition(":")[0], []).append(rule)
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        for found in _PARTS.finditer(waiting.pop()):
            name = found[1]
            if name in bodies and name not in reached:
                reached.add(name)
                waiting += (rule.partition(":")[2] for rule in bodies[name])
    return [rule for name, written in bodies.items() if name in reached for rule in written]
