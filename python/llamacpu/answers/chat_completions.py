"""Chat completions in the shapes of the OpenAI interface, as llama-cpp-python returns them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers.completions import LogProbabilities
from llamacpu.chat.answer import AnswerReader, Event, Piece, ToolCall
from llamacpu.constraints.grammar import Grammar

if TYPE_CHECKING:
    from llamacpu.generation import GeneratedToken, Generation
    from llamacpu.text.tokenizer import Tokenizer

Response = dict[str, Any]


def tools_of(functions: Sequence[Any] | None, tools: Sequence[Any] | None) -> list[Any] | None:
    """The tools of a request; `functions` is their older form."""
    if tools:
        return list(tools)
    return [{"type": "function", "function": function} for function in functions] if functions else None


def tool_names(tools: Sequence[Any] | None) -> list[str]:
    """The names of the functions in tool definitions."""
    inner = [tool.get("function", tool) for tool in tools or () if isinstance(tool, Mapping)]
    return [function["name"] for function in inner if isinstance(function, Mapping) and "name" in function]


def wanted_tool(choice: Any) -> str | None:
    """The name of the one function that must be called, or None."""
    if not isinstance(choice, Mapping):
        return None
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f"tool_choice is {choice!r}; expected 'none', 'auto', 'required' or a function's name")
    return name


def grammar_of_tools(tools: Sequence[Any], only: str | None) -> Grammar:
    """The JSON of one call of a tool, its arguments valid under the tool's schema."""
    forms = []
    for tool in tools:
        function = tool.get("function", tool)
        if only in (None, function["name"]):
            parameters = function.get("parameters") or {"type": "object"}
            properties = {"name": {"const": function["name"]}, "parameters": parameters}
            form = {"type": "object", "properties": properties, "required": ["name", "parameters"]}
            forms.append({**form, "additionalProperties": False})
    if not forms:
        raise ValueError(f"tool_choice names {only!r}; expected one of {', '.join(tool_names(tools)) or 'no tools'}")
    return Grammar.json_schema({"anyOf": forms})


def grammar_of_format(response_format: Mapping[str, Any] | None) -> Grammar | None:
    """The grammar that a response format asks for."""
    if response_format is None or response_format.get("type") in (None, "text"):
        return None
    kind = response_format["type"]
    inner = response_format.get("json_schema")
    schema = inner.get("schema", inner) if isinstance(inner, Mapping) else response_format.get("schema")
    if kind == "json_object" or kind == "json_schema":
        if schema is None and kind == "json_schema":
            raise ValueError("response_format has the type json_schema and no schema; expected json_schema.schema")
        return Grammar.any_json() if schema is None else Grammar.json_schema(schema)
    raise ValueError(f"response_format has the type {kind!r}; expected text, json_object or json_schema")


class ChatCompletion:
    """One answer: a running generation, taken apart, and the responses that tell of it."""

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        model: str,
        reader: AnswerReader,
        *,
        top_logprobs: int | None,
        legacy: bool,
    ) -> None:
        self.generation = generation
        self._reader = reader
        self._legacy = legacy
        self._id = f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())
        self._model = model
        self._chances = None if top_logprobs is None else LogProbabilities(tokenizer, 0)

    def on_token(self, token: GeneratedToken) -> None:
        """To be called for every token that is chosen."""
        if self._chances is not None:
            self._chances.add(token.id, token.log_probability)

    def _response(self, kind: str, choice: Response) -> Response:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model}
        return {**head, "choices": [{"index": 0, **choice}]}

    def _logprobs(self) -> Response | None:
        taken = self._chances.taken() if self._chances is not None else None
        if taken is None:
            return None
        rows = zip(taken["tokens"], taken["token_logprobs"], taken["top_logprobs"], strict=True)
        content = [
            {
                "token": token,
                "bytes": None,
                "logprob": chance,
                "top_logprobs": [{"token": t, "logprob": value, "bytes": None} for t, value in top.items()],
            }
            for token, chance, top in rows
        ]
        return {"content": content, "refusal": None}

    def _reason(self) -> str:
        reason = self.generation.result.finish_reason
        if self._reader.calls and reason == "stop":
            return "function_call" if self._legacy else "tool_calls"
        return reason

    def whole(self) -> Response:
        """The finished answer."""
        result = self.generation.read()
        events = self._reader.push(result.text) + self._reader.finish()
        content = "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "content")
        reasoning = "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "reasoning")
        calls = [event for event in events if isinstance(event, ToolCall)]
        message: Response = {"role": "assistant", "content": content if content or not calls else None}
        if reasoning:
            message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [_call(call) for call in calls]
            if self._legacy:
                message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
        choice = {"message": message, "logprobs": self._logprobs(), "finish_reason": self._reason()}
        count = len(result.tokens)
        usage = {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": count,
            "total_tokens": result.prompt_tokens + count,
        }
        return {**self._response("chat.completion", choice), "usage": usage, "timings": result.timings.as_dict()}

    def chunks(self) -> Iterator[Response]:
        """The answer in pieces: first the role, at the end why it ended."""
        with self.generation:
            yield self._chunk({"role": "assistant"})
            for piece in self.generation:
                for event in self._reader.push(piece):
                    yield self._chunk(self._delta(event), self._logprobs())
            for event in self._reader.finish():
                yield self._chunk(self._delta(event), self._logprobs())
            timings = self.generation.result.timings.as_dict()
            yield {**self._chunk({}, self._logprobs(), self._reason()), "timings": timings}

    def _chunk(self, delta: Response, logprobs: Response | None = None, reason: str | None = None) -> Response:
        choice = {"delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._response("chat.completion.chunk", choice)

    def _delta(self, event: Event) -> Response:
        if isinstance(event, Piece):
            return {"content" if event.kind == "content" else "reasoning_content": event.text}
        delta: Response = {"tool_calls": [{"index": event.index, **_call(event)}]}
        if self._legacy:
            delta["function_call"] = {"name": event.name, "arguments": event.arguments}
        return delta


def _call(call: ToolCall) -> Response:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
