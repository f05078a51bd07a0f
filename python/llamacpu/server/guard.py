"""A Llama Guard model in front of the served models: it judges messages and answers before they are passed on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.answers import Answer
from llamacpu.chat.shown import PICTURES, has_pictures
from llamacpu.errors import PictureError
from llamacpu.generation import GenerationResult
from llamacpu.server.errors import ApiError, told
from llamacpu.server.running import End, Run, Step
from llamacpu.server.served import Served
from llamacpu.tasks.moderation import LLAMA_GUARD_3, moderate

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.server.running import Work
    from llamacpu.server.settings import Settings

__all__ = ["Guard", "GuardedRun", "spoken"]

Messages = Sequence[Mapping[str, Any]]


class Guard:
    """A model that judges conversations. Whatever it cannot judge is not passed on.

    source     the path of a Llama Guard file, or an open model
    threshold  the probability of "unsafe" at or above which a message is refused
    """

    def __init__(self, source: Any, threshold: float, settings: Settings, work: Work) -> None:
        self._source = source
        self._threshold = threshold
        self._settings = settings
        self._work = work
        self._lock = threading.Lock()
        self._served: Served | None = None

    async def refusal(self, messages: Messages) -> str | None:
        """Return why the last message is refused, or None if it is not. Raises ApiError."""
        try:
            found: str | None = await self._work.long(self._judge, messages)
        except Exception as error:
            raise told(error) from error
        return found

    def close(self) -> None:
        """Unload the model."""
        if self._served is not None:
            self._served.close(0.0)

    def _judge(self, messages: Messages) -> str | None:
        served = self._opened()
        if has_pictures(messages) and served.chat.vision is None:
            raise PictureError(
                f"the guard model, {served.name}, sees no pictures, and a message with one cannot be judged; use a "
                "guard that sees (Llama Guard 4, Llama Guard 3 11B Vision), or send text alone"
            )
        session = served.model.session(served.context)
        verdict = moderate(session, messages, threshold=self._threshold, chat=served.chat, access=served.access)
        if not verdict.unsafe:
            return None
        named = [f"{key}: {LLAMA_GUARD_3[key]}" if key in LLAMA_GUARD_3 else key for key in verdict.categories]
        what = "the answer" if messages[-1]["role"] == "assistant" else "the message"
        return f"Refused: the guard model finds {what} unsafe" + (f" ({', '.join(named)})." if named else ".")

    def _opened(self) -> Served:
        with self._lock:
            if self._served is None:
                model = self._source
                if not hasattr(model, "session"):
                    from llamacpu.model import Model

                    model = Model(model, duty=self._settings.duty)
                name = Path(model.path).stem
                self._served = Served(
                    name, model, replace(self._settings, lora=(), control_vectors=(), draft_model=None), 0
                )
            return self._served


class GuardedRun(Run):
    """A run that reveals nothing until the guard has judged both the user's message and the complete answer."""

    def __init__(self, guard: Guard, said: Messages, question: Question, start: Callable[[], Run]) -> None:
        self.end: End | None = None
        self._guard = guard
        self._said = said
        self._question = question
        self._start = start
        self._inner: Run | None = None
        self._closed = False
        self._steps: list[Step] | None = None

    async def __anext__(self) -> Step:
        """Return the next event, once the whole answer has been judged. Raises ApiError."""
        found = await self.advance()
        if found is None:
            raise StopAsyncIteration
        return found

    async def advance(self) -> Step | None:
        """Return the next event; reports on the prompt are not passed on, as nothing is before the guard has judged."""
        if self._steps is None:
            self._steps = await self._judged()
        return self._steps.pop(0) if self._steps else None

    async def read(self) -> End:
        """Wait for the end and return it. Raises ApiError."""
        steps = await self._judged()
        assert self.end is not None
        tokens = [token for step in steps for token in step.tokens]
        self.end = End(self.end.answer, tokens + self.end.tokens, self.end.refusal)
        return self.end

    def close(self) -> None:
        """Stop the work."""
        self._closed = True
        if self._inner is not None:
            self._inner.close()

    async def _judged(self) -> list[Step]:
        refusal = await self._guard.refusal(self._said)
        if refusal is not None:
            nothing = GenerationResult("", (), "end_of_text", len(self._question.prompt), 0, 0)
            self.end = End(Answer("", "", (), "stop", nothing), [], refusal)
            return []
        if self._closed:
            raise ApiError(503, "the request was given up before it began", retry_after=1)
        self._inner = self._start()
        steps = [step async for step in self._inner]
        end = self._inner.end
        assert end is not None
        answer = end.answer
        calls = [f"{call.name} {call.arguments}" for call in answer.tool_calls]
        text = "\n".join(part for part in (answer.reasoning, answer.content, *calls) if part)
        if text:
            refusal = await self._guard.refusal([*self._said, {"role": "assistant", "content": text}])
        if refusal is not None:
            self.end = End(Answer("", "", (), "stop", answer.result), [], refusal)
            return []
        self.end = end
        return steps


def spoken(messages: Messages) -> list[dict[str, Any]]:
    """Return the part of a conversation that the guard sees: user and assistant turns up to the last user turn.

    Every turn that is not the assistant's counts as the user's. Content with pictures is a list of parts.
    """
    found: list[tuple[str, list[Any]]] = []
    for message in messages:
        parts = _parts(message)
        if not parts:
            continue
        role = "assistant" if message.get("role") == "assistant" else "user"
        if found and found[-1][0] == role:
            found[-1][1].extend(parts)
        else:
            found.append((role, parts))
    while found and found[0][0] != "user":
        found.pop(0)
    while found and found[-1][0] != "user":
        found.pop()
    return [{"role": role, "content": _content(parts)} for role, parts in found] or [{"role": "user", "content": ""}]


def _parts(message: Mapping[str, Any]) -> list[Any]:
    """The pictures of a message, and its text as one part."""
    content = message.get("content")
    listed = content if isinstance(content, list) else []
    parts: list[Any] = [{"type": "image", "base64": image} for image in message.get("images") or ()]
    parts += [part for part in listed if isinstance(part, Mapping) and part.get("type") in PICTURES]
    text = "".join(str(part.get("text") or "") for part in listed if isinstance(part, Mapping))
    text = text or ("" if content is None or isinstance(content, list) else str(content))
    return [*parts, text] if text else parts


def _content(parts: list[Any]) -> Any:
    """The texts in lines; parts, if there are pictures among them."""
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
