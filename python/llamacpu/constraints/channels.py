"""Constraints for answers in channels, as gpt-oss writes them (OpenAI's "harmony" format; see chat/harmony.py).

Reasoning is free. A tool call must follow its schema from its header on; a format applies to the channel "final".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llamacpu.chat.found_calls import CODE_TOOLS
from llamacpu.constraints.compiler import Matcher, Vocabulary, compiler_of, schema_text, vocabulary_of
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.grammar_texts import quoted
from llamacpu.constraints.json_schema import prepared
from llamacpu.constraints.tool_definitions import for_objects, function_of, parameters_of
from llamacpu.errors import GrammarError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.constraints.grammar import GrammarConstraint
    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["ChannelConstraint"]

_START, _END, _CALL = "<|start|>", "<|end|>", "<|call|>"
_CALLED = re.compile(r"to=functions\.|to=(?:python|code_interpreter)\b")
# Names that a header can contain.
_NAME = re.compile(r"(?!functions\.)[^\s<]+")


class ChannelConstraint:
    """A logits processor for an answer in channels, after a prompt that ends with the role. For one answer only.

    tools: definitions as in the OpenAI interface. No other tools can be called; the arguments of those with
    `"strict": true` are valid under their schema, and those of the rest are an object.
    must_call: the answer is a call, possibly after reasoning.
    final: the grammar of the channel "final". With it, there are no calls.

    An answer with required content cannot end before it: where the model wants it to, only the message is ended.

    Raises GrammarError for a schema that cannot be used.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        tools: Sequence[Any] = (),
        *,
        must_call: bool = False,
        final: Grammar | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary_of(tokenizer)
        self._final, self._bound = final, must_call or final is not None
        self._first, self._next = _grammars_of(tokenizer, tools, must_call, final is not None)
        self._start = self._vocabulary.control_token(_START)
        self._ends = sorted(tokenizer.eog)
        self._cancel: CancelToken | None = None
        self._seen: int | None = None
        # The text since the header began, or its last bytes, which may be part of the tag that ends a message.
        self._text = b""
        self._matcher: Matcher | None = None
        self._answer: GrammarConstraint | None = None
        self._forced: list[int] = []
        self._begin(self._first)

    def stop_with(self, cancel: CancelToken) -> None:
        """Stop before the next step, raising `Cancelled`, once this token is cancelled."""
        self._cancel = cancel
        if self._matcher is not None:
            self._matcher.cancel = cancel
        if self._answer is not None:
            self._answer.stop_with(cancel)

    def __call__(self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mask the tokens that may not come next, in place. `ids` are the prompt and the text so far."""
        if self._answer is None:
            for token in ids[self._seen :].tolist() if self._seen is not None else ():
                self._take(token)
            self._seen = len(ids)
        if self._answer is not None:
            return self._answer(ids, logits)
        if self._matcher is not None:
            self._matcher.mask(logits)
        else:
            self._mask_message(logits)
        return logits

    def _begin(self, header: Grammar) -> None:
        self._matcher = Matcher(header.source, self._tokenizer)
        self._matcher.cancel = self._cancel
        self._text = b""

    def _take(self, token: int) -> None:
        self._text += self._vocabulary.text_of(token)
        if self._matcher is not None:
            self._matcher.consume(token)
            if self._matcher.stopped and not _CALLED.search(self._text.decode(errors="replace")):
                self._begin_message()
            return
        if self._forced:
            del self._forced[0]
        if _END.encode() in self._text:
            self._forced = []
            self._begin(self._next)
        self._text = self._text[-len(_END) :]

    def _begin_message(self) -> None:
        header, self._matcher, self._text = self._text, None, b""
        if self._final is not None and b"final" in header:
            self._answer = self._final.constraint(self._tokenizer)
            if self._cancel is not None:
                self._answer.stop_with(self._cancel)

    def _mask_message(self, logits: npt.NDArray[np.float32]) -> None:
        """Leave the text of a message free, up to its end."""
        import numpy as np

        if self._start is not None:
            logits[self._start] = -np.inf
        if not self._bound:
            return
        if not self._forced and self._ends and int(logits.argmax()) in self._ends:
            self._forced = self._tokenizer.encode(_END, add_special=False, parse_special=True, space_prefix=False)
        if self._forced:
            chosen = self._forced[0]
            likes = logits[chosen]
            logits[:] = -np.inf
            logits[chosen] = likes if np.isfinite(likes) else 0.0
            return
        logits[self._ends] = -np.inf


def _grammars_of(tokenizer: Tokenizer, tools: Sequence[Any], must_call: bool, final: bool) -> tuple[Grammar, Grammar]:
    """The grammars of the first header and of later ones, built once per vocabulary."""
    compiler = compiler_of(tokenizer)
    make = partial(_made, compiler.vocabulary, tools, must_call, final)
    try:
        return compiler.made(json.dumps(["channels", tools, must_call, final]), make)
    except (TypeError, ValueError, RecursionError):
        return make()


def _made(vocabulary: Vocabulary, tools: Sequence[Any], must_call: bool, final: bool) -> tuple[Grammar, Grammar]:
    """Build the grammars of message headers, including a function's arguments after the header of its call."""

    def mark(tag: str) -> str:
        token = vocabulary.control_token(tag)
        return quoted(tag) if token is None else f"<[{token}]>"

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
    role = f'{mark(_START)} "assistant" header'
    return tuple(
        Grammar.trusted_lark("\n".join([f"start: {start}", header, *rules, "CODE: /(.|\\n)+/"]))
        for start in ("header", role if must_call or final else f"({role})?")
    )  # type: ignore[return-value]


def _arguments(function: Mapping[str, Any], must_call: bool) -> str:
    """The schema of a function's arguments, enforced if the function is strict or must be called."""
    if function.get("strict") is True or not must_call:
        return schema_text(parameters_of(function), strict=True)
    parameters = function.get("parameters")
    schema = {"type": "object", "properties": {}} if parameters is None else parameters
    return schema_text(for_objects(prepared(schema), str(function["name"])))
