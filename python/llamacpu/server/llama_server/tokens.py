"""POST /tokenize, /detokenize, /apply-template, /embedding; GET /props, /slots; /lora-adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamacpu.chat.conversation import templates_in
from llamacpu.chat.shown import marked_text
from llamacpu.engine.machine import version
from llamacpu.server.bodies import checked, parsed, read
from llamacpu.server.errors import invalid
from llamacpu.server.llama_server.requests import ApplyTemplate, Detokenize, EmbeddingBody, LoraScales, Tokenize
from llamacpu.server.openai.completions import prompts_of
from llamacpu.server.openai.embeddings import vectors_of
from llamacpu.server.prompts import check_schema, check_variables, using
from llamacpu.server.streams import JsonResponse

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call

__all__ = [
    "apply_template",
    "detokenize",
    "embedding",
    "lora_adapters",
    "props",
    "set_lora_adapters",
    "slots",
    "tokenize",
]


async def tokenize(call: Call) -> Response:
    """Return the tokens of a text."""
    body: Tokenize = call.body
    async with using(call, body.model) as use:
        tokenizer = use.served.model.tokenizer
        ids = await call.state.work.short(
            lambda: tokenizer.encode(
                body.content, add_special=bool(body.add_special), parse_special=body.parse_special is not False
            )
        )
        if not body.with_pieces:
            return JsonResponse({"tokens": ids})
        return JsonResponse(
            {"tokens": [{"id": token, "piece": _piece(tokenizer.decode_bytes([token]))} for token in ids]}
        )


async def detokenize(call: Call) -> Response:
    """Return the text of tokens."""
    body: Detokenize = call.body
    async with using(call, body.model) as use:
        wrong = next((token for token in body.tokens if not 0 <= token < use.served.model.vocab_size), None)
        if wrong is not None:
            raise invalid(f"tokens holds {wrong}; expected 0 to {use.served.model.vocab_size - 1}", "tokens")
        return JsonResponse({"content": use.served.model.tokenizer.decode(body.tokens)})


async def apply_template(call: Call) -> Response:
    """Render a conversation as the prompt for the model, with <__media__> for each picture."""
    body: ApplyTemplate = call.body
    tools = [tool.for_template() for tool in body.tools or ()]
    variables = body.chat_template_kwargs or {}
    check_schema(call.state, tools, "tools")
    check_variables(variables)
    async with using(call, body.model) as use:
        served = use.served
        messages = [message.for_template() for message in body.messages]
        prompt = await call.state.work.short(
            lambda: marked_text(served.chat, messages, tools or None, variables, served.access)
        )
        return JsonResponse({"prompt": prompt})


async def embedding(call: Call) -> Response:
    """Return the embeddings of texts."""
    body: EmbeddingBody = call.body
    given = body.input if body.content is None else body.content
    if given is None:
        raise invalid("content is missing; expected a text or several", "content")
    async with using(call, body.model) as use:
        vectors, _ = await vectors_of(call, use.served, prompts_of(given))
    rows = [{"index": index, "embedding": [list(map(float, vector))]} for index, vector in enumerate(vectors)]
    return JsonResponse(rows)


async def props(call: Call) -> Response:
    """Return the server's settings and the properties of a model. Files are named without their paths."""
    state = call.state
    served = await state.models.take(call.request.query_params.get("model"))
    try:
        tokenizer, metadata = served.model.tokenizer, served.model.metadata
        texts = {name: "" if token is None else tokenizer.id_to_piece(token)
                 for name, token in (("bos_token", tokenizer.bos), ("eos_token", tokenizer.eos))}  # fmt: skip
        found: dict[str, Any] = {
            "default_generation_settings": {"n_ctx": served.context, "params": {"n_predict": -1, "stream": True}},
            "total_slots": state.settings.parallel,
            "model_alias": served.name,
            "model_path": f"{served.name}.gguf",
            "modalities": {"vision": getattr(served.model, "vision", None) is not None, "audio": False},
            "chat_template": templates_in(metadata).get("default", ""),
            **texts,
            "build_info": f"llamacpu {version}",
            "is_sleeping": False,
        }
    finally:
        state.models.give_back(served)
    return JsonResponse(found)


async def slots(call: Call) -> Response:
    """Return the slots and whether they are busy, without any text of the requests."""
    settings = call.state.settings
    loaded = call.state.models.loaded
    running = sum(served.engine.statistics.running for served in loaded)
    context = loaded[0].context if loaded else settings.context or 0
    return JsonResponse(
        [{"id": place, "n_ctx": context, "is_processing": place < running} for place in range(settings.parallel)]
    )


async def lora_adapters(call: Call) -> Response:
    """Return the adapters of a model, with the scales of requests that choose none."""
    served = await call.state.models.take(call.request.query_params.get("model"))
    try:
        return JsonResponse(served.adapters.rows())
    finally:
        call.state.models.give_back(served)


async def set_lora_adapters(call: Call) -> Response:
    """Set the scales of requests that choose none, given as a list of `id` and `scale`."""
    data = await read(call.request, call.state.settings)
    # Bodies are objects elsewhere, and checked as such.
    wanted = checked(LoraScales, parsed(b'{"lora":' + (data or b"[]") + b"}", call.state.settings.json_depth)).lora
    served = await call.state.models.take(call.request.query_params.get("model"))
    try:
        await call.state.work.short(lambda: served.adapters.change(wanted))
    finally:
        call.state.models.give_back(served)
    return JsonResponse({"success": True})


def _piece(data: bytes) -> str | list[int]:
    """The text of a token, or its bytes if they are not valid UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return list(data)
