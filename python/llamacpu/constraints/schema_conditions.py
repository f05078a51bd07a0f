"""JSON Schema keywords that make one thing depend on another (`not`, `if`, `dependentRequired`), as cases.

Each rule changes a schema in place so that the keyword is gone or can stay; it returns False where that is impossible.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from llamacpu.constraints.schema_cases import both, dependent_schemas, if_there, not_all_of, same, values_of

Schema = dict[str, Any]

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
# Limit of a rule that writes out every case.
_MOST_DEPENDENT = 4


def negated(schema: Schema) -> bool:
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


def without_if(keyword: str) -> Callable[[Schema], bool]:
    def rule(schema: Schema) -> bool:
        if "if" in schema:
            return False
        del schema[keyword]
        return True

    return rule


def conditional(schema: Schema) -> bool:
    """`if`, case by case, where one property with few values decides and the rest concerns properties."""
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


def dependent_required(schema: Schema) -> bool:
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


def dependencies(schema: Schema) -> bool:
    needs = schema["dependencies"]
    if isinstance(needs, dict) and all(isinstance(names, list) for names in needs.values()):
        schema["dependentRequired"] = schema.pop("dependencies")
        return dependent_required(schema)
    if isinstance(needs, dict) and all(isinstance(part, dict) for part in needs.values()):
        schema["dependentSchemas"] = schema.pop("dependencies")
        return dependent_schemas(schema)
    return False
