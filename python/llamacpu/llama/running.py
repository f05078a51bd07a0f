"""How a completion runs: on a leased session, to a whole response or as a stream of chunks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers import RunningAnswer
from llamacpu.answers.responses import Shape, chunks, whole
from llamacpu.llama.streams import ResponseStream

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation import GenerationResult
    from llamacpu.llama.conversation import Conversation

__all__ = ["Started", "run"]

Started = tuple[RunningAnswer, Shape]


def run(
    conversation: Conversation,
    ids: Sequence[int],
    begin: Callable[[SessionLike], Started],
    stream: bool,
    stream_options: Mapping[str, Any] | None,
) -> Any:
    """The response that `begin` starts on a session for a prompt of these ids; with `stream` an iterator of chunks."""
    if stream:
        started: list[RunningAnswer] = []
        usage = bool((stream_options or {}).get("include_usage"))
        return ResponseStream(_stream(conversation, ids, begin, usage, started), started)
    session = conversation.lease(ids)
    running = None
    try:
        running, shape = begin(session)
        return whole(running, shape)
    finally:
        conversation.give_back(session, _result(running))


def _stream(
    conversation: Conversation,
    ids: Sequence[int],
    begin: Callable[[SessionLike], Started],
    usage: bool,
    started: list[RunningAnswer],
) -> Generator[dict[str, Any], None, None]:
    session = conversation.lease(ids)
    running = None
    try:
        running, shape = begin(session)
        started.append(running)
        yield from chunks(running, shape, usage)
    finally:
        conversation.give_back(session, _result(running))


def _result(running: RunningAnswer | None) -> GenerationResult | None:
    if running is None:
        return None
    try:
        return running.result
    except RuntimeError:
        return None
