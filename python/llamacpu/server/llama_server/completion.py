"""POST /completion and /infill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Question
from llamacpu.answers.log_probabilities import LogProbabilities
from llamacpu.answers.reading import Piece
from llamacpu.chat.shown import text_with_media
from llamacpu.multimodal.sequences import text_ids
from llamacpu.scheduler import PromptReport
from llamacpu.server.errors import invalid
from llamacpu.server.llama_server.requests import Completion, Infill, MediaPrompt, NativeFields
from llamacpu.server.openai.requests import stops
from llamacpu.server.prompts import Use, check_schema, text_questions, using
from llamacpu.server.running import stop_all
from llamacpu.server.single import one_answer
from llamacpu.server.streams import JsonResponse, server_sent, while_connected
from llamacpu.server.usage import progress_of, timings_of
from llamacpu.text.infill import can_infill, infill_prompt

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.generation import GeneratedToken
    from llamacpu.server.endpoints import Call
    from llamacpu.server.running import End, Run
    from llamacpu.server.served import Served
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["bias_of", "completion", "ids_of", "infill"]

_STOPPED = {"end_of_text": "eos", "stop_string": "word", "criterion": "word", "max_tokens": "limit", "context": "limit"}


async def completion(call: Call) -> Response:
    """Continue one prompt, or each of several."""
    body: Completion = call.body
    async with using(call, body.model) as use:
        served = use.served
        given = body.prompt
        # A list with a token id among its items is one prompt; a list of lists, or of only texts, is several.
        several = isinstance(given, list) and bool(given) and not any(isinstance(part, int) for part in given)
        prompts: list[Any] = given if several and isinstance(given, list) else [given]
        if len(prompts) > call.state.settings.choices:
            raise invalid(f"prompt has {len(prompts)} texts; this server takes {call.state.settings.choices}", "prompt")
        shown = [prompt.multimodal_data if isinstance(prompt, MediaPrompt) else [] for prompt in prompts]
        return await _answered(call, use, lambda: [_prompt_of(served, prompt) for prompt in prompts], several, shown)


async def infill(call: Call) -> Response:
    """Generate the text between a prefix and a suffix."""
    body: Infill = call.body
    async with using(call, body.model) as use:
        tokenizer = use.served.model.tokenizer
        if not can_infill(tokenizer):
            raise invalid(f"infill is not supported by {use.served.name}: it was not trained for it", "input_suffix")
        files = [(file.filename or f"file{place}", file.text) for place, file in enumerate(body.input_extra or (), 1)]
        prefix = body.input_prefix + body.prompt
        return await _answered(
            call, use, lambda: [infill_prompt(tokenizer, prefix, body.input_suffix, files=files)], False
        )


async def _answered(
    call: Call, use: Use, prompts: Any, several: bool, shown: Sequence[Sequence[str]] = ((),)
) -> Response:
    body: NativeFields = call.body
    check_schema(call.state, body.json_schema, "json_schema")
    check_schema(call.state, body.grammar or "", "grammar")
    form = None if body.json_schema is None else {"type": "json_schema", "json_schema": {"schema": body.json_schema}}

    def make(served: Served) -> list[Question]:
        return text_questions(
            served,
            prompts(),
            sampling={**body.sampling(), "logit_bias": bias_of(served.model.tokenizer, body.logit_bias)},
            response_format=form,
            grammar=body.grammar,
            stop=stops(body.stop),
            max_tokens=body.most_tokens,
            log_probabilities=body.n_probs or None,
            ignore_end=bool(body.ignore_eos),
        )

    questions = await use.questions(make)
    tokenizer = use.served.model.tokenizer
    use.says(*([_said(tokenizer, question, *images)] for question, images in zip(questions, shown, strict=True)))
    timeout = body.t_max_predict_ms / 1000 if body.t_max_predict_ms else None
    tellers = [_Teller(use.served, body, question, index) for index, question in enumerate(questions)]
    if not several:
        teller = tellers[0]
        return await one_answer(
            call, use, questions[0], whole=teller.whole, pieces=teller.pieces if body.stream else None,
            on_error=lambda error: server_sent({"error": error.llama_server()["error"]}, None), timeout=timeout,
        )  # fmt: skip
    if body.stream:
        raise invalid("stream is for one prompt; send each in a request of its own", "stream")
    runs = use.start(questions, timeout)
    work = asyncio.gather(*(run.read() for run in runs))
    ends = await while_connected(call.request, work, lambda: stop_all(runs))
    return JsonResponse([teller.whole(end) for teller, end in zip(tellers, ends, strict=True)])


class _Teller:
    """The responses to one completion."""

    def __init__(self, served: Served, body: NativeFields, question: Question, index: int) -> None:
        self._served = served
        self._body = body
        self._question = question
        self._head = {"index": index, "id_slot": body.id_slot if body.id_slot is not None else -1}
        self._told = LogProbabilities(served.model.tokenizer, 0) if body.n_probs else None
        self._count = 0

    def whole(self, end: End) -> dict[str, Any]:
        return self._last(end, end.answer.content, end.tokens)

    async def pieces(self, run: Run) -> AsyncIterator[str]:
        while (told := await run.advance()) is not None:
            if isinstance(told, PromptReport):
                yield server_sent({**self._piece("", ()), "prompt_progress": progress_of(told)})
            elif isinstance(told.event, Piece):
                yield server_sent(self._piece(told.event.text, told.tokens))
        assert run.end is not None
        yield server_sent(self._last(run.end, "", run.end.tokens))

    def _piece(self, text: str, tokens: Sequence[GeneratedToken]) -> dict[str, Any]:
        self._count += len(tokens)
        found = {
            **self._head,
            "content": text,
            "tokens": [token.id for token in tokens] if self._body.return_tokens or self._body.stream else [],
            "stop": False,
            "tokens_predicted": self._count,
            "tokens_evaluated": len(self._question.prompt),
        }
        if self._told is not None:
            self._told.note(tokens)
            found["completion_probabilities"] = self._told.as_objects()
        return found

    def _last(self, end: End, text: str, tokens: Sequence[GeneratedToken]) -> dict[str, Any]:
        result = end.answer.result
        tokenizer = self._served.model.tokenizer
        found = {
            **self._piece(text, tokens),
            "stop": True,
            "model": self._served.name,
            "tokens_predicted": len(result.tokens),
            "prompt": tokenizer.decode(text_ids(self._question.prompt)),
            "generation_settings": {
                "n_predict": -1 if self._body.most_tokens is None else self._body.most_tokens,
                "seed": result.seed,
                "stop": list(self._question.stop),
                "stream": bool(self._body.stream),
                **{name: value for name, value in self._body.sampling().items() if name != "seed"},
            },
            "has_new_line": "\n" in result.text,
            "truncated": result.truncated,
            "stop_type": "none" if end.refusal else _STOPPED.get(result.ended_by, "none"),
            **({} if end.refusal is None else {"refusal": end.refusal}),
            "stopping_word": result.stop_string or "",
            "tokens_cached": result.prompt_tokens + len(result.tokens),
            "timings": timings_of(result),
        }
        wanted = self._body.response_fields
        return found if not wanted else _chosen(found, wanted)


def _chosen(found: dict[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    chosen = {}
    for path in wanted:
        value: Any = found
        for key in path.split("/"):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            chosen[path.rpartition("/")[2]] = value
    return chosen


def _said(tokenizer: Tokenizer, question: Question, *images: str) -> dict[str, Any]:
    """A prompt as the message that a guard judges."""
    return {"role": "user", "content": tokenizer.decode(text_ids(question.prompt)), "images": list(images)}


def _prompt_of(served: Served, prompt: Any) -> Sequence[int]:
    if isinstance(prompt, MediaPrompt):
        if prompt.multimodal_data:
            return text_with_media(served.chat, prompt.prompt_string, prompt.multimodal_data, served.context)
        prompt = prompt.prompt_string
    return ids_of(served.model.tokenizer, prompt)


def ids_of(tokenizer: Tokenizer, prompt: str | Sequence[str | int]) -> list[int]:
    """Return the token ids of a prompt of text, ids, or both. Control tokens named in its texts are parsed as such."""
    parts = [prompt] if isinstance(prompt, str) else list(prompt)
    ids: list[int] = []
    for place, part in enumerate(parts):
        if isinstance(part, int):
            ids.append(part)
        elif isinstance(part, str):
            ids += tokenizer.encode(part, add_special=False, parse_special=True, **({} if place == 0 else _BEHIND))
        else:
            raise invalid("prompt holds a list in a list; expected texts and token ids", "prompt")
    first = parts[0] if parts else ""
    if isinstance(first, str) and tokenizer.add_bos and tokenizer.bos is not None and ids[:1] != [tokenizer.bos]:
        ids.insert(0, tokenizer.bos)
    return ids


# Text after other tokens gets no space prefix.
_BEHIND: dict[str, Any] = {"space_prefix": False}


def bias_of(tokenizer: Tokenizer, given: Any) -> dict[int, float] | None:
    """Return the bias by token id, given by ids or by the tokens of texts; false bans a token. Raises ApiError."""
    if given is None:
        return None
    found: dict[int, float] = {}
    rows = given.items() if isinstance(given, dict) else given
    for row in rows:
        if len(row) != 2:
            raise invalid("logit_bias holds a row that is no pair; expected [token, number or false]", "logit_bias")
        what, value = row
        number = float("-inf") if value is False else value
        if isinstance(number, bool) or not isinstance(number, (int, float)) or number > 1e6:
            raise invalid(f"logit_bias gives {str(value)[:40]}; expected a number, or false", "logit_bias")
        if isinstance(what, str) and what.isascii() and what.isdecimal() and len(what) < 10:
            what = int(what)
        if isinstance(what, bool) or not isinstance(what, (int, str)):
            raise invalid(f"logit_bias names {str(what)[:40]}; expected a token id or a text", "logit_bias")
        ids = [what] if isinstance(what, int) else tokenizer.encode(what, add_special=False, space_prefix=False)
        found.update(dict.fromkeys(ids, float(number)))
    return found
