"""The time that a grammar takes per token with a vocabulary of 128256 tokens, and before the first token.

The vocabulary is that of `bench_tokenizer`: the published one of Llama 3 if the reference outputs are available, else
one of the same size. The masks are computed along a text that the grammar accepts, so that its various states occur.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench_tokenizer import llama3
from llamacpu import GGUFFile, Tokenizer
from llamacpu.constraints.compiler import vocabulary_of
from llamacpu.constraints.grammar import Grammar
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
    """Time the masks along a text; the result is the time per token."""
    ids = tokenizer.encode(text, add_special=False)
    logits = np.zeros(tokenizer.vocab_size, dtype=np.float32)

    def masks() -> None:
        matcher = grammar.matcher(tokenizer)
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


# In the style of the grammars that come with llama.cpp.
GBNF = {
    "json": (
        r"""
root   ::= object
value  ::= object | list | string | number | "true" | "false" | "null"
object ::= "{" gap (member ("," gap member)*)? gap "}"
member ::= string ":" gap value
list   ::= "[" gap (value ("," gap value)*)? gap "]"
string ::= "\"" ([^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
gap    ::= [ \n\t]{0,20}
""",
        json.dumps(ANSWER),
    ),
    "arithmetic": (
        'root ::= (sum "=" gap number "\\n")+\nsum ::= part ([-+*/] gap part)*\n'
        'part ::= name | number | "(" gap sum ")" gap\n'
        "name ::= [a-z] [a-z0-9_]* gap\nnumber ::= [0-9]+ gap\ngap ::= [ \\t]*",
        "(price + tax_1) * 12 / (count - 3) = 1804\n",
    ),
    "program": (
        r"""
root      ::= function*
function  ::= type " " name "(" (type " " name)? ") {\n" statement* "}\n"
type      ::= "int" | "float" | "char"
name      ::= [a-zA-Z_] [a-zA-Z0-9_]*
statement ::= "  "+ (type " ")? name " = " sum ";\n" | "  "+ "return " sum ";\n" | comment
            | "  "+ "while (" sum [<>] sum ") {\n" statement* "  "+ "}\n"
comment   ::= "//" [^\n]* "\n" | "/*" ([^*] | "*" [^/])* "*/\n"
sum       ::= term (" " [-+] " " term)*
term      ::= factor (" " [*/] " " factor)*
factor    ::= name | [0-9]+ | "-" factor | name "(" (sum (", " sum)*)? ")" | "(" sum ")"
""".replace("\n            |", " |"),
        "int add(int first) {\n  int sum = first + other(2, 3) * 4;\n// one more\n/* or * more */\n  return sum;\n}\n",
    ),
    "chess": (
        'root ::= ([1-9] [0-9]? ". " move " " move "\\n")+\nmove ::= (piece | pawn | "O-O" "-O"?) [+#]?\n'
        'piece ::= [KQRBN] [a-h]? [1-8]? "x"? [a-h] [1-8]\npawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [QRBN])?',
        "1. e4 e5\n2. Nf3 Nc6\n3. Bb5 a6\n4. O-O Nxe4\n5. Re1 Nd6\n",
    ),
    "list": (
        'root ::= ("- " [^\\r\\n\\u2028\\u2029]+ "\\n")+',
        "- apples and pears\n- oranges, for the children\n- water\n",
    ),
    "english": (
        "root ::= word ([ \\t\\n] word)*\nword ::= [!-~]+",
        "It was the best of times, it was the worst of times.",
    ),
    "japanese": (
        "root ::= [ぁ-ゟァ-ヿ、-〾一-鿿]+ ([ \\n] [ぁ-ゟァ-ヿ、-〾一-鿿]+)*",
        "吾輩は猫である。名前はまだ無い。",
    ),
}


@pytest.mark.parametrize("name", GBNF)
def test_masks_of_gbnf(benchmark: Any, tokenizer: Tokenizer, name: str) -> None:
    grammar, text = GBNF[name]
    follow(benchmark, tokenizer, Grammar.gbnf(grammar), text)


def test_compiling_a_schema(benchmark: Any, tokenizer: Tokenizer) -> None:
    benchmark(lambda: Grammar.json_schema(SCHEMA).matcher(tokenizer))


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
