"""Answers made of messages with headers: what their prompts, constraints and readers need (gpt-oss, Muse Glimmer).

source: the chat template, which shows whether the headers name channels or recipients. Only what a question needs is
imported, which shortens the time to the first token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.chat.reasoning import names_recipients
from llamacpu.chat.segments import Segment

if TYPE_CHECKING:
    from llamacpu.chat.events import Reader
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.generation.request import LogitsProcessor
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["begun", "constraint", "reader"]


def begun(reasoning: str, source: str) -> list[Segment]:
    """What precedes an answer that has begun, after a prompt that ends with the role: its reasoning and its header."""
    thought, ended, answer = (
        (" to=self<|message|>", "<|eom|><|start|>assistant", " to=user<|message|>")
        if names_recipients(source)
        else ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant", "<|channel|>final<|message|>")
    )
    before = [Segment(thought, True), Segment(reasoning, False), Segment(ended, True)] if reasoning else []
    return [*before, Segment(answer, True)]


def constraint(
    tokenizer: Tokenizer, source: str, tools: Sequence[Any], must_call: bool, final: Grammar | None, begun: bool
) -> LogitsProcessor:
    """The constraint of an answer: its calls are valid, or its last message follows the grammar `final`."""
    if names_recipients(source):
        from llamacpu.constraints.recipients import RecipientConstraint

        return RecipientConstraint(tokenizer, tools, must_call=must_call, final=final, begun=begun)
    from llamacpu.constraints.channels import ChannelConstraint

    return ChannelConstraint(tokenizer, tools, must_call=must_call, final=final, begun=begun)


def reader(source: str, schemas: Mapping[str, Any] | None, *, reasoning: bool, begun: bool) -> Reader:
    """The reader of an answer; `schemas` are those of the functions by name, None without tools."""
    if names_recipients(source):
        from llamacpu.chat.recipients import RecipientReader

        return RecipientReader(schemas, reasoning=reasoning, begun=begun)
    from llamacpu.chat.harmony import HarmonyReader

    return HarmonyReader(schemas, reasoning=reasoning, begun=begun)
