"""The common part of constraints for answers made of messages with headers: `ChannelConstraint`, `RecipientConstraint`.

Reasoning is free. A tool call must follow its schema from its header on; a format applies to the final message.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llamacpu.constraints.compiler import Matcher, Vocabulary, compiler_of, vocabulary_of
from llamacpu.constraints.deferred import DeferredConstraint
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.json_schema import prepared
from llamacpu.constraints.tool_definitions import for_objects, parameters_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["START", "HeaderGrammars", "MessageConstraint", "enforced"]

START = "<|start|>"
HeaderGrammars = tuple[Grammar, Grammar]
"""The grammars of the first header and of later ones, with whatever precedes them and the calls they begin."""


class MessageConstraint(DeferredConstraint):
    """A logits processor for an answer made of messages, after a prompt that ends with the role. For one answer only.

    tools: definitions as in the OpenAI interface. No other tools can be called; the arguments of those with
    `"strict": true` are valid under their schema, and those of the rest are an object.
    must_call: the answer is a call, possibly after reasoning.
    final: the grammar of the final message. With it, there are no calls.
    begun: the prompt ends in the middle of a message.

    An answer with required content cannot end before it: where the model wants it to, only the message is ended.

    Raises GrammarError for a schema that cannot be used.
    """

    end: str
    """The mark that ends a message but not the answer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Any] = (),
        *,
        must_call: bool = False,
        final: Grammar | None = None,
        begun: bool = False,
    ) -> None:
        super().__init__(tokenizer)
        self._vocabulary = vocabulary_of(tokenizer)
        self._final, self._bound = final, must_call or final is not None
        self._first, self._next = self._grammars(tools, must_call)
        self._start = self._vocabulary.control_token(START)
        # The text since the header began, or its last bytes, which may be part of the mark that ends a message.
        self._text = b""
        self._matcher: Matcher | None = None
        if not begun:
            self._begin(self._first)

    def _grammars(self, tools: Sequence[Any], must_call: bool) -> HeaderGrammars:
        """The grammars for these tools, built once per vocabulary."""
        compiler, has_final = compiler_of(self._tokenizer), self._final is not None
        make = partial(type(self).make, compiler.vocabulary, tools, must_call, has_final)
        try:
            return compiler.made(json.dumps([type(self).__name__, tools, must_call, has_final]), make)
        except (TypeError, ValueError, RecursionError):
            return make()

    @staticmethod
    @abstractmethod
    def make(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> HeaderGrammars:
        """Build the grammars; `final` says whether there is a grammar of the final message."""

    def _pass_on(self) -> None:
        super()._pass_on()
        if self._matcher is not None:
            self._matcher.cancel = self._cancel

    def _mask(self, logits: npt.NDArray[np.float32]) -> None:
        if self._matcher is not None:
            self._matcher.mask(logits)
        else:
            self._mask_message(logits)

    @abstractmethod
    def _is_call(self, text: bytes) -> bool:
        """Whether a text that the grammar of headers has completed is a call, after which no message begins."""

    @abstractmethod
    def _is_final(self, header: bytes) -> bool:
        """Whether the message after this header is the one that `final` applies to."""

    def _begin(self, header: Grammar) -> None:
        self._matcher = Matcher(header.source, self._tokenizer)
        self._matcher.cancel = self._cancel
        self._text = b""

    def _take(self, token: int) -> None:
        self._text += self._vocabulary.text_of(token)
        if self._matcher is not None:
            self._matcher.consume(token)
            if self._matcher.stopped and not self._is_call(self._text):
                self._begin_message()
            return
        if self._forced:
            del self._forced[0]
        if self.end.encode() in self._text:
            self._forced = []
            self._begin(self._next)
        self._text = self._text[-len(self.end) :]

    def _begin_message(self) -> None:
        header, self._matcher, self._text = self._text, None, b""
        if self._final is not None and self._is_final(header):
            self._hand_over(self._final.constraint(self._tokenizer))

    def _mask_message(self, logits: npt.NDArray[np.float32]) -> None:
        """Leave the text of a message free, up to its end."""
        import numpy as np

        if self._start is not None:
            logits[self._start] = -np.inf
        if self._bound:
            self._forbid_end(logits, self._end_of_message)

    def _end_of_message(self) -> list[int]:
        return self._tokenizer.encode(self.end, add_special=False, parse_special=True, space_prefix=False)


def enforced(function: Mapping[str, Any], must_call: bool) -> dict[str, Any]:
    """The schema of a function's arguments, enforced if the function is strict or must be called."""
    if function.get("strict") is True or not must_call:
        return parameters_of(function)
    parameters = function.get("parameters")
    schema = {"type": "object", "properties": {}} if parameters is None else parameters
    return for_objects(prepared(schema), str(function["name"]))
