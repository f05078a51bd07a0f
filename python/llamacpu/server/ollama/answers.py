"""Responses to generate and chat, on one line or on many."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from llamacpu.answers.log_probabilities import LogProbabilities
from llamacpu.answers.reading import Piece, ToolCall
from llamacpu.server.errors import ApiError
from llamacpu.server.single import one_answer
from llamacpu.server.streams import encoded
from llamacpu.server.usage import finish_reason

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.answers import Question
    from llamacpu.answers.reading import Event
    from llamacpu.generation import GeneratedToken
    from llamacpu.server.endpoints import Call
    from llamacpu.server.ollama.requests import Answering
    from llamacpu.server.prompts import Use
    from llamacpu.server.running import End, Run

__all__ = ["Form", "Line", "answered", "now"]

Line = dict[str, Any]
Form = Callable[[str, str, Sequence[ToolCall]], Line]
"""(content, thinking, calls) -> the fields of a line that contain them: "response" or "message"."""


def now() -> str:
    """Return the current time in Ollama's format."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")


async def answered(
    call: Call, use: Use, question: Question, form: Form, *, started: int, loaded: int, more: Callable[[End], Line]
) -> Response:
    """Return the response to a request; started, loaded: when it began and had its model (monotonic ns)."""
    body: Answering = call.body
    name = body.wanted or use.served.name
    tokenizer = use.served.model.tokenizer
    told = LogProbabilities(tokenizer, 0) if body.logprobs else None

    def line(content: str, thinking: str, calls: Sequence[ToolCall], tokens: Sequence[GeneratedToken]) -> Line:
        found = {"model": name, "created_at": now(), **form(content, thinking, calls), "done": False}
        if told is not None:
            told.note(tokens)
            rows = told.as_objects()
            if rows:
                found["logprobs"] = rows
        return found

    def last(end: End, found: Line) -> Line:
        result = end.answer.result
        reason = finish_reason(end.answer.finish_reason)
        return {
            **found,
            **({} if end.refusal is None else form(end.refusal, "", ())),
            "done": True,
            "done_reason": "content_filter" if end.refusal else "length" if reason == "length" else "stop",
            **more(end),
            "total_duration": time.monotonic_ns() - started,
            "load_duration": loaded - started,
            "prompt_eval_count": result.prompt_tokens,
            "prompt_eval_duration": int(result.timings.prompt_seconds * 1e9),
            "eval_count": len(result.tokens),
            "eval_duration": int(result.timings.generate_seconds * 1e9),
        }

    def whole(end: End) -> Line:
        answer = end.answer
        return last(end, line(answer.content, answer.reasoning, answer.tool_calls, end.tokens))

    async def lines(run: Run) -> AsyncIterator[str]:
        async for step in run:
            yield encoded(line(*_parts(step.event), step.tokens)) + "\n"
        assert run.end is not None
        yield encoded(last(run.end, line("", "", (), run.end.tokens))) + "\n"

    return await one_answer(
        call, use, question, whole=whole, pieces=lines if body.streamed else None,
        on_error=lambda error: encoded(error.ollama()) + "\n", media_type="application/x-ndjson", ping=None,
        overflow="error" if body.truncate is False else "truncate",
    )  # fmt: skip


def _parts(event: Event) -> tuple[str, str, Sequence[ToolCall]]:
    if isinstance(event, Piece):
        return (event.text, "", ()) if event.kind == "content" else ("", event.text, ())
    return "", "", (event,)


def arguments_of(call: ToolCall) -> Line:
    """Return the arguments of a call as an object."""
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def loaded_only(name: str, fields: Line, unload: bool) -> Line:
    """Return the response to a request without a prompt, which loads or unloads a model."""
    reason = "unload" if unload else "load"
    return {"model": name, "created_at": now(), **fields, "done": True, "done_reason": reason}


def refuse_changes(what: str) -> ApiError:
    """Return the error for requests to change the set of models."""
    return ApiError(
        400, f"this server does not {what} models: it serves the files that it was started with; put the file into "
        "its folder, or start it with the file", code="not_supported",
    )  # fmt: skip
