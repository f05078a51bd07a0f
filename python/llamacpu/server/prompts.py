"""Turns requests into questions, in the same way for every API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Question, begun_answer, chat_prompt, chat_question
from llamacpu.errors import ContextOverflow
from llamacpu.multimodal.sequences import text_ids
from llamacpu.sampling import Sampler, Sampling
from llamacpu.sampling.settings import seed_of
from llamacpu.server.errors import invalid, told
from llamacpu.server.guard import GuardedRun, spoken
from llamacpu.server.running import Run, stop_all

if TYPE_CHECKING:
    from llamacpu.chat import Chat
    from llamacpu.constraints.grammar import Grammar
    from llamacpu.generation.context_window import Overflow
    from llamacpu.server.endpoints import Call
    from llamacpu.server.served import Served
    from llamacpu.server.state import State

__all__ = [
    "Use",
    "chat_questions",
    "check_choice",
    "check_length",
    "check_schema",
    "check_variables",
    "sampler_of",
    "text_questions",
    "using",
]

# Variables of the chat template that clients may not set.
_OWN_VARIABLES = {"self", "messages", "tools", "control_tokens", "add_generation_prompt"}


class Use:
    """A model in use by a request. It stays in memory until the request ends, or longer for a stream after `keep`."""

    def __init__(
        self, state: State, served: Served, client: str, lora: Sequence[Any] | None = None, reports: bool = False
    ) -> None:
        self.served = served
        self._state = state
        self._client = client
        self._lora = lora
        self._reports = reports
        self._kept = False
        self._said: list[list[dict[str, Any]]] = []

    def says(self, *conversations: Sequence[Mapping[str, Any]]) -> None:
        """Set what the guard judges before computation starts: one conversation for all questions, or one for each."""
        self._said = [spoken(messages) for messages in conversations]

    def start(
        self, questions: Sequence[Question], timeout: float | None = None, overflow: Overflow = "error"
    ) -> list[Run]:
        """Start to compute answers: all of them, or none. Raises ApiError.

        overflow: how to treat a prompt that is longer than the context, as in `llamacpu.generation.generate`.
        """
        runs: list[Run] = []
        try:
            self._state.work.admit()
            for place, question in enumerate(questions):
                start = partial(self._start, question, timeout, overflow)
                guard = self._state.guard
                if guard is None:
                    runs.append(start())
                else:
                    runs.append(GuardedRun(guard, self._said[place % len(self._said)], question, start))
        except BaseException as error:
            stop_all(runs)
            raise told(error) from error
        return runs

    def _start(self, question: Question, timeout: float | None, overflow: Overflow) -> Run:
        try:
            return Run(self.served.submit(question, self._client, timeout, overflow, self._lora, self._reports))
        except Exception as error:
            raise told(error) from error

    def keep(self) -> Callable[[], None]:
        """Keep the model in use until the returned function is called."""
        self._kept = True
        self.served.users += 1

        def release() -> None:
            if self._kept:
                self._kept = False
                self._state.models.give_back(self.served)

        return release

    async def questions(self, function: Any, *arguments: Any, **settings: Any) -> list[Question]:
        """Prepare questions in a thread, since a long prompt or a large grammar takes a while."""
        return list(await self._state.work.short(lambda: function(self.served, *arguments, **settings)))


@asynccontextmanager
async def using(call: Call, name: str | None) -> AsyncIterator[Use]:
    """Use the model with this name, loaded if necessary. Raises ApiError."""
    call.state.work.admit()
    served = await call.state.models.take(name)
    try:
        lora = getattr(call.body, "lora", None)
        served.adapters.chosen(lora)  # a number that does not exist is an error of the request
        body = call.body
        reports = bool(getattr(body, "stream", None) and getattr(body, "return_progress", None))
        yield Use(call.state, served, call.client, lora, reports)
    finally:
        call.state.models.give_back(served)


def sampler_of(served: Served, given: Mapping[str, Any], place: int = 0) -> Sampler:
    """Return a sampler. The request's settings override the model's recommendations, which override the defaults.

    place: index of this answer among several, each of which has its own seed.
    """
    settings = {name: value for name, value in given.items() if value is not None}
    if "seed" in settings:
        settings["seed"] = seed_of(settings["seed"], place)
    tokenizer = served.model.tokenizer
    return Sampler(
        Sampling.for_model(served.model.metadata, served.model.preset.sampling, **settings),
        served.model.vocab_size,
        lambda token: tokenizer.decode([token]),
    )


def chat_questions(
    served: Served,
    messages: Sequence[Mapping[str, Any]],
    *,
    count: int = 1,
    sampling: Mapping[str, Any],
    tools: Sequence[Any] | None = None,
    tool_choice: Any = None,
    response_format: Mapping[str, Any] | None = None,
    grammar: str | None = None,
    variables: Mapping[str, Any] | None = None,
    reasoning: bool = True,
    streamed: bool = False,
    stop: Sequence[str] = (),
    max_tokens: int | None = None,
    log_probabilities: int | None = None,
    ignore_end: bool = False,
    too_long: bool = False,
    chat: Chat | None = None,
    continue_last: bool = False,
) -> list[Question]:
    """Return `count` questions for a conversation.

    grammar        GBNF, instead of response_format
    too_long       allow a prompt longer than the context, for callers that shorten it
    chat           the chat format, instead of the model's own template
    continue_last  the last message is the beginning of the answer
    """
    chat = chat or served.chat
    if not messages:
        raise invalid("messages is empty; expected at least one message", "messages")
    check_variables(variables or {})
    if continue_last:
        try:
            begun_answer(messages)
        except ValueError as error:
            raise invalid(str(error), "continue_final_message") from error
    offered = tools if tool_choice != "none" else None
    prompt = chat_prompt(
        chat, messages, offered, variables, continue_last=continue_last, access=served.access,
        context=None if too_long else served.context,
    )  # fmt: skip
    check_length(served, prompt.ids, too_long)
    return [
        chat_question(
            chat,
            prompt,
            tools=tools,
            tool_choice=tool_choice,
            response_format=response_format,
            grammar=_gbnf(grammar),
            reasoning=reasoning,
            streamed=streamed,
            stop=stop,
            sampling=sampler_of(served, sampling, place),
            max_tokens=max_tokens,
            log_probabilities=log_probabilities,
            ignore_end=ignore_end,
        )
        for place in range(count)
    ]


def text_questions(
    served: Served,
    prompts: Sequence[Sequence[int]],
    *,
    count: int = 1,
    sampling: Mapping[str, Any],
    response_format: Mapping[str, Any] | None = None,
    grammar: str | None = None,
    stop: Sequence[str] = (),
    max_tokens: int | None = None,
    log_probabilities: int | None = None,
    ignore_end: bool = False,
    too_long: bool = False,
) -> list[Question]:
    """Return `count` questions for each prompt, which the answers continue."""
    from llamacpu.answers.tools import grammar_of_format

    found = []
    for ids in prompts:
        check_length(served, ids, too_long)
        for place in range(count):
            held = _gbnf(grammar) or grammar_of_format(response_format)
            tokenizer = served.model.tokenizer
            question = Question(
                prompt=ids,
                sampling=sampler_of(served, sampling, place),
                max_tokens=max_tokens,
                stop=tuple(stop),
                logits_processors=() if held is None else (held.constraint(tokenizer),),
                log_probabilities=log_probabilities,
                ignore_end=ignore_end,
            )
            found.append(question)
    return found


def check_variables(variables: Mapping[str, Any]) -> None:
    """Raise ApiError for variables of the chat template that clients may not set."""
    for name in variables:
        if name in _OWN_VARIABLES:
            raise invalid(f"chat_template_kwargs has {name}, which is not for it to set", "chat_template_kwargs")


def check_length(served: Served, ids: Sequence[int], too_long: bool = False) -> None:
    """Raise ApiError for an empty prompt or token ids out of range, ContextOverflow for a prompt that is too long."""
    if not ids:
        raise invalid("the prompt is empty and the model has no start token; expected at least one token", "prompt")
    vocabulary = served.model.vocab_size
    wrong = next((token for token in text_ids(ids) if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise invalid(f"the prompt holds token {wrong}; expected ids from 0 to {vocabulary - 1}", "prompt")
    if len(ids) > served.context and not too_long:
        raise ContextOverflow(
            f"the prompt has {len(ids)} tokens, and the model's context holds {served.context}; shorten the messages"
        )


def check_choice(choice: Any, tools: Any) -> None:
    """Raise ApiError if a tool call is required and there are no tools."""
    if choice not in (None, "auto", "none") and not tools:
        raise invalid("tool_choice asks for a call, and there are no tools; give tools", "tool_choice")


def check_schema(state: State, schema: Any, param: str) -> None:
    """Raise ApiError for a schema or grammar that is larger than the server allows."""
    size = len(schema.encode()) if isinstance(schema, str) else len(json.dumps(schema))
    if size > state.settings.schema_bytes:
        raise invalid(f"{param} has {size} bytes; the server takes up to {state.settings.schema_bytes}", param)


def _gbnf(grammar: str | None) -> Grammar | None:
    if not grammar:
        return None
    from llamacpu.constraints.grammar import Grammar

    return Grammar.gbnf(grammar)
