"""POST /v1/responses, and its entry in the table of endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamacpu.server.endpoints import Endpoint
from llamacpu.server.prompts import chat_questions, check_choice, check_schema, using
from llamacpu.server.responses.answers import Shape
from llamacpu.server.responses.requests import ResponsesBody
from llamacpu.server.single import one_answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call

__all__ = ["ENDPOINTS"]


async def responses(call: Call) -> Response:
    """Answer a conversation."""
    body: ResponsesBody = call.body
    tools = [tool.for_template() for tool in body.tools or ()]
    choice = body.tool_choice
    check_choice(choice, tools)
    form = body.form()
    check_schema(call.state, tools, "tools")
    check_schema(call.state, form, "text")
    async with using(call, body.model) as use:
        (question,) = await use.questions(
            chat_questions,
            body.conversation(),
            sampling={"temperature": body.temperature, "top_p": body.top_p},
            tools=tools or None,
            tool_choice=choice if choice is None or isinstance(choice, str) else {"function": {"name": choice.name}},
            response_format=form,
            variables=body.variables(),
            streamed=bool(body.stream),
            max_tokens=body.max_output_tokens,
            too_long=body.truncation == "auto",
        )
        use.says(body.conversation())
        shape = Shape(body, use.served.name)
        return await one_answer(
            call, use, question, whole=shape.whole,
            pieces=shape.events if body.stream else None, on_error=shape.failed,
            overflow="truncate" if body.truncation == "auto" else "error",
        )  # fmt: skip


_RESPONSE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "status": {"enum": ["completed", "incomplete"]},
        "output": {"type": "array", "items": {"type": "object", "required": ["id", "type"]}},
    },
    "required": ["id", "object", "created_at", "status", "model", "output", "usage"],
}

ENDPOINTS = [
    Endpoint(
        method="POST", path="/v1/responses", summary="Create a response.", handler=responses, body=ResponsesBody,
        response=_RESPONSE, stream="text/event-stream",
    )
]  # fmt: skip
