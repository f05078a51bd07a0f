"""POST /v1/completions."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.answers import Question, TextPrompt, text_prompt
from llamacpu.answers.log_probabilities import prompt_log_probabilities
from llamacpu.server.errors import invalid
from llamacpu.server.openai.answering import answered
from llamacpu.server.openai.requests import CompletionRequest, stops
from llamacpu.server.openai.shapes import TextChoice
from llamacpu.server.prompts import check_schema, text_questions, using

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.sampling import TokenLogProbability
    from llamacpu.server.endpoints import Call
    from llamacpu.server.served import Served

__all__ = ["completions"]

_MAX_TOKENS = 16


async def completions(call: Call) -> Response:
    """Continue one or several texts."""
    body: CompletionRequest = call.body
    count = body.n or 1
    if body.best_of is not None and body.best_of != count:
        raise invalid(
            f"best_of is {body.best_of}; this server gives all answers that it computes: leave it out", "best_of"
        )
    prompts = prompts_of(body.prompt)
    if len(prompts) * count > call.state.settings.choices:
        raise invalid(
            f"{len(prompts)} prompts times n = {count} are too many; this server gives up to "
            f"{call.state.settings.choices} answers at once", "n",
        )  # fmt: skip
    form = body.form()
    check_schema(call.state, form, "response_format")
    check_schema(call.state, body.grammar or "", "grammar")
    async with using(call, body.model) as use:
        served = use.served
        tokenizer = served.model.tokenizer
        given: list[TextPrompt] = []

        def make(served: Served) -> list[Question]:
            given.extend(text_prompt(tokenizer, prompt, body.suffix, parse_special=True) for prompt in prompts)
            return text_questions(
                served,
                [prompt.ids for prompt in given],
                count=count,
                sampling={**body.sampling(), "logit_bias": body.bias()},
                response_format=form,
                grammar=body.grammar,
                stop=stops(body.stop),
                max_tokens=_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
                log_probabilities=body.logprobs,
                ignore_end=bool(body.ignore_eos),
            )

        questions = await use.questions(make)
        echoes: list[bool | Sequence[TokenLogProbability | None]] = [bool(body.echo)] * len(given)
        if body.echo and body.logprobs is not None:
            top = body.logprobs
            echoes = [await call.state.work.long(_chances, served, prompt, top) for prompt in given]
        use.says(*([{"role": "user", "content": given[n // count].text}] for n in range(len(questions))))
        name = f"cmpl-{uuid.uuid4()}"
        choices = [
            TextChoice(
                served.name, tokenizer, prompt, logprobs=body.logprobs is not None, echo=echo,
                id=name, index=place * count + index,
            )
            for place, (prompt, echo) in enumerate(zip(given, echoes, strict=True))
            for index in range(count)
        ]  # fmt: skip
        usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return await answered(call, use, questions, choices, bool(body.stream), usage)


def prompts_of(given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[str | list[int]]:
    """Return the prompts of a request, one or several, as text or token ids. Raises ApiError for an empty list."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise invalid("prompt is an empty list; expected a text, token ids or several of these", "prompt")
    if isinstance(given[0], int):
        return [list(given)]  # type: ignore[arg-type]
    return [prompt if isinstance(prompt, str) else list(prompt) for prompt in given]  # type: ignore[arg-type]


def _chances(served: Served, prompt: TextPrompt, top: int) -> Sequence[TokenLogProbability | None]:
    return prompt_log_probabilities(served.model.session(served.context), prompt.ids, top)
