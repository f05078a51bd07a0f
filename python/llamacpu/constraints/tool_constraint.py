"""Tool calls kept valid while the rest of an answer is free.

    generate(session, prompt, logits_processors=[ToolCallConstraint(tools, model.tokenizer)])

A model decides by itself whether it calls a tool, and each family opens a call in its own way: `{"name": ...` (Llama
3.1), `[f(...` (Llama 3.2 and 4), or a tag such as `<tool_call>`, `<|python_tag|>` and `[TOOL_CALLS]`. Text is free
until one of these may have begun; from its first character on, a grammar lets through either a valid call, or text
that is none. A grammar costs time only then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.chat.answer import CALL_TAGS, REASONING_TAGS
from llamacpu.constraints.grammar import Grammar, Matcher, vocabulary_of
from llamacpu.constraints.tool_grammar import BARE, ToolGrammars, function_of, quoted

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["ToolCallConstraint", "any_strict"]

# What begins like a call without a tag and has not become one within so many bytes is text.
_DECIDED = 100


def any_strict(tools: Sequence[Any]) -> bool:
    """Whether one of the tools asks for arguments that are valid for certain (`"strict": true`)."""
    return any(function_of(tool).get("strict") is True for tool in tools)


class ToolCallConstraint:
    """A logits processor under which every tool call is complete and valid, and text is free. For one answer only.

    tools: definitions as in the OpenAI interface. The arguments of those with `"strict": true` are valid under their
    schema, which must be that of an object; the arguments of others are an object. Only tools on offer are called.
    begins_reasoning: the prompt has opened reasoning: the tag that closes it, or True for the usual one. What stands in
    reasoning is no call.

    Raises GrammarError for a schema that cannot be used.
    """

    def __init__(self, tools: Sequence[Any], tokenizer: Tokenizer, begins_reasoning: bool | str | None = False) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary_of(tokenizer)
        grammars = ToolGrammars(tools, self._mark)
        # Tags that are tokens of their own, and tags that are spelled.
        special = [tag for tag in CALL_TAGS if self._vocabulary.control_token(tag) is not None]
        spelled = [tag for tag in CALL_TAGS if tag not in special]
        self._at_start = grammars.begun(spelled, bare=True)
        self._in_text = grammars.begun(spelled, bare=False)
        after = {tag: grammars.after(tag) for tag in special}
        self._after = {tag.encode(): grammar for tag, grammar in after.items() if grammar is not None}
        # Nothing can follow these.
        forbidden = [self._vocabulary.control_token(tag) for tag, grammar in after.items() if grammar is None]
        self._forbidden = [token for token in forbidden if token is not None]
        self._spelled = [tag.encode() for tag in spelled]
        self._tags = [tag.encode() for tag in CALL_TAGS]
        self._thoughts = [(opening.encode(), closing.encode()) for opening, closing in REASONING_TAGS]
        self._matcher: Matcher | None = None
        self._seen: int | None = None
        # How many bytes came so far, and how many before the stretch that the grammar decides about.
        self._bytes = self._stretch = 0
        # The text since the state began; what the state is, and what ends a stretch of reasoning.
        self._text = b""
        self._state = "thought" if begins_reasoning else "start"
        self._closing = begins_reasoning.encode() if isinstance(begins_reasoning, str) else self._thoughts[0][1]

    def _mark(self, tag: str) -> str:
        token = self._vocabulary.control_token(tag)
        return quoted(tag) if token is None else f"<[{token}]>"

    def __call__(self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Forbid what would make a call invalid, in place. `ids` are the prompt and the text so far."""
        if self._seen is not None:
            for token in ids[self._seen :].tolist():
                self._take(token)
        self._seen = len(ids)
        if self._matcher is not None:
            self._matcher.mask(logits)
        elif self._forbidden and self._state != "thought":
            logits[self._forbidden] = -math.inf
        return logits

    def _take(self, token: int) -> None:
        if self._matcher is not None:
            self._matcher.consume(token)
        added = self._vocabulary.text_of(token)
        self._text += added
        self._bytes += len(added)
        {"start": self._look_at_start, "content": self._look_in_text, "call": self._look_in_call,
         "thought": self._look_in_thought}[self._state]()  # fmt: skip

    def _look_in_call(self) -> None:
        if self._matcher is None or self._matcher.stopped:
            self._matcher, self._state, self._text = None, "start", b""

    def _look_in_thought(self) -> None:
        place = self._text.find(self._closing)
        if place >= 0:
            self._state, self._text = "start", self._text[place + len(self._closing) :]
            self._look_at_start()

    def _look_at_start(self) -> None:
        self._text = text = self._text.lstrip()
        for opening, closing in self._thoughts:
            if text.startswith(opening):
                self._matcher, self._state, self._text, self._closing = None, "thought", text[len(opening) :], closing
                return self._look_in_thought()
        if not text or self._tag_found():
            return None
        if BARE.match(text):
            self._state = "call"
            return self._put_to_work(self._at_start, text)
        if any(tag.startswith(text) for tag in self._spelled):
            return self._put_to_work(self._at_start, text)
        # A tag that begins inside ends the hope for a bare call, as none holds the beginning of one there.
        if text[:1] in (b"{", b"[") and len(text) < _DECIDED and not self._tag_begun():
            return self._put_to_work(self._at_start, text)
        if any(opening.startswith(text) for opening, _ in self._thoughts):
            return None
        self._matcher, self._state = None, "content"
        return self._look_in_text()

    def _look_in_text(self) -> None:
        if self._tag_found():
            return None
        for _, closing in self._thoughts:
            # Reasoning that nothing opened ends: a call may begin behind it.
            if closing in self._text:
                self._matcher, self._state, self._text = None, "start", self._text.partition(closing)[2]
                return self._look_at_start()
        begun = self._tag_begun()
        if begun:
            if self._stretch != self._bytes - begun:
                self._matcher = None  # it was at work on another beginning, which came to nothing
            self._put_to_work(self._in_text, self._text[-begun:])
        else:
            self._matcher = None
        self._text = self._text[-_DECIDED:]
        return None

    def _tag_found(self) -> bool:
        """Whether a tag has opened a call."""
        found = [(place, tag) for tag in self._tags if (place := self._text.find(tag)) >= 0]
        if not found:
            return False
        place, tag = min(found)
        self._state = "call"
        if tag in self._after:
            self._matcher = None
            self._put_to_work(self._after[tag], self._text[place + len(tag) :])
        else:
            if self._stretch != self._bytes - len(self._text) + place:
                self._matcher = None
            self._put_to_work(self._in_text, self._text[place:])
        return True

    def _tag_begun(self) -> int:
        """Length of the longest end of the text that begins a spelled tag."""
        return max((_begun(self._text, tag) for tag in self._spelled), default=0)

    def _put_to_work(self, grammar: Grammar, begun: bytes) -> None:
        """Let the grammar decide about a stretch that has begun, unless one does already."""
        if self._matcher is None:
            self._matcher = Matcher(grammar, self._tokenizer)
            self._stretch = self._bytes - len(begun)
            if not self._matcher.feed(begun):
                # One token held both the opening and something that no call goes on with.
                self._matcher, self._state = None, "content"


def _begun(text: bytes, tag: bytes) -> int:
    """Length of the longest end of the text that begins the tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
