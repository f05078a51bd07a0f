"""Keywords of JSON Schema that the grammar compiler lacks, written with those that it has where that is exact.

Each rule works on one schema, without the schemas inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from itertools import permutations, product
from typing import Any

from llamacpu.constraints.schema_cases import (
    both,
    contains,
    dependent_schemas,
    evaluated,
    if_there,
    not_all_of,
    one_of_them,
    only_contained,
    same,
    values_of,
)

__all__ = ["ENFORCED_FORMATS", "may_repeat", "pointer", "resolved", "rewritten"]

Schema = dict[str, Any]

# The formats that are enforced; every other one is an annotation (JSON Schema Validation 2020-12, section 7.2.1).
ENFORCED_FORMATS = frozenset(
    ("date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid")
)
_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
# A rule that writes out every case stops here.
_MOST_UNIQUE = 4
_MOST_DEPENDENT = 4


def pointer(name: str) -> str:
    """A name as a step of a JSON pointer in a reference (RFC 6901, sections 3 and 6)."""
    escaped = name.replace("~", "~0").replace("/", "~1")
    return "".join(letter if letter.isalnum() or letter in "-._~$" else _percent(letter) for letter in escaped)


def _percent(letter: str) -> str:
    return "".join(f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogatepass"))


def resolved(root: Schema, reference: str) -> Any:
    """The schema that a local reference names; None where there is none."""
    from urllib.parse import unquote

    found: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found


def rewritten(schema: Schema, root: Schema) -> tuple[Schema, list[str]]:
    """The schema in keywords that the compiler has, and the keywords that it had to leave out; `root` is all of it."""
    found, notes = dict(schema), []
    if found.get("unevaluatedProperties") is False and {"$ref", "allOf"} & set(found):
        names = evaluated(found, partial(resolved, root))
        if names is not None:
            del found["unevaluatedProperties"]
            found["properties"] = {**dict.fromkeys(sorted(names), True), **found.get("properties", {})}
            found["additionalProperties"] = False
    if "contains" in found and found.get("unevaluatedItems", True) is not True and not only_contained(found):
        # Items that the one looks at are none that the other looks at.
        del found["unevaluatedItems"]
        notes.append("unevaluatedItems")
    for keyword, rule in _RULES.items():
        if keyword in found and not rule(found):
            del found[keyword]
            notes.append(keyword)
    return found, notes


def may_repeat(schema: Schema) -> bool:
    """Whether `minProperties` can be met by a key that is written twice, which the compiler does not prevent.

    It prevents that for keys that are named, and one key beside those has no other that it could repeat. Where a named
    key may be absent it refuses `minProperties` altogether.
    """
    least, required, named = (schema.get(key, ()) for key in ("minProperties", "required", "properties"))
    return isinstance(least, int) and set(named) <= set(required) and least > len(set(required)) + 1


# Each rule changes the schema in place so that the keyword is gone or can stay; False where that is impossible.


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
        # These items are what they are.
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


def _not(schema: Schema) -> bool:
    forbidden = schema["not"]
    if forbidden is False:
        del schema["not"]
        return True
    if forbidden is True or forbidden == {}:
        schema.clear()
        schema["enum"] = []
        return True
    if not isinstance(forbidden, dict):
        return False
    values = forbidden.get("enum", [forbidden["const"]] if "const" in forbidden else None)
    several = forbidden.get("anyOf")
    if set(forbidden) == {"anyOf"} and isinstance(several, list) and all(
        isinstance(one, dict) and set(one) == {"type"} and isinstance(one["type"], str) for one in several
    ):  # fmt: skip
        forbidden = {"type": [one["type"] for one in several]}
    if set(forbidden) == {"type"}:
        types = forbidden["type"] if isinstance(forbidden["type"], list) else [forbidden["type"]]
        given = schema.get("type", [kind for kind in _TYPES if kind != "integer" or "number" in types])
        given = given if isinstance(given, list) else [given]
        if "integer" in types and "number" not in types and "number" in given:
            return False
        schema["type"] = [kind for kind in given if kind not in types and (kind, "number") != ("integer", *types)]
    elif set(forbidden) in ({"enum"}, {"const"}) and isinstance(values, list) and (domain := values_of(schema)):
        schema["enum"] = [value for value in domain if not any(same(value, other) for other in values)]
        schema.pop("const", None)
    elif set(forbidden) == {"required"} and len(forbidden["required"]) > 1:
        return not_all_of(schema, forbidden["required"])
    elif set(forbidden) == {"required"} and len(forbidden["required"]) == 1:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            return False
        schema["properties"] = {**properties, forbidden["required"][0]: False}
    else:
        return False
    del schema["not"]
    return True


def _without_if(keyword: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        if "if" in schema:
            return False
        del schema[keyword]
        return True

    return rule


def _if(schema: Schema) -> bool:
    """Every case for itself where one property with few values decides and the rest is about properties."""
    condition, otherwise = schema["if"], schema.get("else", {})
    then = schema.get("then", {})
    if not {"then", "else"} & set(schema):
        del schema["if"]
        return True
    if any(set(part) - {"properties", "required"} for part in (condition, then, otherwise) if isinstance(part, dict)):
        return False
    if not all(isinstance(part, dict) for part in (condition, then, otherwise)):
        return False
    if "properties" not in condition:
        return if_there(schema, then, otherwise)
    named, properties = condition.get("properties", {}), schema.get("properties", {})
    if len(named) != 1 or "anyOf" in schema or set(condition.get("required", named)) != set(named):
        return False
    ((key, wanted),) = named.items()
    domain, chosen = values_of(properties.get(key)), values_of(wanted)
    if domain is None or chosen is None:
        return False
    base = {name: schema.pop(name) for name in list(schema) if name not in ("$defs", "$id", "definitions")}
    base = {name: value for name, value in base.items() if name not in ("if", "then", "else")}
    fitting = [value for value in domain if any(same(value, other) for other in chosen)]
    others = [value for value in domain if value not in fitting]
    forms = [(fitting, then), (others, otherwise)]
    schema["anyOf"] = [both(base, key, {"enum": values}, part) for values, part in forms if values]
    if key not in base.get("required", ()):
        absent = both(base, key, False, otherwise if "required" in condition else then)
        absent["required"] = [name for name in absent["required"] if name != key]
        schema["anyOf"].append(absent)
    return True


def _without_contains(keyword: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        if "contains" in schema:
            return False
        del schema[keyword]
        return True

    return rule


def _dependent_required(schema: Schema) -> bool:
    needs = schema["dependentRequired"]
    if not isinstance(needs, dict) or not all(isinstance(names, list) for names in needs.values()):
        return False
    required = list(schema.get("required", ()))
    for _ in needs:
        for key, names in needs.items():
            if key in required:
                required += [name for name in names if name not in required]
    undecided = [key for key, names in needs.items() if key not in required and not set(names) <= set(required)]
    if len(undecided) > _MOST_DEPENDENT or (undecided and "anyOf" in schema):
        return False
    if required:
        schema["required"] = required
    if undecided:
        properties = schema.get("properties", {})
        others: Schema = {key: schema.pop(key) for key in ("properties", "required") if key in schema}
        forms = []
        for chosen in product((False, True), repeat=len(undecided)):
            there = {key for key, taken in zip(undecided, chosen, strict=True) if taken}
            needed = list(dict.fromkeys([*required, *there, *(name for key in there for name in needs[key])]))
            if not set(needed) & (set(undecided) - there):
                absent = [key for key in undecided if key not in there]
                form: Schema = dict(others)
                form["properties"] = {**properties, **dict.fromkeys(absent, False)}
                form["required"] = needed
                if not properties:
                    form["additionalProperties"] = True
                forms.append(form)
        schema["anyOf"] = forms
        for key in ("additionalProperties", "patternProperties"):
            if key in schema:
                value = schema.pop(key)
                for form in forms:
                    form[key] = value
    del schema["dependentRequired"]
    return True


def _dependencies(schema: Schema) -> bool:
    needs = schema["dependencies"]
    if isinstance(needs, dict) and all(isinstance(names, list) for names in needs.values()):
        schema["dependentRequired"] = schema.pop("dependencies")
        return _dependent_required(schema)
    if isinstance(needs, dict) and all(isinstance(part, dict) for part in needs.values()):
        schema["dependentSchemas"] = schema.pop("dependencies")
        return dependent_schemas(schema)
    return False


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
        """In draft 4 this is true or false beside the limit."""
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
    """A `\\Z` of Python is a `\\z` of the compiler's."""
    if isinstance(schema["pattern"], str):
        schema["pattern"] = re.sub(r"(?<!\\)((?:\\\\)*)\\Z", r"\1\\z", schema["pattern"])
    return True


_RULES: dict[str, Callable[[Schema], bool]] = {
    "format": _format,
    "pattern": _pattern,
    "uniqueItems": _unique_items,
    "propertyNames": _property_names,
    "not": _not,
    "if": _if,
    "then": _without_if("then"),
    "else": _without_if("else"),
    "contains": contains,
    "minContains": _without_contains("minContains"),
    "maxContains": _without_contains("maxContains"),
    "dependencies": _dependencies,
    "dependentRequired": _dependent_required,
    "dependentSchemas": dependent_schemas,
    "oneOf": one_of_them,
    "unevaluatedProperties": _unevaluated_properties,
    "unevaluatedItems": _unevaluated_items,
    "exclusiveMinimum": _exclusive("exclusiveMinimum", "minimum"),
    "exclusiveMaximum": _exclusive("exclusiveMaximum", "maximum"),
    "$dynamicRef": _recursive_reference("$dynamicRef"),
    "$recursiveRef": _recursive_reference("$recursiveRef"),
}
