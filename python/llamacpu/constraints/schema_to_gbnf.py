"""JSON schemas as grammars in GBNF, for programs that want the grammar's text.

Structured output uses `Grammar.json_schema`, which supports more of JSON Schema. What GBNF cannot express raises
`GrammarError` here and never widens the grammar, except for numeric limits and `format`, which are logged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu import log
from llamacpu.constraints.compiler import DEEPEST
from llamacpu.constraints.json_schema import parsed
from llamacpu.errors import GrammarError

_COMMON = {
    "blank": r'(" " | "\n" [ \t]{0,20})?',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "string": r'"\"" char* "\"" blank',
    "integer": r'"-"? ("0" | [1-9] [0-9]{0,15}) blank',
    "number": r'"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})? blank',
    "boolean": '("true" | "false") blank',
    "null": '"null" blank',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" blank (string ":" blank value ("," blank string ":" blank value)*)? "}" blank',
    "array": '"[" blank (value ("," blank value)*)? "]" blank',
    "date": '[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])',
    "time": '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})?'
    ' ("Z" | [-+] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
    "uuid": '[0-9a-fA-F]{8} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{4} "-" [0-9a-fA-F]{12}',
}
_FORMATS = {"date": "date", "time": "time", "date-time": 'date "T" time', "uuid": "uuid"}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_CANNOT = (
    "not", "if", "contains", "uniqueItems", "patternProperties", "propertyNames", "dependentRequired",
    "dependentSchemas", "unevaluatedProperties", "unevaluatedItems", "minProperties", "maxProperties", "$dynamicRef",
)  # fmt: skip
_LIMITS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_REPEAT = 2000


def json_schema_to_gbnf(schema: str, prop_order: Sequence[str] | None = None) -> str:
    """The GBNF grammar of the JSON texts that are valid under a schema.

    schema      the schema as JSON text
    prop_order  names of properties in the order in which they are written; the rest follow in the schema's order

    An object with named properties has no others unless `additionalProperties` says so. Raises GrammarError for a
    schema that is invalid or that GBNF cannot express.
    """
    found = parsed(schema) if isinstance(schema, (str, bytes)) else schema
    converter = _Converter(found, list(prop_order or ()))
    root = converter.rule(found, "$", 0)
    rules = {"root": root, **converter.rules}
    wanted, waiting = {"root"}, ["root"]
    while waiting:
        for name in re.findall(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]|([a-zA-Z][a-zA-Z0-9-]*)', rules[waiting.pop()]):
            if name and name not in wanted:
                rules.setdefault(name, _COMMON.get(name, ""))
                wanted.add(name)
                waiting.append(name)
    return "".join(f"{name} ::= {rules[name]}\n" for name in rules if name in wanted)


class _Converter:
    def __init__(self, schema: Any, order: list[str]) -> None:
        self.rules: dict[str, str] = {}
        self._schema = schema
        self._order = {name: place for place, name in enumerate(order)}
        self._references: dict[str, str] = {}

    def rule(self, schema: Any, path: str, depth: int) -> str:
        """The right-hand side of a rule for a schema."""
        if depth > DEEPEST:
            raise GrammarError(f"the JSON schema is nested more than {DEEPEST} levels deep at {path}")
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise GrammarError(f"the JSON schema has {schema!r} at {path}, which nothing fulfils; expected an object")
        cannot = [word for word in _CANNOT if schema.get(word) not in (None, False)]
        if cannot:
            raise GrammarError(f"the JSON schema has {cannot[0]!r} at {path}, which a GBNF grammar cannot say")
        if "$ref" in schema:
            return self._reference(schema["$ref"], path, depth)
        if "allOf" in schema:
            return self.rule(self._merged(schema, path), path, depth + 1)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                rest = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf", *_NOTES)}
                forms = [{**rest, **form} if isinstance(form, Mapping) else form for form in schema[word]]
                return self._either([self.rule(f, f"{path}.{word}[{i}]", depth + 1) for i, f in enumerate(forms)])
        if "const" in schema:
            return f"{_literal(json.dumps(schema['const'], ensure_ascii=False))} blank"
        if "enum" in schema:
            texts = [_literal(json.dumps(value, ensure_ascii=False)) for value in schema["enum"]]
            if not texts:
                raise GrammarError(f"the JSON schema has an empty enum at {path}, which nothing fulfils")
            return f"{self._either(texts)} blank"
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return self._either([self.rule({**schema, "type": kind}, path, depth + 1) for kind in kinds])
        return self._typed(kinds, schema, path, depth)

    def _typed(self, kind: Any, schema: Mapping[str, Any], path: str, depth: int) -> str:
        if kind == "object" or (kind is None and ("properties" in schema or "additionalProperties" in schema)):
            return self._object(schema, path, depth)
        if kind == "array" or (kind is None and ("items" in schema or "prefixItems" in schema)):
            return self._array(schema, path, depth)
        if kind == "string" or (kind is None and ("minLength" in schema or "maxLength" in schema)):
            return self._string(schema, path)
        if kind is None:
            return "value"
        if kind not in _TYPES:
            raise GrammarError(f"the JSON schema has the type {kind!r} at {path}; expected one of {', '.join(_TYPES)}")
        for word in _LIMITS:
            if word in schema:
                log.warning("the JSON schema has %r at %s, which the GBNF grammar does not hold", word, path)
        return str(kind)

    def _either(self, forms: Sequence[str]) -> str:
        return f"({' | '.join(dict.fromkeys(forms))})"

    def _new(self, text: str, path: str) -> str:
        """Add a rule and return its name."""
        base = re.sub("[^a-zA-Z0-9]+", "-", path).strip("-") or "schema"
        name, number = f"r-{base}"[:60], 0
        while name in self.rules or name in _COMMON:
            number += 1
            name = f"r-{base}"[:60] + f"-{number}"
        self.rules[name] = text
        return name

    def _reference(self, reference: Any, path: str, depth: int) -> str:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise GrammarError(
                f"the JSON schema refers to {reference!r} at {path}; expected a place in itself, '#/...'"
            )
        if reference not in self._references:
            name = self._references[reference] = self._new("", reference)
            self.rules[name] = self.rule(self._target(reference, path), reference, depth + 1)
        return self._references[reference]

    def _target(self, reference: str, path: str) -> Any:
        target = self._schema
        for part in reference[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            try:
                target = target[int(part)] if isinstance(target, list) else target[part]
            except (KeyError, IndexError, TypeError, ValueError):
                raise GrammarError(f"the JSON schema refers to {reference!r} at {path}, which is not there") from None
        return target

    def _merged(self, schema: Mapping[str, Any], path: str, depth: int = 0) -> dict[str, Any]:
        """One schema in place of several that apply together."""
        if depth > DEEPEST:
            raise GrammarError(f"the JSON schema has parts that refer to themselves at {path}")
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            while isinstance(part, Mapping) and ("$ref" in part or "allOf" in part):
                depth += 1
                if "$ref" in part:
                    rest = {key: value for key, value in part.items() if key != "$ref"}
                    part = {**self._target(part["$ref"], path), **rest}
                else:
                    part = self._merged(part, path, depth)
                if depth > DEEPEST:
                    raise GrammarError(f"the JSON schema has parts that refer to themselves at {path}")
            for key, value in (part if isinstance(part, Mapping) else {}).items():
                if key == "properties":
                    merged[key] = {**merged.get(key, {}), **value}
                elif key == "required":
                    merged[key] = [*merged.get(key, ()), *value]
                elif key in merged and merged[key] != value and key not in _NOTES:
                    raise GrammarError(f"the JSON schema has two of {key!r} in allOf at {path}: a GBNF grammar has one")
                else:
                    merged[key] = value
        return merged

    def _object(self, schema: Mapping[str, Any], path: str, depth: int) -> str:
        properties = dict(schema.get("properties") or {})
        required = set(schema.get("required") or ())
        more = schema.get("additionalProperties", not properties)
        for name in sorted(required - set(properties)):
            properties[name] = more if more is not False else True
        if not properties and more is True:
            return "object"
        names = sorted(properties, key=lambda name: self._order.get(name, len(self._order)))
        pairs = []
        for name in names:
            value = self._new(self.rule(properties[name], f"{path}.{name}", depth + 1), f"{path}.{name}")
            pairs.append(
                (f'{_literal(json.dumps(name, ensure_ascii=False))} blank ":" blank {value}', name in required)
            )
        if more is not False:
            value = self._new(self.rule(more, f"{path}.*", depth + 1), f"{path}-more")
            other = f'string ":" blank {value}'
            pairs.append((f'{other} ("," blank {other})*', False))
        return f'"{{" blank {self._members(pairs, path)} "}}" blank'

    def _members(self, pairs: Sequence[tuple[str, bool]], path: str) -> str:
        """Pairs in order; those that are not required may be left out."""
        # What may come after another pair, and what may come first; computed from the last pair to the first.
        after = first = ""
        for number, (pair, required) in reversed(list(enumerate(pairs))):
            begun, following = f"{pair} {after}".strip(), f'"," blank {pair} {after}'.strip()
            first = begun if required else self._either([begun, first]) if first else f"({begun})?"
            after = following if required else f'("," blank {pair})? {after}'.strip()
            if len(first) > 200:
                first = self._new(first, f"{path}-from-{number}")
            if len(after) > 200:
                after = self._new(after, f"{path}-after-{number}")
        return first

    def _array(self, schema: Mapping[str, Any], path: str, depth: int) -> str:
        least, most = _bounds(schema, "minItems", "maxItems", path)
        before = schema.get("prefixItems")
        items = schema.get("items", True)
        if isinstance(items, list):
            before, items = items, schema.get("additionalItems", True)
        fixed = [self.rule(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(before or ())]
        if fixed:
            fixed = fixed[: len(fixed) if most is None else most]
            text = ' "," blank '.join(f"({item})" for item in fixed)
            if items is not False and (most is None or most > len(fixed)):
                item = self._new(self.rule(items, f"{path}[]", depth + 1), f"{path}-item")
                rest = _times(max(0, least - len(fixed)), None if most is None else most - len(fixed))
                text += f' ("," blank {item}){rest}'
            return f'"[" blank {text} "]" blank'
        if items is False or most == 0:
            return '"[" blank "]" blank'
        item = self._new(self.rule(items, f"{path}[]", depth + 1), f"{path}-item")
        listed = f'{item} ("," blank {item}){_times(max(0, least - 1), None if most is None else most - 1)}'
        return f'"[" blank {listed if least else f"({listed})?"} "]" blank'

    def _string(self, schema: Mapping[str, Any], path: str) -> str:
        if "pattern" in schema:
            raise GrammarError(
                f"the JSON schema has a pattern at {path}, {schema['pattern']!r}; use Grammar.json_schema"
            )
        wanted = schema.get("format")
        if wanted in _FORMATS:
            return rf'"\"" {_FORMATS[wanted]} "\"" blank'
        if wanted is not None:
            log.warning("the JSON schema has the format %r at %s, which the GBNF grammar does not hold", wanted, path)
        least, most = _bounds(schema, "minLength", "maxLength", path)
        return "string" if (least, most) == (0, None) else rf'"\"" char{_times(least, most)} "\"" blank'


# Keywords that do not affect the text.
_NOTES = ("title", "description", "default", "examples", "$defs", "definitions", "$comment", "deprecated")


def _bounds(schema: Mapping[str, Any], lower: str, upper: str, path: str) -> tuple[int, int | None]:
    least, most = schema.get(lower, 0), schema.get(upper)
    for word, value in ((lower, least), (upper, most)):
        if value is not None and (not isinstance(value, int) or not 0 <= value <= _REPEAT):
            raise GrammarError(f"the JSON schema has {word} {value!r} at {path}; expected 0 to {_REPEAT}")
    if most is not None and least > most:
        raise GrammarError(f"the JSON schema has {lower} {least} above {upper} {most} at {path}")
    return least, most


def _times(least: int, most: int | None) -> str:
    if most is None:
        return "*" if least == 0 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _literal(text: str) -> str:
    """A text as a quoted GBNF literal."""
    for letter, escaped in (("\\", r"\\"), ('"', r"\""), ("\n", r"\n"), ("\r", r"\r"), ("\t", r"\t")):
        text = text.replace(letter, escaped)
    return f'"{text}"'
