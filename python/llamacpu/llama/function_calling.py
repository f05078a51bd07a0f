"""Chat handlers for models with a special notation for function calls, under llama-cpp-python's names.

    Llama("functionary.gguf", chat_format="functionary-v2")

Constrained by a grammar, the model first chooses between the names of the functions and a text, and then writes
arguments that are valid under the function's schema. In a stream, each call arrives in one piece. The file's own chat
template, which is used without `chat_format`, does more.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from llamacpu.answers.tools import tools_of, wanted_tool
from llamacpu.chat.template import Traced
from llamacpu.constraints.grammar import Grammar
from llamacpu.llama.dialects import ChatMLFunctions, Dialect, Functionary, FunctionaryV1, FunctionaryV2
from llamacpu.llama.formats import ChatFormatterResponse, LlamaChatCompletionHandlerRegistry, OwnHandler

__all__ = [
    "chatml_function_calling",
    "functionary_chat_handler",
    "functionary_v1_v2_chat_handler",
]

# A model that makes more calls than this in one answer is repeating itself.
MOST_CALLS = 32
Call = dict[str, Any]


class _Answers(Protocol):
    """The part of a `Llama` that is used here."""

    def create_chat_completion(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Any: ...


class FunctionCalling(OwnHandler):
    """A chat handler for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect

    def __call__(
        self,
        llama: _Answers,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Any] | None = None,
        function_call: Any = None,
        tools: Sequence[Any] | None = None,
        tool_choice: Any = None,
        stream: bool = False,
        stop: str | Sequence[str] | None = None,
        **settings: Any,
    ) -> Any:
        """Answer the conversation; arguments and result are those of `Llama.create_chat_completion`.

        Raises ValueError if the tool choice names an unknown function.
        """
        stops = [stop] if isinstance(stop, str) else list(stop or ())
        one = _Conversation(llama, self.dialect, messages, [*stops, *self.dialect.stop], settings)
        choice = tool_choice if tool_choice is not None else function_call
        offered = tools_of(functions, tools) if choice != "none" else None
        if not offered:
            return one.answer(one.prompt([]) + self.dialect.plain(), stream=stream)
        known = {tool["function"]["name"]: tool["function"] for tool in offered}
        wanted = wanted_tool(choice)
        if wanted is not None and wanted not in known:
            raise ValueError(f"tool_choice names {wanted!r}; expected one of {', '.join(known)}")
        prompt = one.prompt(list(known.values()))
        name = wanted or one.decide(prompt, known, text=choice != "required")
        if name is None:
            word, behind = self.dialect.text()
            return one.answer(prompt + word + behind, stream=stream)
        several = self.dialect.many and wanted is None
        calls = one.calls(prompt, known, name, several)
        legacy = bool(functions) and not tools
        return _chunks(one, calls, legacy) if stream else _whole(one, calls, legacy)


class _Conversation:
    """One conversation, and the completions that answer it."""

    def __init__(
        self,
        llama: _Answers,
        dialect: Dialect,
        messages: Sequence[Mapping[str, Any]],
        stop: list[str],
        settings: Mapping[str, Any],
    ) -> None:
        self.dialect = dialect
        self.head: dict[str, Any] = {}
        self.usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self._llama = llama
        self._messages = messages
        self._stop = stop
        self._settings = dict(settings)

    def prompt(self, functions: Sequence[Mapping[str, Any]]) -> str:
        """The conversation as text, up to the point where the model decides."""
        return self.dialect.prompt(self._messages, functions)

    def answer(self, prompt: str, **more: Any) -> Any:
        """Continue a prompt; return what the model writes as a chat completion."""
        found = self._llama.create_chat_completion(
            self._messages,
            **{**self._settings, "stop": self._stop, **more, "reasoning": False},
            formatter=lambda **given: ChatFormatterResponse(prompt),
        )
        if not more.get("stream"):
            self.head = {name: found[name] for name in ("id", "created", "model")}
            for name in self.usage:
                self.usage[name] += found["usage"][name]
        return found

    def decide(self, prompt: str, known: Mapping[str, Any], *, text: bool, end: bool = False) -> str | None:
        """The name of the function that the model chooses to call; None for a text, or for the end of its calls."""
        words = {self.dialect.call(name)[0]: name for name in known}
        if len(words) == 1 and not text and not end:
            return next(iter(known))
        forms = [f"{self.dialect.opening} {json.dumps(word, ensure_ascii=False)}".strip() for word in words]
        other = self.dialect.text()[0]
        if text and other:
            forms.append(json.dumps(other, ensure_ascii=False))
        grammar = Grammar.lark(f"start: ({' | '.join(forms)}){'?' if end or (text and not other) else ''}\n")
        asked: dict[str, Any] = {
            "grammar": grammar,
            "response_format": None,
            "temperature": 0.0,
            "max_tokens": None,
            "stop": [],
        }
        written = self.answer(prompt, **asked)["choices"][0]["message"]["content"] or ""
        return words.get(written)

    def calls(self, prompt: str, known: Mapping[str, Any], name: str, several: bool) -> Iterator[Call]:
        """Yield the function calls, starting with one to the function `name`."""
        following: str | None = name
        for _ in range(MOST_CALLS):
            assert following is not None
            word, behind = self.dialect.call(following)
            schema = known[following].get("parameters") or {"type": "object"}
            opening = self.dialect.opening
            found = self.answer(
                prompt + opening + word + behind, grammar=Grammar.json_schema(schema), response_format=None
            )
            arguments = found["choices"][0]["message"]["content"] or ""
            function = {"name": following, "arguments": arguments}
            yield {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
            if not several or found["choices"][0]["finish_reason"] == "length":
                return
            prompt = prompt + opening + word + behind + Traced(arguments) + self.dialect.between()
            following = self.decide(prompt, known, text=False, end=True)
            if following is None:
                return


def _whole(one: _Conversation, calls: Iterator[Call], legacy: bool) -> dict[str, Any]:
    found = list(calls)
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": found}
    if legacy:
        message["function_call"] = dict(found[0]["function"])
    reason = "function_call" if legacy else "tool_calls"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return {**one.head, "object": "chat.completion", "choices": [choice], "usage": one.usage}


def _chunks(one: _Conversation, calls: Iterator[Call], legacy: bool) -> Iterator[dict[str, Any]]:
    name = f"chatcmpl-{uuid.uuid4()}"
    created = int(time.time())

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        head = {"id": name, "object": "chat.completion.chunk", "created": created, "model": one.head.get("model", "")}
        return {**head, "choices": [choice]}

    yield chunk({"role": "assistant"})
    for index, call in enumerate(calls):
        delta: dict[str, Any] = {"tool_calls": [{"index": index, **call}]}
        if legacy and index == 0:
            delta["function_call"] = dict(call["function"])
        yield chunk(delta)
    yield chunk({}, "function_call" if legacy else "tool_calls")


class _FunctionaryOfBoth(OwnHandler):
    """The handler for functionary 1 and 2; the model's vocabulary shows which of them it is."""

    def __call__(self, llama: Any, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """Answer the conversation."""
        first = llama.tokenize(b"<|START_OF_FUNCTION_CALL|>", add_bos=False, special=True)
        dialect: Dialect = FunctionaryV1() if len(first) == 1 else FunctionaryV2()
        return FunctionCalling(dialect)(llama, messages, **settings)


chatml_function_calling: FunctionCalling = FunctionCalling(ChatMLFunctions())
functionary_chat_handler: FunctionCalling = FunctionCalling(Functionary())
functionary_v1_v2_chat_handler: _FunctionaryOfBoth = _FunctionaryOfBoth()

for _name, _handler in (
    ("chatml-function-calling", chatml_function_calling),
    ("functionary", functionary_chat_handler),
    ("functionary-v1", functionary_v1_v2_chat_handler),
    ("functionary-v2", functionary_v1_v2_chat_handler),
):
    LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(_name, _handler, overwrite=True)
