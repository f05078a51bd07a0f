"""JSON Schema keywords that are expanded into cases: a schema with `anyOf`, each case with plain keywords.

Each rule changes a schema in place; it returns False if it does not apply or there would be too many cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf
from typing import Any

__all__ = [
    "both",
    "contains",
    "dependent_schemas",
    "evaluated",
    "if_there",
    "not_all_of",
    "one_of_them",
    "only_contained",
    "same",
    "values_of",
]

Schema = dict[str, Any]

# Limits of the rules that write out every case.
_MOST_ITEMS = 6
_MOST_DEPENDENT = 3
# Keywords that stay in place when a schema is split into cases.
_KEPT = frozenset(("$anchor", "$defs", "$id", "$schema", "definitions"))
_OF_PROPERTIES = frozenset(("description", "properties", "required", "title"))
_LISTING = frozenset(("const", "description", "enum", "title"))
_LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_OF_NUMBERS = frozenset(("description", "multipleOf", "title", "type", *_LIMITS))
# Keywords that say nothing about properties, and those through which other schemas name some.
_PLAIN = frozenset(
    ("$comment", "$defs", "default", "definitions", "description", "examples", "required", "title", "type")
)


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def values_of(schema: Any) -> list[Any] | None:
    """All values that a schema allows; None if it does not list them."""
    if not isinstance(schema, dict):
        return None
    if "const" in schema:
        return [schema["const"]]
    if isinstance(schema.get("enum"), list):
        return list(schema["enum"])
    return [False, True] if schema.get("type") == "boolean" else None


def both(base: Schema, key: str, value: Any, part: Schema) -> Schema:
    """An object schema with one property narrowed, and what another schema says about properties added."""
    properties = {**base.get("properties", {}), key: value}
    for name, more in part.get("properties", {}).items():
        properties[name] = {"allOf": [properties[name], more]} if name in properties and name != key else more
    properties[key] = value
    required = dict.fromkeys([*base.get("required", ()), key, *part.get("required", ())])
    return {**base, "properties": properties, "required": list(required)}


def _apart(schema: Schema, *keywords: str) -> Schema:
    """Remove from a schema what all of its cases share, and return it without these keywords."""
    base = {name: schema.pop(name) for name in list(schema) if name not in _KEPT}
    return {name: value for name, value in base.items() if name not in keywords}


def _absent(base: Schema, key: str) -> Schema:
    return {**base, "properties": {**base.get("properties", {}), key: False}}


def _present(base: Schema, key: str, part: Schema) -> Schema:
    return both(base, key, base.get("properties", {}).get(key, True), part)


def _possible(forms: Iterable[Schema]) -> list[Schema]:
    """The cases in which no property is both required and forbidden."""
    return [
        form
        for form in forms
        if not any(form.get("properties", {}).get(name) is False for name in form.get("required", ()))
    ]


def _is_of_properties(part: Any) -> bool:
    return isinstance(part, dict) and set(part) - {"type"} <= _OF_PROPERTIES and part.get("type") in (None, "object")


def contains(schema: Schema) -> bool:
    """`contains` for a short list: the first item matches, or the second, and so on."""
    least, most = schema.get("minContains", 1), schema.get("maxItems")
    if "maxContains" in schema or least not in (0, 1):
        return False
    if least == 0:
        for keyword in ("contains", "minContains"):
            schema.pop(keyword, None)
        return True
    taken = {"anyOf", "oneOf", "prefixItems", "uniqueItems"} & set(schema)
    if schema.get("type") != "array" or not isinstance(most, int) or most > _MOST_ITEMS or taken:
        return False
    wanted = schema["contains"]
    base = _apart(schema, "contains", "minContains")
    items = base.get("items", True)
    wanted = {"allOf": [items, wanted]} if isinstance(items, dict) else wanted
    schema["anyOf"] = [
        {**base, "prefixItems": [*[items] * place, wanted], "minItems": max(base.get("minItems", 0), place + 1)}
        for place in range(most)
    ]
    return True


def only_contained(schema: Schema) -> bool:
    """A list in which only `contains` allows items: each of them matches its schema."""
    others = {"$ref", "additionalItems", "allOf", "anyOf", "if", "items", "oneOf", "prefixItems"} & set(schema)
    if schema["unevaluatedItems"] is not False or schema.get("type") != "array" or others:
        return False
    del schema["unevaluatedItems"]
    schema["items"] = schema.pop("contains")
    schema["minItems"] = max(schema.get("minItems", 0), schema.pop("minContains", 1))
    if "maxContains" in schema:
        most = schema.pop("maxContains")
        schema["maxItems"] = min(schema.get("maxItems", most), most)
    return True


def dependent_schemas(schema: Schema) -> bool:
    """`dependentSchemas`: what else must hold where a property is present."""
    needs = schema["dependentSchemas"]
    if not isinstance(needs, dict) or len(needs) > _MOST_DEPENDENT or "anyOf" in schema:
        return False
    if not all(_is_of_properties(part) for part in needs.values()):
        return False
    forms = [_apart(schema, "dependentSchemas")]
    for key, part in needs.items():
        without = [_absent(form, key) for form in forms if key not in form.get("required", ())]
        forms = _possible([*(_present(form, key, part) for form in forms), *without])
    schema["anyOf"] = forms
    return True


def if_there(schema: Schema, then: Schema, otherwise: Schema) -> bool:
    """`if` that tests whether a property is present."""
    names = schema["if"].get("required")
    if set(schema["if"]) != {"required"} or not isinstance(names, list) or len(names) != 1 or "anyOf" in schema:
        return False
    (key,) = names
    base = _apart(schema, "if", "then", "else")
    without = both(base, key, False, otherwise)
    without["required"] = [name for name in without["required"] if name != key or name in base.get("required", ())]
    schema["anyOf"] = _possible([_present(base, key, then), without])
    return True


def not_all_of(schema: Schema, names: list[str]) -> bool:
    """`not` with several required properties: one of them is absent."""
    if "anyOf" in schema:
        return False
    base = _apart(schema, "not")
    schema["anyOf"] = _possible(_absent(base, name) for name in names)
    return True


def one_of_them(schema: Schema) -> bool:
    """`oneOf` of listed values, of disjoint ranges of numbers, or of schemas that each require one property.

    In the last case, the other properties are absent. Any other `oneOf` stays as it is.
    """
    parts = schema["oneOf"]
    if not isinstance(parts, list) or "anyOf" in schema:
        return True
    lists = [values_of(part) for part in parts if set(part if isinstance(part, dict) else ("",)) <= _LISTING]
    if len(lists) == len(parts) and not {"const", "enum"} & set(schema) and all(found is not None for found in lists):
        every = [[*_different(found or ())] for found in lists]
        allowed = [value for found in every for value in found if _count(value, every) == 1]
        del schema["oneOf"]
        schema["enum"] = allowed
        return True
    if _are_apart(parts):
        schema["anyOf"] = schema.pop("oneOf")
        return True
    names = [part["required"] for part in parts if isinstance(part, dict) and set(part) == {"required"}]
    if len(names) != len(parts) or not all(isinstance(name, list) and len(name) == 1 for name in names):
        return True
    base = _apart(schema, "oneOf")
    keys = [name for (name,) in names]
    forms = []
    for key in keys:
        form = _present(base, key, {})
        for other in keys:
            form = form if other == key else _absent(form, other)
        forms.append(form)
    schema["anyOf"] = _possible(forms)
    return True


def _different(values: Iterable[Any]) -> Iterator[Any]:
    seen: list[Any] = []
    for value in values:
        if not any(same(value, other) for other in seen):
            seen.append(value)
            yield value


def _count(value: Any, lists: Iterable[Iterable[Any]]) -> int:
    return sum(any(same(value, other) for other in found) for found in lists)


def _are_apart(parts: list[Any]) -> bool:
    """Whether the schemas are pairwise disjoint ranges of numbers."""
    ranges = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") not in ("integer", "number") or set(part) - _OF_NUMBERS:
            return False
        limits = [part.get(name) for name in _LIMITS]
        if any(isinstance(limit, bool) for limit in limits):
            return False
        # An inclusive limit is itself the least or greatest value; an exclusive one is just outside.
        least, above, most, below = limits
        lows = [(least, 0)] * (least is not None) + [(above, 1)] * (above is not None)
        highs = [(most, 0)] * (most is not None) + [(below, -1)] * (below is not None)
        ranges.append((max(lows, default=(-inf, 0)), min(highs, default=(inf, 0))))
    ranges.sort()
    return all(high < low for (_, high), (low, _) in pairwise(ranges))


def evaluated(schema: Any, resolve: Any, seen: frozenset[str] = frozenset()) -> set[str] | None:
    """The properties named by a schema and those it combines with; None where others may be allowed."""
    if schema is True:
        return set()
    if not isinstance(schema, dict) or set(schema) - _PLAIN - {"$ref", "allOf", "properties", "unevaluatedProperties"}:
        return None
    found = set(schema.get("properties", ()))
    parts = list(schema.get("allOf", ()))
    reference = schema.get("$ref")
    if reference is not None:
        if reference in seen:
            return None
        seen, parts = seen | {reference}, [*parts, resolve(reference)]
    for part in parts:
        more = evaluated(part, resolve, seen)
        if more is None:
            return None
        found |= more
    return found
