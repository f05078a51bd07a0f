"""From rows with a prompt or messages, through requests of an engine, to columns of the answer."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Question, chat_prompt, chat_question, text_prompt
from llamacpu.answers.tools import grammar_of_format
from llamacpu.chat import Chat
from llamacpu.engine.interfaces import preset_of
from llamacpu.errors import LlamaCpuError
from llamacpu.model import Model
from llamacpu.ray.answering import COLUMNS, Answering, plain
from llamacpu.sampling import Sampling
from llamacpu.scheduler import Engine

if TYPE_CHECKING:
    import os

    from llamacpu.scheduler import Request

__all__ = ["RowEngine"]

log: logging.Logger = logging.getLogger("llamacpu.ray")


class RowEngine:
    """An engine that answers rows: up to `parallel` at once, while the others wait.

    Raises what opening a model raises, and MemoryError if it does not fit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        answering: Answering,
        *,
        threads: int | None = None,
        parallel: int = 16,
        context: int | None = None,
        kv_memory: int | None = None,
        **opening: Any,
    ) -> None:
        """opening: further settings of `llamacpu.Model`."""
        self.answering = answering
        self.parallel = parallel
        self._model = Model(model, threads, **opening)
        try:
            self.engine: Engine = Engine(
                self._model, context=context, max_running=parallel, max_queue=2 * parallel, memory=kv_memory
            )
        except BaseException:
            self._model.close()
            raise
        self._chat: Chat | None = None

    def answers(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the columns of the answer for each row, in order. Errors of a single row are in its column "error".

        Raises LlamaCpuError if the engine itself has ended, since no further row would be answered.
        """
        pending: deque[Request | Exception] = deque()
        for row in rows:
            # Requests that wait behind the running ones start as soon as one of those ends.
            while len(pending) >= 2 * self.parallel:
                yield self._read(pending.popleft())
            pending.append(self._begin(row))
        while pending:
            yield self._read(pending.popleft())

    def close(self) -> None:
        """Close the engine, cancelling running requests."""
        self.engine.close()
        self._model.close()

    def _begin(self, row: Mapping[str, Any]) -> Request | Exception:
        try:
            said = self.answering.for_row(row)
            return self.engine.submit(self._question(row, said), timeout=said.timeout)
        except Exception as error:
            self._check_engine(error)
            return error

    def _read(self, request: Request | Exception) -> dict[str, Any]:
        if isinstance(request, Exception):
            return self._columns(error=_words(request))
        try:
            answer = request.read()
        except Exception as error:
            self._check_engine(error)
            return self._columns(error=_words(error))
        if answer.finish_reason == "cancelled":
            raise LlamaCpuError("the engine was closed while rows were being answered; run the stage again")
        result = answer.result
        calls = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in answer.tool_calls
        ]
        return self._columns(
            answer=answer.content,
            reasoning=answer.reasoning or None,
            tool_calls=json.dumps(calls, ensure_ascii=False) if calls else None,
            finish_reason=answer.finish_reason,
            prompt_tokens=result.prompt_tokens,
            cached_tokens=result.cached_tokens,
            completion_tokens=len(result.tokens),
        )

    def _columns(self, **found: Any) -> dict[str, Any]:
        prefix = self.answering.column_prefix
        return {prefix + name: found.get(name, value) for name, value in COLUMNS.items()}

    def _check_engine(self, error: Exception) -> None:
        if self.engine.error is not None or self.engine.closed:
            raise LlamaCpuError(
                f"the engine has ended: {self.engine.error or error}; nothing more is answered here"
            ) from error

    def _question(self, row: Mapping[str, Any], said: Answering) -> Question:
        model = self.engine.model
        settings: dict[str, Any] = {
            "sampling": Sampling.for_model(model.metadata, preset_of(model).sampling, **said.sampling),
            "max_tokens": said.max_tokens,
        }
        messages = row.get(said.messages)
        if messages is not None:
            if self._chat is None:
                self._chat = Chat.of(model)
            tools = list(said.tools)
            prompt = chat_prompt(self._chat, _conversation(messages, said), tools or None)
            return chat_question(
                self._chat, prompt, tools=tools or None, tool_choice=said.tool_choice,
                response_format=said.response_format, stop=said.stop, **settings,
            )  # fmt: skip
        text = row.get(said.prompt)
        if not isinstance(text, str):
            found = "nothing" if text is None else type(text).__name__
            raise ValueError(
                f"the column {said.prompt} holds {found} and there is no column {said.messages}; expected a text in "
                "the one or a list of messages in the other"
            )
        grammar = grammar_of_format(said.response_format)
        processors = () if grammar is None else (grammar.constraint(model.tokenizer),)
        ids = text_prompt(model.tokenizer, text).ids
        return Question(prompt=ids, stop=said.stop, logits_processors=processors, **settings)


def _conversation(messages: Any, said: Answering) -> list[dict[str, Any]]:
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError as error:
            raise ValueError(f"the column {said.messages} holds text that is no JSON: {error}") from None
    messages = plain(messages)
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise ValueError(f"the column {said.messages} holds no conversation; expected a list of messages, not empty")
    for place, message in enumerate(messages):
        if not isinstance(message.get("role"), str):
            raise ValueError(f"message {place} has no role; expected system, user, assistant or tool")
    if said.system is not None and messages[0]["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": said.system})
    return messages


def _words(error: Exception) -> str:
    log.debug("a row cannot be answered", exc_info=error)
    return f"{type(error).__name__}: {error}"
