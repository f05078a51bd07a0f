"""Several answers to one request, as one response or one stream of chunks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from llamacpu.scheduler import PromptReport
from llamacpu.server.errors import ApiError
from llamacpu.server.running import stop_all
from llamacpu.server.streams import JsonResponse, Stream, server_sent, while_connected
from llamacpu.server.usage import usage_of

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.answers import Question
    from llamacpu.server.endpoints import Call
    from llamacpu.server.openai.shapes import Choice
    from llamacpu.server.prompts import Use
    from llamacpu.server.running import End, Run, Step

__all__ = ["answered"]

Told: TypeAlias = "Step | PromptReport"


async def answered(
    call: Call, use: Use, questions: Sequence[Question], choices: Sequence[Choice], stream: bool, usage: bool
) -> Response:
    """Return the response to a request; choices[i] formats the answer to questions[i]."""
    runs = use.start(questions)
    if stream:
        settings = call.state.settings
        release = use.keep()

        def stop() -> None:
            stop_all(runs)
            release()

        return Stream(
            _chunks(runs, choices, usage),
            stop,
            lambda error: server_sent(error.openai()) + server_sent("[DONE]"),
            ping_seconds=settings.ping_seconds,
            send_seconds=settings.send_seconds,
        )
    ends = await while_connected(call.request, _ends(runs), lambda: stop_all(runs))
    wholes = [choice.whole(end) for choice, end in zip(choices, ends, strict=True)]
    found = wholes[0]
    found["choices"] = [whole["choices"][0] for whole in wholes]
    found["usage"] = _usage(ends)
    return JsonResponse(found)


async def _ends(runs: Sequence[Run]) -> list[End]:
    try:
        return await asyncio.gather(*(run.read() for run in runs))
    except BaseException:
        stop_all(runs)
        raise


async def _chunks(runs: Sequence[Run], choices: Sequence[Choice], usage: bool) -> AsyncIterator[str]:
    head: dict[str, Any] | None = None
    for choice in choices:
        for chunk in choice.begin():
            head = head or chunk
            yield server_sent(chunk)
    async for place, found in _together(runs):
        choice = choices[place]
        if isinstance(found, PromptReport):
            chunks = [choice.progress(found)]
        elif found is not None:
            chunks = choice.chunk(found.event, found.tokens)
        else:
            end = runs[place].end
            assert end is not None
            chunks = choice.end(end)
        head = head or (chunks[0] if chunks else None)
        if chunks:
            yield "".join(map(server_sent, chunks))
    if usage and head is not None:
        kept = {name: value for name, value in head.items() if name not in ("choices", "timings")}
        ends = [run.end for run in runs if run.end is not None]
        yield server_sent({**kept, "choices": [], "usage": _usage(ends)})
    yield server_sent("[DONE]")


async def _together(runs: Sequence[Run]) -> AsyncIterator[tuple[int, Told | None]]:
    """Yield what several runs tell as it arrives, each with the index of its run; None marks the end of a run."""
    if len(runs) == 1:
        while (told := await runs[0].advance()) is not None:
            yield 0, told
        yield 0, None
        return
    queue: asyncio.Queue[tuple[int, Told | None] | ApiError] = asyncio.Queue()

    async def pump(place: int, run: Run) -> None:
        try:
            while (told := await run.advance()) is not None:
                queue.put_nowait((place, told))
            queue.put_nowait((place, None))
        except ApiError as error:
            queue.put_nowait(error)

    pumps = [asyncio.ensure_future(pump(place, run)) for place, run in enumerate(runs)]
    try:
        left = len(runs)
        while left:
            found = await queue.get()
            if isinstance(found, ApiError):
                raise found
            left -= found[1] is None
            yield found
    finally:
        for task in pumps:
            task.cancel()


def _usage(ends: Sequence[End]) -> dict[str, Any]:
    return usage_of([end.answer.result for end in ends])
