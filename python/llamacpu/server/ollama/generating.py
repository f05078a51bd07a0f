"""POST /api/generate and /api/chat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Question, text_prompt
from llamacpu.chat import ChatTemplate, OllamaTemplate, Segment, is_go_template
from llamacpu.chat.shown import text_with_pictures
from llamacpu.errors import TemplateError
from llamacpu.multimodal.sequences import followed_by, text_ids
from llamacpu.server.errors import invalid
from llamacpu.server.ollama.answers import Line, answered, arguments_of, loaded_only
from llamacpu.server.ollama.requests import ChatBody, GenerateBody, seconds_of
from llamacpu.server.prompts import Use, chat_questions, check_schema, text_questions, using
from llamacpu.server.streams import JsonResponse
from llamacpu.text.infill import can_infill

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.answers.reading import ToolCall
    from llamacpu.server.endpoints import Call
    from llamacpu.server.served import Served

__all__ = ["chat", "generate", "keep"]


def keep(use: Use, call: Call) -> None:
    """Keep the model in memory for as long as the request says. Raises ValueError."""
    if call.body.keep_alive is not None:
        use.served.expires_after = seconds_of(call.body.keep_alive)


async def generate(call: Call) -> Response:
    """Answer a prompt, formatted by the chat template unless the request is raw."""
    body: GenerateBody = call.body
    started = time.monotonic_ns()
    check_schema(call.state, body.form, "format")
    async with using(call, body.wanted) as use:
        keep(use, call)
        loaded = time.monotonic_ns()
        if not body.prompt and body.suffix is None and not body.context:
            unload = body.keep_alive is not None and seconds_of(body.keep_alive) == 0
            return JsonResponse(loaded_only(body.wanted or use.served.name, {"response": ""}, unload))
        (question,) = await use.questions(_question, body)
        use.says(_messages(body))

        def form(content: str, thinking: str, calls: Sequence[ToolCall]) -> Line:
            return {"response": content, **({"thinking": thinking} if thinking else {})}

        def more(end: Any) -> Line:
            return {} if body.raw else {"context": [*text_ids(question.prompt), *end.answer.result.tokens]}

        return await answered(call, use, question, form, started=started, loaded=loaded, more=more)


def _question(served: Served, body: GenerateBody) -> list[Question]:
    options, model = body.settings, served.model
    common: dict[str, Any] = {
        "sampling": options.sampling(model.metadata, model.preset.sampling),
        "response_format": body.form,
        "stop": options.stops,
        "max_tokens": options.most_tokens,
        "log_probabilities": (body.top_logprobs or 0) if body.logprobs else None,
        "too_long": body.truncate is not False,
    }
    if body.suffix is not None:
        if not can_infill(model.tokenizer):
            raise invalid(f"{served.name} does not support insert: it was not trained for a suffix", "suffix")
        if body.images:
            raise invalid("images do not go with a suffix, around which text is inserted; leave one out", "images")
        return text_questions(served, [text_prompt(model.tokenizer, body.prompt or "", body.suffix).ids], **common)
    if body.raw:
        own: Sequence[int] = text_prompt(model.tokenizer, body.prompt or "", parse_special=True).ids
        if body.images:
            own = _with_images(served, body, [Segment(body.prompt or "", True)])
        return text_questions(served, [own], **common)
    if body.template:
        written = _templated(served, body, body.template)
        own = _with_images(served, body, written) if body.images else served.chat.encode_segments(written)
        return text_questions(served, [followed_by(body.context or [], own)], **common)
    questions = chat_questions(
        served, _messages(body), variables=body.variables, streamed=body.streamed,
        reasoning=body.think is not False, **common,
    )  # fmt: skip
    if not body.context:
        return questions
    # The context holds the tokens of the conversation so far, including the start token.
    own = questions[0].prompt
    start = 1 if own and own[0] == model.tokenizer.bos else 0
    return text_questions(served, [followed_by(body.context, own[start:])], **common)


def _with_images(served: Served, body: GenerateBody, segments: Sequence[Segment]) -> Sequence[int]:
    """The prompt of texts without messages, with the request's images."""
    context = None if body.truncate is not False else served.context
    return text_with_pictures(served.chat, segments, body.images or (), context)


def _templated(served: Served, body: GenerateBody, template: str) -> list[Segment]:
    """The prompt rendered by the request's template: Ollama's kind, or Jinja with system and prompt as variables."""
    control = served.chat.control_tokens
    try:
        if is_go_template(template):
            return OllamaTemplate(template).segments(_messages(body), control_tokens=control, **body.variables)
        return ChatTemplate(template).segments(
            _messages(body), control_tokens=control, system=body.system or "", prompt=body.prompt or "", suffix=""
        )
    except TemplateError as error:
        raise invalid(str(error), "template") from None


def _messages(body: GenerateBody) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": body.system}] if body.system else []
    images = {"images": body.images} if body.images else {}
    return [*system, {"role": "user", "content": body.prompt or "", **images}]


async def chat(call: Call) -> Response:
    """Answer a conversation."""
    body: ChatBody = call.body
    started = time.monotonic_ns()
    tools = [tool.for_template() for tool in body.tools or ()]
    check_schema(call.state, body.form, "format")
    check_schema(call.state, tools, "tools")
    async with using(call, body.wanted) as use:
        keep(use, call)
        loaded = time.monotonic_ns()
        if not body.messages:
            unload = body.keep_alive is not None and seconds_of(body.keep_alive) == 0
            fields = {"message": {"role": "assistant", "content": ""}}
            return JsonResponse(loaded_only(body.wanted or use.served.name, fields, unload))
        options = body.settings
        use.says([message.for_template() for message in body.messages])
        (question,) = await use.questions(
            chat_questions,
            [message.for_template() for message in body.messages],
            sampling=options.sampling(use.served.model.metadata, use.served.model.preset.sampling),
            tools=tools or None,
            response_format=body.form,
            variables=body.variables,
            reasoning=body.think is not False,
            streamed=body.streamed,
            stop=options.stops,
            max_tokens=options.most_tokens,
            log_probabilities=(body.top_logprobs or 0) if body.logprobs else None,
            too_long=body.truncate is not False,
        )

        def form(content: str, thinking: str, calls: Sequence[ToolCall]) -> Line:
            message: Line = {"role": "assistant", "content": content}
            if thinking:
                message["thinking"] = thinking
            if calls:
                message["tool_calls"] = [
                    {
                        "id": found.id,
                        "function": {"index": found.index, "name": found.name, "arguments": arguments_of(found)},
                    }
                    for found in calls
                ]
            return {"message": message}

        return await answered(call, use, question, form, started=started, loaded=loaded, more=lambda _end: {})
