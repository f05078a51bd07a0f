#!/usr/bin/env python3
"""Fills a dataclass from a text: `python examples/extract_json.py FILE [--model MODEL]`.

The fields of the dataclass become a JSON schema, the schema becomes a grammar, and the grammar holds the answer: what
comes back always has these fields with these types. Needs: pip install "llamacpu[grammar]"
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import types
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import llamacpu

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")
# Every value has a maximum length, so that the answer ends whatever the model tends to write.
LONGEST_TEXT, LONGEST_LIST, LARGEST = 80, 5, 10**9
PLAIN: dict[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST},
    float: {"type": "number", "minimum": -LARGEST, "maximum": LARGEST, "multipleOf": 0.01},
    str: {"type": "string", "maxLength": LONGEST_TEXT},
    type(None): {"type": "null"},
}

T = TypeVar("T")


@dataclasses.dataclass
class Order:
    """The data that this program extracts: replace the fields with your own."""

    customer: str
    articles: list[str]
    pieces: int
    express: bool
    payment: Literal["card", "invoice", "unknown"]
    note: str | None


def schema_of(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type: a dataclass, plain types, lists, literals and None."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        properties = {field.name: schema_of(hints[field.name]) for field in dataclasses.fields(kind)}
        required = list(properties)
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind in PLAIN:
        return PLAIN[kind]
    if get_origin(kind) is list:
        return {"type": "array", "items": schema_of(get_args(kind)[0]), "maxItems": LONGEST_LIST}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if get_origin(kind) in (Union, types.UnionType):
        return {"anyOf": [schema_of(choice) for choice in get_args(kind)]}
    raise TypeError(f"{kind!r} has no JSON schema here; use str, int, float, bool, list, Literal, None or a dataclass")


def extract(model: llamacpu.Model, kind: type[T], text: str) -> T:
    """Return an object of the dataclass `kind` filled from the text. Raises ValueError if the context is too short."""
    schema = schema_of(kind)
    fields = ", ".join(schema["properties"])
    answer = model.chat(
        [{"role": "user", "content": f"{text}\n\nGive these facts of the text as JSON: {fields}."}],
        response_format={"type": "json_schema", "json_schema": {"name": kind.__name__, "schema": schema}},
        sampling=llamacpu.Sampling(temperature=0),
        max_tokens=600,
    )
    if answer.finish_reason != "stop":
        raise ValueError("the answer was cut before its end: give a shorter text, or more context")
    return kind(**json.loads(answer.content))


def main() -> None:
    """Read the command line and print the object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a text")
    parser.add_argument("--model", default=DEMO, help="file or name (the demo model)")
    given = parser.parse_args()
    with llamacpu.Model(given.model) as model:
        try:
            order = extract(model, Order, given.file.read_text(encoding="utf-8"))
        except ValueError as error:
            sys.exit(f"Error: {error}")
    json.dump(dataclasses.asdict(order), sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
