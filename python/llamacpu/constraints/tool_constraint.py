"""Constrained tool calls: every call is valid, while the rest of an answer is free.

    generate(session, prompt, logits_processors=[ToolCallConstraint(tools, model.tokenizer)])

A model decides by itself whether it calls a tool, and each family opens a call in its own way: `{"name": ...` (Llama
3.1), `[f(...` (Llama 3.2 and 4), or a tag such as `<tool_call>`, `<|python_tag|>` and `[TOOL_CALLS]`. Text is free
until one of these may have begun; from its first character on, a grammar allows either a valid call or text that is
not a call. The grammar costs time only then.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.chat.marks import CALL_TAGS, ENDS_THOUGHT
from llamacpu.chat.reasoning import ANYWHERE, REASONING_TAGS
from llamacpu.constraints.compiler import Matcher, Vocabulary, compiler_of, vocabulary_of
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.tool_grammar import BARE, ToolGrammars

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["ToolCallConstraint"]

# What begins like a call without a tag and has not become one within this many bytes is text.
_DECIDED = 100
# Openings of calls are no longer than this, except with long function names.
_LONGEST_OPENING = 512
_ANYWHERE = tuple((opening.encode(), closing.encode()) for opening, closing in ANYWHERE.items())
_ENDS_THOUGHT = tuple(tag.encode() for tag in ENDS_THOUGHT)
_ALL = re.compile(rb"(?:\A|(?<=\n))>>>all\n")


class ToolCallConstraint:
    """A logits processor that keeps every tool call complete and valid; text is free. For one answer only.

    tools: definitions as in the OpenAI interface. The arguments of those with `"strict": true` are valid under their
    schema, which must describe an object; the arguments of the rest are an object. No other tools can be called.
    begins_reasoning: the prompt has opened reasoning: the tag that closes it, or True for the usual one. Text inside
    the reasoning is not a call.
    begins_recipient: the prompt ends with ``>>>``: an answer begins with its recipient, and so does each of its parts.

    Raises GrammarError for a schema that cannot be used.
    """

    def __init__(
        self,
        tools: Sequence[Any],
        tokenizer: Tokenizer,
        begins_reasoning: bool | str | None = False,
        begins_recipient: bool = False,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary_of(tokenizer)
        self._grammars = _grammars_of(tokenizer, tools, begins_recipient)
        self._cancel: CancelToken | None = None
        self._tags = [tag.encode() for tag in CALL_TAGS]
        self._thoughts = [(opening.encode(), closing.encode()) for opening, closing in REASONING_TAGS]
        self._matcher: Matcher | None = None
        self._seen: int | None = None
        # How many bytes there are so far, and how many before the stretch that the grammar decides about.
        self._bytes = self._stretch = 0
        # The text since the state began, the state itself, and the tag that ends a stretch of reasoning.
        self._text = b""
        self._state = "thought" if begins_reasoning else "start"
        self._closing = begins_reasoning.encode() if isinstance(begins_reasoning, str) else self._thoughts[0][1]
        if self._grammars.first is not None and not begins_reasoning:
            self._state = "recipient"
            self._put_to_work(self._grammars.first, b"")

    def stop_with(self, cancel: CancelToken) -> None:
        """Stop before the next step, raising `Cancelled`, once this token is cancelled."""
        self._cancel = cancel
        if self._matcher is not None:
            self._matcher.cancel = cancel

    def __call__(self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mask the tokens that would make a call invalid, in place. `ids` are the prompt and the text so far."""
        if self._seen is not None:
            for token in ids[self._seen :].tolist():
                self._take(token)
        self._seen = len(ids)
        if self._matcher is not None:
            self._matcher.mask(logits)
        elif self._grammars.forbidden and self._state != "thought":
            logits[self._grammars.forbidden] = -math.inf
        return logits

    def _take(self, token: int) -> None:
        if self._matcher is not None:
            self._matcher.consume(token)
        added = self._vocabulary.text_of(token)
        self._text += added
        self._bytes += len(added)
        {"start": self._look_at_start, "content": self._look_in_text, "call": self._look_in_call,
         "thought": self._look_in_thought, "recipient": self._look_at_recipient}[self._state]()  # fmt: skip

    def _look_at_recipient(self) -> None:
        if self._matcher is None or self._matcher.stopped:
            self._matcher, self._state, self._text = None, "start", b""

    def _look_in_call(self) -> None:
        if self._matcher is None or self._matcher.stopped:
            self._matcher, self._state, self._text = None, "start", b""

    def _look_in_thought(self) -> None:
        place = self._text.find(self._closing)
        calls = [found for tag in _ENDS_THOUGHT if (found := self._text.find(tag)) >= 0]
        if calls and not 0 <= place < min(calls):
            self._state, self._text = "start", self._text[min(calls) :]
            self._look_at_start()
        elif place >= 0:
            self._state, self._text = "start", self._text[place + len(self._closing) :]
            self._look_at_start()
        else:
            self._text = self._text[-_LONGEST_OPENING:]

    def _look_at_start(self) -> None:
        self._text = text = self._text.lstrip()
        if self._grammars.first is not None and text.startswith(b">>>all\n"):
            self._matcher, self._text = None, text[len(b">>>all\n") :]
            return self._look_at_start()
        for opening, closing in self._thoughts:
            if text.startswith(opening):
                self._matcher, self._state, self._text, self._closing = None, "thought", text[len(opening) :], closing
                return self._look_in_thought()
        if not text or self._opened(at_start=True):
            return None
        if BARE.match(text):
            self._state = "call"
            return self._put_to_work(self._grammars.at_start, text)
        if self._begun(at_start=True) == len(text):
            return self._put_to_work(self._grammars.at_start, text)
        # A tag that begins inside rules out a bare call, which cannot contain the beginning of one there.
        if text[:1] in (b"{", b"[") and len(text) < _DECIDED and not self._begun(at_start=True):
            return self._put_to_work(self._grammars.at_start, text)
        if any(opening.startswith(text) for opening, _ in self._thoughts):
            return None
        self._matcher, self._state = None, "content"
        return self._look_in_text()

    def _look_in_text(self) -> None:
        if self._opened(at_start=False):
            return None
        everyone = _ALL.search(self._text) if self._grammars.first is not None else None
        if everyone is not None and everyone.start() > 0:
            self._matcher, self._state, self._text = None, "start", self._text[everyone.end() :]
            return self._look_at_start()
        for opening, closing in _ANYWHERE:
            _, found, after = self._text.partition(opening)
            if found:
                self._matcher, self._state, self._text, self._closing = None, "thought", after, closing
                return self._look_in_thought()
        for opening, closing in self._thoughts:
            # This ends reasoning that no tag opened: a call may follow it.
            if closing in self._text and (opening, closing) not in _ANYWHERE:
                self._matcher, self._state, self._text = None, "start", self._text.partition(closing)[2]
                return self._look_at_start()
        begun = self._begun(at_start=False)
        if begun:
            if self._stretch != self._bytes - begun:
                self._matcher = None  # it was matching another beginning, which came to nothing
            self._put_to_work(self._grammars.in_text, self._text[-begun:])
        else:
            self._matcher = None
        self._text = self._text[-_LONGEST_OPENING:]
        return None

    def _opened(self, at_start: bool) -> bool:
        """Whether a call has been opened, by a tag or by another opening that only calls have."""
        found = [(place, tag) for tag in self._tags if (place := self._text.find(tag)) >= 0]
        for opening in self._grammars.openings:
            places = (match.start() for match in opening.opens.finditer(self._text))
            found += [(place, b"") for place in places if opening.may_stand(self._text, place, at_start)][:1]
        if not found:
            return False
        place, tag = min(found)
        self._state = "call"
        if tag in self._grammars.after:
            self._matcher = None
            self._put_to_work(self._grammars.after[tag], self._text[place + len(tag) :])
        else:
            if self._stretch != self._bytes - len(self._text) + place:
                self._matcher = None
            leads = at_start and place == 0
            self._put_to_work(self._grammars.at_start if leads else self._grammars.in_text, self._text[place:])
        return True

    def _begun(self, at_start: bool) -> int:
        """Length of the longest suffix of the text that begins a spelled tag or another opening."""
        longest = max((_begun(self._text, tag) for tag in self._grammars.spelled), default=0)
        for opening in self._grammars.openings:
            longest = max(longest, opening.begun_in(self._text, at_start))
        return longest

    def _put_to_work(self, grammar: Grammar, begun: bytes) -> None:
        """Let the grammar decide about a stretch that has begun, unless one already does."""
        if self._matcher is None:
            self._matcher = Matcher(grammar.source, self._tokenizer)
            self._matcher.cancel = self._cancel
            self._stretch = self._bytes - len(begun)
            if not self._matcher.feed(begun):
                # One token contained both the opening and something that cannot continue a call.
                self._matcher, self._state = None, "content"


class _Opening(NamedTuple):
    """An opening of calls other than a tag, as bytes."""

    first: bytes
    opens: re.Pattern[bytes]
    begun: re.Pattern[bytes]
    leads: bool

    def may_stand(self, text: bytes, place: int, at_start: bool) -> bool:
        """Whether a call can be opened here: a recipient must begin a line."""
        if self.leads:
            return at_start and place == 0
        return self.first != b">" or (at_start if place == 0 else text[place - 1] == ord("\n"))

    def begun_in(self, text: bytes, at_start: bool) -> int:
        """Length of the longest suffix of the text that may become the opening."""
        place = text.find(self.first)
        while place >= 0:
            if self.may_stand(text, place, at_start) and self.begun.fullmatch(text, place):
                return len(text) - place
            place = text.find(self.first, place + 1)
        return 0


class _Grammars(NamedTuple):
    """What a set of tools needs, built once per vocabulary.

    at_start, in_text   from the beginning of an opening on, where calls without a tag are allowed or not
    after               after the tags that are single tokens, by tag
    forbidden           tokens that nothing can follow
    spelled             the other tags
    openings            what else opens a call
    first               the recipient that a prompt asks for with ``>>>``
    """

    at_start: Grammar
    in_text: Grammar
    after: dict[bytes, Grammar]
    forbidden: list[int]
    spelled: list[bytes]
    openings: list[_Opening]
    first: Grammar | None


def _grammars_of(tokenizer: Tokenizer, tools: Sequence[Any], recipients: bool) -> _Grammars:
    compiler = compiler_of(tokenizer)
    try:
        key = json.dumps([tools, recipients])
    except (TypeError, ValueError, RecursionError):
        return _made(compiler.vocabulary, tools, recipients)
    return compiler.made(key, partial(_made, compiler.vocabulary, tools, recipients))


def _made(vocabulary: Vocabulary, tools: Sequence[Any], recipients: bool) -> _Grammars:
    grammars = ToolGrammars(tools, vocabulary.marked, recipients)
    # Tags that are single tokens, and tags that are spelled out.
    special = {tag: token for tag in CALL_TAGS if (token := vocabulary.control_token(tag)) is not None}
    spelled = [tag for tag in CALL_TAGS if tag not in special]
    after = {tag: grammars.after(tag) for tag in special}
    return _Grammars(
        at_start=grammars.begun(spelled, bare=True),
        in_text=grammars.begun(spelled, bare=False),
        after={tag.encode(): grammar for tag, grammar in after.items() if grammar is not None},
        forbidden=[special[tag] for tag, grammar in after.items() if grammar is None],
        spelled=[tag.encode() for tag in spelled],
        openings=[
            _Opening(
                opening.first.encode(),
                re.compile(opening.opens.encode()),
                re.compile(opening.begun.encode()),
                opening.leads,
            )
            for opening in grammars.openings
        ],
        first=grammars.first_recipient(),
    )


def _begun(text: bytes, tag: bytes) -> int:
    """Length of the longest suffix of the text that begins the tag."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
