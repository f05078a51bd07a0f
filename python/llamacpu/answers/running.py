"""Runs a question in a session, on the thread that iterates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llamacpu.answers.reading import Answer, Event, Piece, Reading
from llamacpu.generation import generate

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.answers.question import Question
    from llamacpu.engine.interfaces import CancelToken, SessionLike
    from llamacpu.generation import Generation, GenerationResult
    from llamacpu.generation.context_window import Overflow
    from llamacpu.generation.generate import Drafts
    from llamacpu.generation.request import PromptProgress
    from llamacpu.multimodal.rows import PictureProgress

__all__ = ["RunningAnswer", "answer"]


def answer(
    session: SessionLike,
    question: Question,
    *,
    overflow: Overflow = "error",
    draft: Drafts = "auto",
    on_prompt: PromptProgress | None = None,
    on_picture: PictureProgress | None = None,
    cancel: CancelToken | None = None,
    timeout: float | None = None,
) -> RunningAnswer:
    """Answer a question; iterate over the result with `for` or `async for`, or call its `read`.

    The settings and errors are those of `llamacpu.generation.generate`. A question can be answered only once: build a
    new one for each answer.
    """
    reading = Reading(question.reader)
    generation = generate(
        session,
        question.prompt,
        on_token=reading.note,
        on_prompt=on_prompt,
        on_picture=on_picture,
        overflow=overflow,
        draft=draft,
        cancel=cancel,
        timeout=timeout,
        **question.settings,
    )
    return RunningAnswer(generation, reading)


class RunningAnswer(Iterator[Event]):
    """An answer in progress: iterate over its pieces and tool calls, then read `answer`.

    Closing, `with` and threads work as in `llamacpu.generation.Generation`, which it wraps.
    """

    def __init__(self, generation: Generation, reading: Reading) -> None:
        """Use `answer`."""
        self.generation = generation
        self.reading = reading
        self._ready: deque[Event] = deque()
        self._ended = False

    def __repr__(self) -> str:
        """The progress of the generation."""
        return f"<RunningAnswer: {self.generation!r}>"

    def __iter__(self) -> RunningAnswer:
        """The answer itself."""
        return self

    def __next__(self) -> Event:
        """The next piece of content or reasoning, or the next tool call, as soon as it is certain."""
        while not self._ready and not self._ended:
            self._take(next(self.generation, None))
        if not self._ready:
            raise StopIteration
        return self._ready.popleft()

    def __aiter__(self) -> RunningAnswer:
        """The answer itself."""
        return self

    async def __anext__(self) -> Event:
        """Like `__next__`, without blocking the event loop. Cancelling the task stops the generation."""
        while not self._ready and not self._ended:
            self._take(await anext(self.generation, None))
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.popleft()

    def __enter__(self) -> RunningAnswer:
        """Enter a `with` block, which closes the answer at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the answer."""
        self.close()

    def text(self) -> Iterator[str]:
        """Yield only the pieces of content: all of the text, if nothing is separated from it."""
        for event in self:
            if isinstance(event, Piece) and event.kind == "content":
                yield event.text

    def close(self) -> None:
        """Stop the generation; see `Generation.close`."""
        self.generation.close()

    def read(self) -> Answer:
        """Run the generation to its end and return the answer."""
        if not self._ended:
            self._ready.clear()
            self.reading.push("".join(self.generation))
            self._take(None)
        return self.answer

    @property
    def answer(self) -> Answer:
        """The answer as far as it was generated. Raises RuntimeError before the end."""
        return self.reading.answer(self.result)

    @property
    def result(self) -> GenerationResult:
        """The result of the generation. Raises RuntimeError before the end."""
        return self.generation.result

    def _take(self, piece: str | None) -> None:
        if piece is None:
            self._ended = True
        self._ready.extend(self.reading.finish() if piece is None else self.reading.push(piece))
