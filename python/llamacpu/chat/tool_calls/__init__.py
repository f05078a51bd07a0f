"""Parsers for tool calls in the text of an answer, in the notations of current models.

json_calls    {"name": "f", "parameters": {"a": 1}}, several in a list or in succession (Llama 3.1; Mistral, Hermes and
              Qwen 3 inside their tags, with "arguments")
python_calls  [f(a=1, b="x"), g()] and brave_search.call(query="x") (Llama 3.2, 4), f(a=1) in a fenced block `tool_code`
              (Gemma 3): parsed as Python, never executed
named         name{"a": 1} (Mistral from version 11), and DeepSeek's and Kimi's notations with a separator
elements      <function=f>{"a": 1}</function>, <function name="f"><param name="a">1</param></function>,
              <function=f><parameter=a>1</parameter></function> (Qwen 3.5, Seed), f<arg_key>a</arg_key>
              <arg_value>1</arg_value> (GLM), <invoke name="f"><parameter name="a">1</parameter></invoke> (Muse Glimmer,
              DeepSeek V3.2, MiniMax)
gemma         call:f{a:1} (Gemma 4)
call          a call, and the types of its arguments

Every parser returns None for text in another notation. `read_parts` parses what it can: a call that cannot be parsed
stays as text among the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamacpu.chat.brackets import is_python
from llamacpu.chat.tool_calls.call import DECODER, Call, IdentifiedCall, is_text, read_arguments
from llamacpu.chat.tool_calls.elements import read_invoked, read_keyed, read_tagged
from llamacpu.chat.tool_calls.gemma import read_gemma
from llamacpu.chat.tool_calls.json_calls import json_parts, read_forced, read_json
from llamacpu.chat.tool_calls.named import read_deepseek, read_named
from llamacpu.chat.tool_calls.python_calls import python_lines, python_parts, read_code, read_pythonic

__all__ = [
    "DECODER",
    "Call",
    "IdentifiedCall",
    "is_text",
    "read_any",
    "read_arguments",
    "read_code",
    "read_forced",
    "read_invoked",
    "read_json",
    "read_parts",
    "read_pythonic",
]


def read_any(text: str) -> list[Call] | None:
    """Parse a text in any notation that consists entirely of calls."""
    parsers = (
        read_json,
        read_pythonic,
        read_tagged,
        read_invoked,
        read_keyed,
        read_gemma,
        read_named,
        read_deepseek,
    )
    for read in parsers:
        calls = read(text)
        if calls is not None:
            return calls
    return None


def read_parts(text: str, certain: bool = True, schemas: Mapping[str, Any] | None = None) -> list[Call | str] | None:
    """Parse the calls in a text, and the text between them that could not be parsed; None if there is no call.

    certain: the text was inside the tags of calls; otherwise it may be an object that only looks like a call.
    """
    bare = text.strip()
    found: list[Call | str] | None
    if bare[:1] in ("{", "["):
        found = python_parts(bare) if is_python(bare) else json_parts(bare, certain)
    else:
        if bare[:1] == "<":
            calls = read_tagged(bare, schemas) or read_invoked(bare, schemas)
        else:
            calls = read_keyed(bare, schemas) or read_gemma(bare) or read_named(bare) or read_deepseek(bare)
        found = [*calls] if calls else python_parts(bare) or python_lines(bare)
    return found if found and any(isinstance(part, Call) for part in found) else None
