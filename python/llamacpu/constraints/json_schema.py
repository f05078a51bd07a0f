"""JSON schemas as the grammar compiler accepts them: what it does not support is rewritten, or dropped and reported.

A schema is traversed only through the places where subschemas occur (JSON Schema Core 2020-12, section 10; drafts 4 to
7 are read too), so that a property called "enum" is a property. What cannot be enforced during generation is logged; in
strict mode it raises a `GrammarError` that names the keyword and its place.

An object with named properties gets no others unless the schema says that it may, or combines it with other schemas
that may name more: otherwise models tend to make up properties without end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from llamacpu import log
from llamacpu.arguments import described
from llamacpu.constraints import schema_keywords as keywords
from llamacpu.constraints.schema_references import pointer, resolved, written
from llamacpu.errors import GrammarError

__all__ = ["as_resource", "compiled", "is_closed", "member", "parsed", "prepared"]


Schema = dict[str, Any]

# Keywords whose value is a schema, a list of schemas, and a mapping of names to schemas.
_ONE = frozenset(("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"))
_ONE |= frozenset(("additionalItems", "unevaluatedItems", "unevaluatedProperties"))
_MANY = frozenset(("allOf", "anyOf", "items", "oneOf", "prefixItems"))
_NAMED = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
# What lets an object have more properties than the keywords next to it name.
_COMBINING = frozenset(("$ref", "allOf", "anyOf", "oneOf", "if"))
_OPENING = _COMBINING | {"additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"}
# Keywords that annotate but do not constrain: a reference next to them does not combine schemas.
_TELLING = frozenset(("$comment", "default", "deprecated", "description", "examples", "title"))
_TELLING |= frozenset(("$anchor", "$defs", "$id", "$schema", "definitions", "readOnly", "writeOnly"))
_LONGEST_NOTE = 200
# How many subschemas are tried one by one when a schema cannot be compiled.
_MOST_PLACES = 200
# How many keywords the compiler may turn out to lack, one after the other.
_MOST_REPAIRS = 50


def compiled(schema: Any, wrong: Callable[[Schema], str | None], strict: bool = False) -> Schema:
    """The schema as the compiler accepts it, checked.

    wrong: returns the compiler's objection to a schema, None if it accepts it.

    Raises GrammarError, with the place and value at fault, for what is not a schema or cannot be used; in strict mode
    also for a keyword that cannot be enforced.
    """
    found = prepared(schema, strict)
    message = wrong(found)
    for _ in range(_MOST_REPAIRS):
        if message is None:
            return found
        path, place = _place(found, wrong, message)
        repaired = _without_what_it_lacks(place, message) if isinstance(place, dict) else None
        if repaired is None:
            break
        keyword, instead = repaired
        tell(keyword, _own(path), place, strict, "is enforced as anyOf" if keyword == "oneOf" else "is not enforced")
        place.clear()
        place.update(instead)
        message = wrong(found)
    if message is None:
        return found
    # For a pattern, the compiler quotes the expression, so that is what to show.
    if isinstance(place, dict) and "regex" in message and isinstance(place.get("pattern"), str):
        path, place = f"{path}/pattern", place["pattern"]
    shown = json.dumps(place, ensure_ascii=False, default=repr)
    shown = shown if len(shown) <= _LONGEST_NOTE else shown[:_LONGEST_NOTE] + "..."
    raise GrammarError(f"the JSON schema cannot be used at {_own(path)} ({shown}): {_told(message)}")


def parsed(text: str | bytes) -> Any:
    """Parse a schema given as JSON text. Raises GrammarError for any other text, with the place of the error."""
    where = "it is nested too deep"
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"it breaks off or goes wrong in line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        where = f"it is no Unicode at byte {error.start}"
    except RecursionError:
        pass
    raise GrammarError(f'the JSON schema is not JSON: {where}; expected an object such as {{"type": "integer"}}')


def prepared(schema: Any, strict: bool = False) -> Schema:
    """The schema in keywords that the compiler has; see `compiled`, which also consults the compiler."""
    if isinstance(schema, bool):
        return {} if schema else {"enum": []}
    if not isinstance(schema, dict):
        raise GrammarError(f"the JSON schema is {described(schema)}; expected an object, true or false")
    return _Walk(schema, strict).result()


def _own(path: str) -> str:
    """A place as the author of the schema knows it, even if the schema is embedded in another one."""
    return path.replace("#/$defs/whole", "#", 1)


def _without_what_it_lacks(schema: Schema, message: str) -> tuple[str, Schema] | None:
    """The keyword that the compiler lacks at this very place, and the schema without it; None for another error."""
    if "oneOf" in message and "oneOf" in schema and "anyOf" not in schema:
        return "oneOf", {("anyOf" if key == "oneOf" else key): value for key, value in schema.items()}
    if "oneOf" in message and "oneOf" in schema and isinstance(schema.get("allOf", []), list):
        rest = {key: value for key, value in schema.items() if key != "oneOf"}
        return "oneOf", {**rest, "allOf": [*schema.get("allOf", ()), {"anyOf": schema["oneOf"]}]}
    for keyword in ("maxProperties", "minProperties", *_unimplemented(message)):
        if keyword in schema and ("Unimplemented" in message or "maxProperties" in message):
            return keyword, {key: value for key, value in schema.items() if key != keyword}
    return None


def _unimplemented(message: str) -> list[str]:
    return re.findall(r'"([^"]*)"', message) if message.startswith("Unimplemented keys") else []


def _part(schema: Schema, path: str) -> Schema:
    """One subschema, with everything it refers to."""
    whole = as_resource(schema, "whole")
    return {"$defs": {"whole": whole}, "$ref": f"{whole['$id']}{path}"}


def _place(schema: Schema, wrong: Callable[[Schema], str | None], message: str) -> tuple[str, Any]:
    """The place and value of the innermost subschema that causes the same compiler message as the whole."""
    found: tuple[str, Any] = ("#", schema)
    for path, inner in islice(subschemas(schema), _MOST_PLACES):
        if len(path) > len(found[0]) and path.startswith(found[0]) and _alike(wrong(_part(schema, path)), message):
            found = path, inner
    return found


def _alike(one: str | None, other: str) -> bool:
    """Whether two messages report one error: an unsatisfiable part makes the whole so, in different wording."""
    if one is None:
        return False
    return _lines(one) == _lines(other) or one.split(":")[0] == other.split(":")[0] == "Unsatisfiable schema"


def _lines(message: str) -> list[str]:
    """The lines of a compiler message, without the references on the way to the place."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return [line for line in lines if not line.startswith("while processing ")]


def _told(message: str) -> str:
    """A compiler message on one line; for an error in an expression its last line, which names the error."""
    lines = _lines(message) or ["no reason was given"]
    return (lines[-1] if lines[0].startswith("regex parse error") else lines[0])[:300]


def as_resource(schema: Any, name: str) -> Any:
    """Make a schema embeddable in another: references to its own root (`#`, `#/$defs/...`) stay its own."""
    if not isinstance(schema, dict) or "$id" in schema:
        return schema
    address = f"urn:llamacpu:{name}"

    def addressed(inner: Any) -> Any:
        if not isinstance(inner, dict):
            return inner
        found: Schema = {}
        for key, value in inner.items():
            parts = [addressed(part) for _, part in _inner(key, value)]
            if key in _NAMED and isinstance(value, dict):
                found[key] = dict(zip(value, parts, strict=True))
            elif key in _MANY and isinstance(value, list):
                found[key] = parts
            elif key == "$ref" and isinstance(value, str) and value.startswith("#"):
                found[key] = address + written(value)
            else:
                found[key] = parts[0] if parts else value
        return found

    return {"$id": address, **addressed(schema)}


def member(schema: Mapping[str, Any], key: str, name: str) -> Schema:
    """The schema of one property of an object, with everything it refers to."""
    whole = as_resource(dict(schema), name)
    return {"$defs": {"whole": whole}, "$ref": f"{whole['$id']}#/properties/{pointer(key)}"}


def is_closed(schema: Schema) -> bool:
    """Whether an object has the named properties and no others."""
    required = schema.get("required", ())
    properties = schema.get("properties")
    return isinstance(properties, dict) and not _OPENING & set(schema) and set(required) <= set(properties)


def subschemas(schema: Any, path: str = "#") -> Iterator[tuple[str, Any]]:
    """Yield the schema itself, then all its subschemas, each with its JSON pointer."""
    yield path, schema
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        for name, inner in _inner(key, value):
            yield from subschemas(inner, f"{path}/{key}{name}")


def _inner(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if key in _NAMED and isinstance(value, dict):
        yield from ((f"/{pointer(name)}", inner) for name, inner in value.items())
    elif key in _MANY and isinstance(value, list):
        yield from ((f"/{number}", inner) for number, inner in enumerate(value))
    elif key in _ONE and isinstance(value, (dict, bool)):
        yield "", value


class _Walk:
    """One traversal of one schema."""

    def __init__(self, schema: Schema, strict: bool) -> None:
        self._schema = schema
        self._strict = strict
        self._open: set[str] = set()
        self._find_open()

    def result(self) -> Schema:
        found = self._changed(self._schema, "#", open_=False)
        assert isinstance(found, dict)
        return found

    def _find_open(self) -> None:
        """Record the references whose targets are combined with other schemas, which may name more properties."""
        waiting = [(path, inner) for path, inner in subschemas(self._schema) if _combines(inner)]
        seen: set[str] = set()
        while waiting:
            path, schema = waiting.pop()
            if path in seen or not isinstance(schema, dict):
                continue
            seen.add(path)
            for key in ("allOf", "anyOf", "oneOf"):
                branches = schema.get(key)
                waiting += [(f"{path}/{key}/{number}", inner) for number, inner in _inner_of(key, branches)]
            reference = schema.get("$ref")
            if isinstance(reference, str) and reference.startswith("#"):
                self._open.add(written(reference))
                waiting.append((written(reference), resolved(self._schema, reference)))
            self._open.add(path)

    def _changed(self, schema: Any, path: str, open_: bool) -> Any:
        if not isinstance(schema, dict):
            return schema
        open_ = open_ or path in self._open
        known, notes = keywords.rewritten(schema, self._schema)
        for keyword in notes:
            tell(keyword, _own(path), schema, self._strict)
        if keywords.may_repeat(known):
            tell("minProperties", _own(path), schema, self._strict, "can be met by a key that is written twice")
        found: Schema = {}
        combines = open_ or _combines(known)
        for key, value in known.items():
            if key in _NAMED and isinstance(value, dict):
                found[key] = {
                    name: self._changed(inner, f"{path}/{key}/{pointer(name)}", open_=False)
                    for name, inner in value.items()
                }
            elif key in _MANY and isinstance(value, list):
                found[key] = [
                    self._changed(inner, f"{path}/{key}/{number}", open_=combines and key.endswith("Of"))
                    for number, inner in enumerate(value)
                ]
            elif key in _ONE:
                found[key] = self._changed(value, f"{path}/{key}", open_=False)
            elif key == "$ref" and isinstance(value, str):
                found[key] = written(value)
            else:
                found[key] = value
        if is_closed(found):
            # Explicit where it stays open, so that a schema that is embedded in another one later is left as it is.
            found["additionalProperties"] = open_
        return found


def tell(keyword: str, path: str, schema: Schema, strict: bool, what: str = "is not enforced") -> None:
    """Log a keyword that cannot be enforced. Raises GrammarError in strict mode."""
    value = json.dumps(schema.get(keyword), ensure_ascii=False, default=repr)[:_LONGEST_NOTE]
    if strict:
        raise GrammarError(
            f"the keyword {keyword!r} at {path} of the JSON schema ({value}) cannot be enforced while a text is "
            "written; leave it out, or do without strict mode"
        )
    log.warning("the JSON schema's keyword %r at %s (%s) %s", keyword, path, value, what)


def _inner_of(key: str, branches: Any) -> list[tuple[int, Any]]:
    return list(enumerate(branches)) if isinstance(branches, list) else []


def _combines(schema: Any) -> bool:
    """Whether several schemas together describe one object here."""
    if not isinstance(schema, Mapping):
        return False
    found = _COMBINING & set(schema)
    return "allOf" in found or len(found) > 1 or (bool(found) and not set(schema) - found <= _TELLING)
