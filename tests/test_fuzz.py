"""Each parser that reads text or bytes from outside, fed with damaged, spliced and random input for a while.

A moment in the test suite; `dev.py fuzz` takes a minute for each target. LLAMACPU_FUZZ_SECONDS sets how long,
LLAMACPU_FUZZ_SEED begins elsewhere. Every failure names its input. The Rust side has targets of its own in fuzz/.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import AnyStr

import numpy as np
import pytest

from call_answers import ANSWERS
from fake_llama import Tokens
from llamacpu import Model
from llamacpu.chat import ChatTemplate, Limits
from llamacpu.chat.builtin import BUILTINS, source_of
from llamacpu.chat.marks import CALL_TAGS
from llamacpu.chat.reasoning import REASONING_TAGS
from llamacpu.chat.tool_calls import read_any, read_arguments, read_json, read_pythonic
from llamacpu.constraints.grammar import Grammar
from llamacpu.engine import saved_sessions
from llamacpu.errors import GrammarError, SessionError, TemplateError
from template_cases import HOSTILE, SNIPPETS
from test_saved_sessions import HEADER, written
from test_templates import CONVERSATIONS, TOOLS
from test_tool_calls import read

SECONDS = float(os.environ.get("LLAMACPU_FUZZ_SECONDS", "1"))
SEED = int(os.environ.get("LLAMACPU_FUZZ_SEED", "0"))
pytestmark = pytest.mark.timeout(SECONDS + 110)


def damaged(chance: random.Random, samples: list[AnyStr], words: list[AnyStr]) -> AnyStr:
    """A sample with some of it cut out, repeated, replaced by a word or by a piece of another sample."""
    text = chance.choice(samples)
    for _ in range(chance.randrange(5)):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice([0, 0, 1, 2, 5, 20, 1000]))
        other = chance.choice(samples)
        cut = chance.randrange(len(other) + 1)
        middle = chance.choice([text[:0], chance.choice(words), text[start:end] * 2, other[cut : cut + 30]])
        text = text[:start] + middle + text[end:]
    return text[:200_000]


def fuzz(samples: list[AnyStr], words: list[AnyStr], parse: Callable[[AnyStr], bool]) -> None:
    """Parse damaged samples until the time is over; parse says whether it accepted one. Some must be, some not."""
    outcomes = {True: 0, False: 0}
    end = time.monotonic() + SECONDS
    for seed in count(SEED):
        text = damaged(random.Random(seed), samples, words)
        try:
            outcomes[parse(text)] += 1
        except BaseException as error:
            raise AssertionError(f"LLAMACPU_FUZZ_SEED={seed}: {error!r} for {text!r}") from error
        if time.monotonic() > end and seed - SEED >= 200:
            break
    assert all(outcomes.values()), outcomes


def refused(error: Exception) -> bool:
    """False, and the error has something to say."""
    assert str(error)
    return False


TEMPLATE_WORDS = [
    "{{", "}}", "{%", "%}", "{#", "-", "(", ")", "[", "]", "'", '"', "|", ".", "~", "*", "**", "not ", " in ", "for ",
    "{% endfor %}", "{% if x %}", "{% endif %}", "messages", "range(99)", "loop", "namespace(a=1)", "tojson", "\0",
    "\ud800", "é", "\n", "10**9", "__class__", "raise_exception('x')", "{% generation %}", "recursive", "macro f(x) %}",
]  # fmt: skip


def test_templates() -> None:
    samples = [*SNIPPETS.values(), *(text for text in HOSTILE.values() if len(text) < 500)]
    samples += [source_of(template) for template in BUILTINS.values()]
    conversations = list(CONVERSATIONS.values())
    # Small ones, so that many templates have their turn; what is being fuzzed is who keeps them.
    limits = Limits(steps=20_000, value=100_000, total=1_000_000)

    def parse(source: str) -> bool:
        try:
            template = ChatTemplate(source, bos_token="<s>", eos_token="</s>", limits=limits)
            segments = template.segments(
                conversations[len(source) % len(conversations)], control_tokens=["</s>"], tools=TOOLS
            )
        except TemplateError as error:
            return refused(error)
        assert all(isinstance(segment.text, str) for segment in segments)
        return True

    fuzz(samples, TEMPLATE_WORDS, parse)


def test_tool_calls() -> None:
    samples = [text for text, _ in ANSWERS.values()]
    tags = [tag for pair in (*REASONING_TAGS, *CALL_TAGS.items()) for tag in pair if tag]
    words = [*tags, "{", "}", "[", "]", '"', "\\", "name", "arguments", ":", ",", "(", ")", "=", "1e999", "NaN", "\0"]
    words += ["null", "\\ud800", "\ud800", "(" * 300, "[" * 3000, '{"a":' * 300, "-", "not ", "9" * 5000, "lambda: 0"]

    def parse(answer: str) -> bool:
        whole = read(answer)
        pieces = read(answer, size=1 + len(answer) % 7)
        assert pieces == whole
        for function in (read_any, read_json, read_pythonic):
            for call in function(answer) or []:
                json.dumps(call.arguments, allow_nan=False)
        arguments = read_arguments(answer)
        assert arguments is None or isinstance(arguments, dict)
        return bool(whole["calls"])

    fuzz(samples, words, parse)


GRAMMARS = {
    Grammar.gbnf: [
        'root ::= "a" | b+ [c-e]*\nb ::= "x"{2,3} (b | "y")?\n',
        'root ::= object\nobject ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws\n'
        'value ::= object | string | "null"\nstring ::= "\\"" ([^"\\\\] | "\\\\" .)* "\\""\nws ::= [ \\t\\n]*\n',
        'root ::= [\\x41-\\u00e9]+ # comment\n | "\\U0001F999"\n',
    ],
    Grammar.lark: [
        'start: "a" | b+\nb: /[0-9]+/ | "x" ~ 2..3\n',
        'start: item ("," item)*\nitem: NAME "=" value\nvalue: %json {"type": "integer"}\nNAME: /[a-z]+/\n',
    ],
    Grammar.regex: ["(a|b)*c{2,5}[^d-f]+\\d\\w", "(?i)hello|\\p{L}+", "^[a-z]{2,5}$"],
    Grammar.json_schema: [
        '{"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}',
        '{"anyOf": [{"type": "string", "pattern": "^a+$"}, {"enum": [1, null, "x"]}, {"$ref": "#/$defs/n"}],'
        ' "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}, "maxItems": 2}}}',
        "true",
    ],
}
GRAMMAR_WORDS = [
    "::=", "root", "start", '"', "'", "/", "\\", "[", "]", "(", ")", "{", "}", "*", "+", "?", "|", "{1,99}", "{9999}",
    "(a|", "~ 1..50", "%json", "%ignore", "$ref", "null", "1e400", "-", "^", ".", "\\u", "\ud800", "\0", "é", "\n",
    "[" * 400, "(" * 400, '{"items":' * 300, ": ", ", ", "#", "#/$defs/n", "(?", "\\p{",
]  # fmt: skip


@pytest.mark.parametrize("kind", GRAMMARS, ids=lambda kind: kind.__name__)
def test_grammars(kind: Callable[[str], Grammar]) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    tokens = Tokens()

    def parse(text: str) -> bool:
        try:
            constraint = kind(text).constraint(tokens)  # type: ignore[arg-type]
            logits = constraint(np.array([0]), np.zeros(tokens.vocab_size, dtype=np.float32))
        except GrammarError as error:
            return refused(error)
        assert logits.shape == (tokens.vocab_size,)
        return True

    fuzz(GRAMMARS[kind], GRAMMAR_WORDS, parse)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Iterator[Model]:
    with Model(tiny_model("gqa"), threads=1) as model:
        yield model


def sealed(data: bytes) -> bytes:
    """The file with right checksums, so that what is damaged is read and not refused at the door."""
    header = data[: HEADER.size]
    body = header + struct.pack("<I", zlib.crc32(header)) + data[HEADER.size + 4 : -4]
    return body + struct.pack("<I", zlib.crc32(body))


def test_saved_sessions(model: Model) -> None:
    samples = []
    for length, note in ((0, b""), (1, b"a note"), (70, b"")):
        session = model.session(context=100)
        if length:
            session.forward(list(range(3, 3 + length)), logits="none")
        samples.append(written(session, note))
    words = [b"\0", b"\xff", b"\xff" * 8, struct.pack("<Q", 2**63), struct.pack("<I", 1), struct.pack("<Q", 2**32)]
    turn = count()

    def parse(data: bytes) -> bool:
        if next(turn) % 2:
            data = sealed(data)
        try:
            session = saved_sessions.read(model, io.BytesIO(data))
        except SessionError as error:
            return refused(error)
        if session.position < session.context:
            assert session.forward([5]).shape == (model.vocab_size,)
        return True

    fuzz(samples, words, parse)
