"""How long a grammar takes for one token of a vocabulary of 128256 tokens, and before the first one.

The vocabulary is that of `bench_tokenizer`: the published one of Llama 3 where the reference outputs are at hand, else
one of the same size. A mask is made while a text of the grammar is followed, so that every state of it is met.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_tokenizer import llama3
from llamacpu import GGUFFile, Tokenizer
from llamacpu.constraints.grammar import Grammar, Matcher, vocabulary_of
from llamacpu.constraints.tool_constraint import ToolCallConstraint

pytest.importorskip("llguidance", reason="llguidance is not installed")

__all__ = ["llama3"]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        "address": {"type": "object", "properties": {"street": {"type": "string"}}, "required": ["street"]},
    },
    "required": ["name", "age", "tags", "address"],
}
ANSWER = {"name": "Ada Lovelace", "age": 36, "tags": ["red", "blue"], "address": {"street": "St James's Square 12"}}
TOOL = {"type": "function", "function": {"name": "note", "strict": True, "parameters": SCHEMA}}
CALL = json.dumps({"name": "note", "parameters": ANSWER})


@pytest.fixture(scope="module")
def tokenizer(llama3: Path) -> Tokenizer:
    found = Tokenizer(GGUFFile(llama3))
    vocabulary_of(found)
    return found


def follow(benchmark: Any, tokenizer: Tokenizer, grammar: Grammar, text: str) -> None:
    """Time the masks along a text; the number is that of one token."""
    ids = tokenizer.encode(text, add_special=False)
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)

    def masks() -> None:
        matcher = Matcher(grammar, tokenizer)
        for token in ids:
            matcher.mask(logits)
            matcher.consume(token)

    benchmark(masks)
    print(f"\n{1e6 * benchmark.stats.stats.min / len(ids):.0f} us for each of {len(ids)} tokens")


def test_masks_of_a_schema(benchmark: Any, tokenizer: Tokenizer) -> None:
    follow(benchmark, tokenizer, Grammar.json_schema(SCHEMA), json.dumps(ANSWER))


def test_masks_of_any_json(benchmark: Any, tokenizer: Tokenizer) -> None:
    follow(benchmark, tokenizer, Grammar.any_json(), json.dumps(ANSWER))


def test_masks_of_a_regular_expression(benchmark: Any, tokenizer: Tokenizer) -> None:
    follow(
        benchmark,
        tokenizer,
        Grammar.regex(r"([A-Z][a-z]+ ){2}was born in [0-9]{4}\."),
        "Ada Lovelace was born in 1815.",
    )


def test_compiling_a_schema(benchmark: Any, tokenizer: Tokenizer) -> None:
    benchmark(lambda: Matcher(Grammar.json_schema(SCHEMA), tokenizer))


@pytest.mark.parametrize("text", ["A plain answer of some words, without any call of a tool at all.", CALL])
def test_strict_tools(benchmark: Any, tokenizer: Tokenizer, text: str) -> None:
    ids = np.array(tokenizer.encode("x" + text, add_special=False))
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)

    def masks() -> None:
        constraint = ToolCallConstraint([TOOL], tokenizer)
        for length in range(1, len(ids)):
            constraint(ids[:length], logits)

    benchmark(masks)
    print(f"\n{1e6 * benchmark.stats.stats.min / len(ids):.0f} us for each of {len(ids)} tokens, the grammars included")


def test_compiling_strict_tools(benchmark: Any, tokenizer: Tokenizer) -> None:
    benchmark(lambda: ToolCallConstraint([TOOL], tokenizer))
