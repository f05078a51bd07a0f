"""Constraints for answers in channels, as gpt-oss writes them (OpenAI's "harmony" format; see chat/harmony.py)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.chat.found_calls import CODE_TOOLS
from llamacpu.constraints.compiler import Vocabulary, schema_text
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.grammar_texts import quoted
from llamacpu.constraints.messages import START, HeaderGrammars, MessageConstraint, enforced
from llamacpu.constraints.tool_definitions import function_of
from llamacpu.errors import GrammarError

__all__ = ["ChannelConstraint"]

_CALL = "<|call|>"
_CALLED = re.compile(rb"to=functions\.|to=(?:python|code_interpreter)\b")
# Names that a header can contain.
_NAME = re.compile(r"(?!functions\.)[^\s<]+")


def _grammars(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> HeaderGrammars:
    """Build the grammars of message headers, including a function's arguments after the header of its call."""
    mark = vocabulary.marked
    channel, message = mark("<|channel|>"), mark("<|message|>")
    constrain = f'(" "? {mark("<|constrain|>")} "json" | " json" | " code")?'
    forms = [f'{channel} "analysis" {message}']
    if final:
        forms.append(f'{channel} "final" {constrain} {message}')
    elif not must_call:
        forms.append(f'{channel} ("final" | "commentary") {message}')
    calls, rules = [], []
    for number, tool in enumerate(() if final else tools):
        function = function_of(tool)
        name = str(function["name"])
        rules.append(f"arguments_{number}: %json {_arguments(function, must_call)}")
        bodies = [(f"functions.{name}", f"arguments_{number}")] if _NAME.fullmatch(name) else []
        if name in CODE_TOOLS and vocabulary.control_token(_CALL) is not None:
            bodies.append((name, "CODE"))
        for recipient, body in bodies:
            to, where = quoted(f" to={recipient}"), f'{channel} ("commentary" | "analysis")'
            calls.append(f"({to} {where} | {where} {to}) {constrain} {message} {body} {mark(_CALL)}")
    if must_call and not calls:
        raise GrammarError("no tool has a name that a header can hold; expected names without white space and '<'")
    header = f"header: {' | '.join([*forms, *calls])}"
    role = f'{mark(START)} "assistant" header'
    first, later = (
        Grammar.trusted_lark("\n".join([f"start: {start}", header, *rules, "CODE: /(.|\\n)+/"]))
        for start in ("header", role if must_call or final else f"({role})?")
    )
    return first, later


def _arguments(function: Mapping[str, Any], must_call: bool) -> str:
    strict = function.get("strict") is True or not must_call
    return schema_text(enforced(function, must_call), strict=strict)


class ChannelConstraint(MessageConstraint):
    """The constraint of an answer in channels; see `MessageConstraint`. A format applies to the channel "final"."""

    end: str = "<|end|>"

    @staticmethod
    def make(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> HeaderGrammars:
        """Build the grammars of headers; see `MessageConstraint.make`."""
        return _grammars(vocabulary, tools, must_call, final)

    def _is_call(self, text: bytes) -> bool:
        return _CALLED.search(text) is not None

    def _is_final(self, header: bytes) -> bool:
        return b"final" in header
