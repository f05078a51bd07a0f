"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from llamacpu.answers.tools import tools_of
from llamacpu.server.errors import invalid
from llamacpu.server.openai.answering import answered
from llamacpu.server.openai.requests import ChatRequest, stops
from llamacpu.server.openai.shapes import ChatChoice
from llamacpu.server.prompts import chat_questions, check_choice, check_schema, using

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call

__all__ = ["chat_completions"]


async def chat_completions(call: Call) -> Response:
    """Answer a conversation."""
    body: ChatRequest = call.body
    count = body.n or 1
    if count > call.state.settings.choices:
        raise invalid(f"n is {count}; this server gives up to {call.state.settings.choices} answers at once", "n")
    if body.top_logprobs is not None and not body.logprobs:
        raise invalid("top_logprobs is given without logprobs; set logprobs to true", "top_logprobs")
    tools = [tool.for_template() for tool in body.tools or ()]
    functions = [function.model_dump(exclude_none=True) for function in body.functions or ()]
    check_schema(call.state, [tools, functions], "tools")
    form = body.form()
    check_schema(call.state, form, "response_format")
    check_schema(call.state, body.grammar or "", "grammar")
    choice = body.tool_choice if body.tool_choice is not None else body.function_call
    if not isinstance(choice, str) and choice is not None:
        choice = choice.model_dump()  # type: ignore[assignment]
    check_choice(choice, tools or functions)
    async with using(call, body.model) as use:
        served = use.served
        top = (body.top_logprobs or 0) if body.logprobs else None
        questions = await use.questions(
            chat_questions,
            [message.for_template() for message in body.messages],
            count=count,
            sampling={**body.sampling(), "logit_bias": body.bias()},
            tools=tools_of(functions, tools),
            tool_choice=choice,
            response_format=form,
            grammar=body.grammar,
            variables=body.variables(),
            continue_last=bool(body.continue_final_message),
            streamed=bool(body.stream),
            stop=stops(body.stop),
            max_tokens=body.max_completion_tokens or body.max_tokens,
            log_probabilities=top,
            ignore_end=bool(body.ignore_eos),
        )
        use.says([message.for_template() for message in body.messages])
        name = f"chatcmpl-{uuid.uuid4()}"
        choices = [
            ChatChoice(
                served.name, served.model.tokenizer, logprobs=top is not None, legacy=bool(functions) and not tools,
                id=name, index=index, one_call=body.parallel_tool_calls is False,
            )
            for index in range(count)
        ]  # fmt: skip
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await answered(call, use, questions, choices, bool(body.stream), usage)
