"""Constraints for answers whose messages have recipients, as Muse Glimmer writes them (see chat/recipients.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llamacpu.chat.recipients import CALLS_CLOSING, CALLS_OPENING
from llamacpu.constraints.compiler import Vocabulary
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.grammar_texts import quoted
from llamacpu.constraints.messages import START, HeaderGrammars, MessageConstraint, enforced
from llamacpu.constraints.tool_definitions import function_of
from llamacpu.constraints.tool_grammar.elements import ATEM, Elements
from llamacpu.errors import GrammarError

__all__ = ["RecipientConstraint"]

# Names that a header can contain, and that are not recipients of other messages.
_NAME = re.compile(r'(?!(?:self|user)$)[^\s<>"]+')


def _grammars(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> HeaderGrammars:
    """Build the grammars of message headers, including a call after its header and what may follow it."""
    message, end, start = map(vocabulary.marked, ("<|message|>", RecipientConstraint.end, START))
    thought = f'" to=self" {message}'
    forms = [thought if must_call and not final else f'{thought} | " to=user"? {message}']
    calls = []
    elements = Elements(vocabulary.marked)
    for number, tool in enumerate(() if final else tools):
        function = function_of(tool)
        name = str(function["name"])
        if not _NAME.fullmatch(name):
            continue
        strict = function.get("strict") is True or not must_call
        block = elements.function(ATEM, number, name, enforced(function, must_call), strict)
        if block is None:
            raise GrammarError(
                f"the arguments of the tool {name} cannot be enforced; expected names without '<', '>' and '\"', and "
                "strings whose patterns and formats can be checked"
            )
        opening, closing = quoted(f"{CALLS_OPENING}\n"), quoted(f"\n{CALLS_CLOSING}")
        calls.append(f"{quoted(f' to={name}')} {message} {opening} {block} {closing} more")
    if must_call and not calls:
        raise GrammarError("no tool has a name that a header can hold; expected names without white space, '<', '>'")
    rules = [
        f"header: {' | '.join([*forms, *calls])}",
        f'role: {start} "assistant" header',
        # Another message may follow a call.
        *([f"more: ({end} role?)?"] if calls else []),
        *elements.rules,
    ]
    first, later = (
        Grammar.trusted_lark("\n".join([f"start: {begin}", *rules]))
        for begin in ("header", "role" if must_call or final else "role?")
    )
    return first, later


class RecipientConstraint(MessageConstraint):
    """The constraint of an answer with recipients; see `MessageConstraint`. A format applies to the user's message."""

    end: str = "<|eom|>"

    @staticmethod
    def make(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> HeaderGrammars:
        """Build the grammars of headers; see `MessageConstraint.make`."""
        return _grammars(vocabulary, tools, must_call, final)

    def _is_call(self, text: bytes) -> bool:
        # The grammar is complete after the header of another message only: a call may always be followed by one.
        return False

    def _is_final(self, header: bytes) -> bool:
        return b"to=self" not in header
