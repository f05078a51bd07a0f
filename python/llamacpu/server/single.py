"""One answer to one request, whole or as a stream, in the format of any of the APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from llamacpu.server.streams import JsonResponse, Stream, while_connected

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.answers import Question
    from llamacpu.generation.context_window import Overflow
    from llamacpu.server.endpoints import Call
    from llamacpu.server.errors import ApiError
    from llamacpu.server.prompts import Use
    from llamacpu.server.running import End, Run

__all__ = ["one_answer"]


async def one_answer(
    call: Call,
    use: Use,
    question: Question,
    *,
    whole: Callable[[End], Any],
    pieces: Callable[[Run], AsyncIterator[str]] | None,
    on_error: Callable[[ApiError], str],
    media_type: str = "text/event-stream",
    ping: str | None = ": ping\n\n",
    timeout: float | None = None,
    overflow: Overflow = "error",
) -> Response:
    """Return the response, made by `pieces` from the running answer if given, else by `whole` from the finished one."""
    (run,) = use.start([question], timeout, overflow)
    if pieces is None:
        return JsonResponse(whole(await while_connected(call.request, run.read(), run.close)))
    settings = call.state.settings
    release = use.keep()

    def stop() -> None:
        run.close()
        release()

    return Stream(
        pieces(run), stop, on_error, media_type=media_type, ping=ping,
        ping_seconds=settings.ping_seconds, send_seconds=settings.send_seconds,
    )  # fmt: skip
