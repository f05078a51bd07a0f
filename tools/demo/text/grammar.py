"""Sentence templates with alternatives, and the random choice of one sentence from a template.

``(a|b)`` picks one of the alternatives, ``[a|b]`` does the same or leaves it out, ``<name>`` takes the value of a slot.
A backslash makes the next character literal. Templates nest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache

Node = tuple[str, object]


@cache
def parse(template: str) -> tuple[Node, ...]:
    """Return the tree of a template: a sequence of text, slot, choice and optional nodes."""
    nodes, end = _sequence(template, 0, "")
    if end != len(template):
        raise ValueError(f"unbalanced template: {template!r}")
    return nodes


def expand(template: str, rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
    """Return one random sentence of a template, with single spaces and none before punctuation."""
    words = " ".join(_render(parse(template), rng, slots or {}).split(" "))
    while "  " in words:
        words = words.replace("  ", " ")
    words = re.sub(r" ([,.?!])(?=\s|$)", r"\1", words)
    return words.replace(" \n", "\n").replace("\n ", "\n").strip()


def _render(nodes: tuple[Node, ...], rng: random.Random, slots: Mapping[str, str]) -> str:
    parts = []
    for kind, value in nodes:
        if kind == "text":
            parts.append(value)
        elif kind == "slot":
            parts.append(slots[value])
        elif kind == "choice" or rng.random() < 0.5:
            parts.append(_render(rng.choice(value), rng, slots))
    return "".join(parts)


def _sequence(text: str, start: int, stop: str) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    literal = ""
    at = start
    while at < len(text) and text[at] not in stop:
        character = text[at]
        if character == "\\":
            literal += text[at + 1]
            at += 2
            continue
        if character not in "([<":
            literal += character
            at += 1
            continue
        if literal:
            nodes.append(("text", literal))
            literal = ""
        if character == "<":
            end = text.index(">", at)
            nodes.append(("slot", text[at + 1 : end]))
            at = end + 1
            continue
        closing = ")" if character == "(" else "]"
        options = []
        while True:
            option, at = _sequence(text, at + 1, "|" + closing)
            options.append(option)
            if at >= len(text):
                raise ValueError(f"unbalanced template: {text!r}")
            if text[at] == closing:
                break
        nodes.append(("choice" if character == "(" else "optional", options))
        at += 1
    if literal:
        nodes.append(("text", literal))
    return tuple(nodes), at
