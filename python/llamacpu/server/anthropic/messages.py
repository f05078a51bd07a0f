"""POST /v1/messages and /v1/messages/count_tokens."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from llamacpu.answers import chat_prompt
from llamacpu.server.anthropic.answers import Shape
from llamacpu.server.anthropic.requests import CountBody, MessagesBody
from llamacpu.server.errors import ApiError
from llamacpu.server.prompts import chat_questions, check_choice, check_schema, using
from llamacpu.server.single import one_answer
from llamacpu.server.streams import JsonResponse, server_sent

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call
    from llamacpu.server.running import Run

__all__ = ["count_tokens", "messages"]

_PING = server_sent({"type": "ping"}, "ping")


async def messages(call: Call) -> Response:
    """Answer a conversation."""
    body: MessagesBody = call.body
    tools = [tool.for_template() for tool in body.tools or ()]
    choice = None if body.tool_choice is None else body.tool_choice.as_openai()
    check_choice(choice, tools)
    form = body.form()
    check_schema(call.state, tools, "tools")
    check_schema(call.state, form, "output_config")
    async with using(call, body.model) as use:
        (question,) = await use.questions(
            chat_questions,
            body.conversation(),
            sampling={"temperature": body.temperature, "top_p": body.top_p, "top_k": body.top_k},
            tools=tools or None,
            tool_choice=choice,
            response_format=form,
            variables=body.variables(),
            streamed=bool(body.stream),
            stop=body.stop_sequences or (),
            max_tokens=body.max_tokens,
        )
        use.says(body.conversation())
        one_call = body.tool_choice is not None and bool(body.tool_choice.disable_parallel_tool_use)
        shape = Shape(f"msg_{uuid.uuid4().hex}", use.served.name, one_call)

        def pieces(run: Run) -> AsyncIterator[str]:
            return shape.events(run, len(question.prompt))

        return await one_answer(
            call, use, question, whole=shape.whole, pieces=pieces if body.stream else None,
            on_error=_failed, ping=_PING,
        )  # fmt: skip


async def count_tokens(call: Call) -> Response:
    """Count the tokens of a conversation as a prompt."""
    body: CountBody = call.body
    tools = [tool.for_template() for tool in body.tools or ()]
    check_schema(call.state, tools, "tools")
    async with using(call, body.model) as use:
        chat, variables = use.served.chat, body.variables()
        work = call.state.work.short(chat_prompt, chat, body.conversation(), tools or None, variables)
        return JsonResponse({"input_tokens": len((await work).ids)})


def _failed(error: ApiError) -> str:
    return server_sent(error.anthropic(), "error")
