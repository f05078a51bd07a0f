"""JSON Schema keywords that the grammar compiler lacks, expressed with those it has where that is exact.

Each rule works on one schema, without its subschemas.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

from llamacpu.constraints.schema_cases import (
    contains,
    dependent_schemas,
    evaluated,
    one_of_them,
    only_contained,
    values_of,
)
from llamacpu.constraints.schema_conditions import conditional, dependencies, dependent_required, negated, without_if
from llamacpu.constraints.schema_references import resolved

__all__ = ["ENFORCED_FORMATS", "may_repeat", "rewritten"]

Schema = dict[str, Any]

# The formats that are enforced; every other one is an annotation (JSON Schema Validation 2020-12, section 7.2.1).
ENFORCED_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid")
)
# Limit of a rule that writes out every case.
_MOST_UNIQUE = 4


def rewritten(schema: Schema, root: Schema) -> tuple[Schema, list[str]]:
    """The schema in keywords that the compiler has, and the keywords left out; `root` is the whole schema."""
    found, notes = dict(schema), []
    if found.get("unevaluatedProperties") is False and {"$ref", "allOf"} & set(found):
        names = evaluated(found, partial(resolved, root))
        if names is not None:
            del found["unevaluatedProperties"]
            found["properties"] = {**dict.fromkeys(sorted(names), True), **found.get("properties", {})}
            found["additionalProperties"] = False
    if "contains" in found and found.get("unevaluatedItems", True) is not True and not only_contained(found):
        # The two keywords apply to disjoint sets of items.
        del found["unevaluatedItems"]
        notes.append("unevaluatedItems")
    for keyword, rule in _RULES.items():
        if keyword in found and not rule(found):
            del found[keyword]
            notes.append(keyword)
    return found, notes


def may_repeat(schema: Schema) -> bool:
    """Whether `minProperties` can be met by a repeated key, which the compiler does not prevent.

    It prevents repetition of named keys, and a single key besides those has no other that it could repeat. Where a
    named key may be absent, it rejects `minProperties` altogether.
    """
    least, required, named = (schema.get(key, ()) for key in ("minProperties", "required", "properties"))
    return isinstance(least, int) and set(named) <= set(required) and least > len(set(required)) + 1


# Each rule changes the schema in place so that the keyword is gone or can stay; it returns False if it cannot.


def _format(schema: Schema) -> bool:
    if schema["format"] not in ENFORCED_FORMATS:
        del schema["format"]
    return True


def _unique_items(schema: Schema) -> bool:
    if schema.pop("uniqueItems") is not True:
        return True
    items = schema.get("items")
    most, least = schema.get("maxItems"), schema.get("minItems", 0)
    if most in (0, 1):
        return True
    firsts = [values_of(one) for one in schema.get("prefixItems", ())]
    if firsts and items is False and all(one is not None and len(one) == 1 for one in firsts):
        # Each of these items has one fixed value.
        alone = [json.dumps(one, sort_keys=True) for one in firsts]
        if len(set(alone)) == len(alone):
            return True
    values = values_of(items)
    if isinstance(values, list) and len(values) <= _MOST_UNIQUE and not {"anyOf", "prefixItems"} & set(schema):
        longest = min(len(values), most if isinstance(most, int) else len(values))
        lists = [list(row) for size in range(least, longest + 1) for row in permutations(values, size)]
        others = {key: value for key, value in schema.items() if key not in ("items", "minItems", "maxItems", "type")}
        types = schema.get("type", "array")
        schema.clear()
        schema.update(others)
        if types == "array":
            schema["enum"] = lists
            return True
        schema.update({"type": types, "items": items})
    schema["uniqueItems"] = True
    return False


def _property_names(schema: Schema) -> bool:
    names = schema["propertyNames"]
    if names in (True, {}) or names == {"type": "string"}:
        del schema["propertyNames"]
        return True
    if not isinstance(names, dict) or {"properties", "patternProperties"} & set(schema):
        return False
    constraints = {key: value for key, value in names.items() if key not in ("type", "title", "description")}
    value = schema.get("additionalProperties", True)
    if set(constraints) in ({"enum"}, {"const"}):
        allowed = constraints.get("enum", [constraints.get("const")])
        if not isinstance(allowed, list):
            return False
        schema["properties"] = {name: value for name in allowed if isinstance(name, str)}
    elif set(constraints) == {"pattern"}:
        schema["patternProperties"] = {constraints["pattern"]: value}
    elif constraints and set(constraints) <= {"minLength", "maxLength"}:
        least, most = constraints.get("minLength", 0), constraints.get("maxLength", "")
        schema["patternProperties"] = {f"^(?s:.){{{least},{most}}}$": value}
    else:
        return False
    schema["additionalProperties"] = False
    del schema["propertyNames"]
    return True


def _without_contains(keyword: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        if "contains" in schema:
            return False
        del schema[keyword]
        return True

    return rule


def _unevaluated_properties(schema: Schema) -> bool:
    if schema["unevaluatedProperties"] is True:
        del schema["unevaluatedProperties"]
        return True
    if {"$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas"} & set(schema):
        return False
    schema.setdefault("additionalProperties", schema.pop("unevaluatedProperties"))
    return True


def _unevaluated_items(schema: Schema) -> bool:
    if schema["unevaluatedItems"] is True:
        del schema["unevaluatedItems"]
        return True
    if {"$ref", "allOf", "anyOf", "oneOf", "if", "contains"} & set(schema):
        return False
    schema.setdefault("items", schema.pop("unevaluatedItems"))
    return True


def _exclusive(exclusive: str, inclusive: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        """In draft 4, this is true or false next to the limit."""
        if isinstance(schema[exclusive], bool) and schema.pop(exclusive) and inclusive in schema:
            schema[exclusive] = schema.pop(inclusive)
        return True

    return rule


def _recursive_reference(keyword: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        if schema[keyword] != "#" or "$ref" in schema:
            return False
        schema["$ref"] = schema.pop(keyword)
        return True

    return rule


def _pattern(schema: Schema) -> bool:
    """Python's `\\Z` is the compiler's `\\z`."""
    if isinstance(schema["pattern"], str):
        schema["pattern"] = re.sub(r"(?<!\\)((?:\\\\)*)\\Z", r"\1\\z", schema["pattern"])
    return True


_RULES: dict[str, Callable[[Schema], bool]] = {
    "format": _format,
    "pattern": _pattern,
    "uniqueItems": _unique_items,
    "propertyNames": _property_names,
    "not": negated,
    "if": conditional,
    "then": without_if("then"),
    "else": without_if("else"),
    "contains": contains,
    "minContains": _without_contains("minContains"),
    "maxContains": _without_contains("maxContains"),
    "dependencies": dependencies,
    "dependentRequired": dependent_required,
    "dependentSchemas": dependent_schemas,
    "oneOf": one_of_them,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
    "exclusiveMinimum": _exclusive("exclusiveMinimum", "minimum"),
    "exclusiveMaximum": _exclusive("exclusiveMaximum", "maximum"),
    "$dynamicRef": _recursive_reference("$dynamicRef"),
    "$recursiveRef": _recursive_reference("$recursiveRef"),
}
