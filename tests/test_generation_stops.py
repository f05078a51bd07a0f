"""What stops a generation: closing, cancelling, time; and which of them the result tells."""

import asyncio
import threading

import pytest

from llamacpu.generation import CancelToken, generate
from test_generation import GREEDY, PROMPT, repeating, repeating_in


def test_closing_stops_and_keeps_what_there_is() -> None:
    session = repeating().session()
    with generate(session, PROMPT, sampling=GREEDY) as generation:
        assert next(generation) == "x"
        assert next(generation) == "x"
        with pytest.raises(RuntimeError, match="has not ended yet"):
            _ = generation.result
    assert generation.result.ended_by == "cancelled"
    assert generation.result.text == "xx"
    assert list(generation) == []
    assert len(session.calls) == 2


def test_a_token_cancels_from_another_thread() -> None:
    token = CancelToken()
    generation = generate(repeating_in(10**9), PROMPT, sampling=GREEDY, cancel=token)
    timer = threading.Timer(0.05, token.cancel)
    timer.start()
    result = generation.read()
    timer.join()
    assert (result.ended_by, result.finish_reason) == ("cancelled", "cancelled")
    assert result.text == "x" * len(result.tokens)


def test_closing_from_another_thread_ends_the_iteration() -> None:
    generation = generate(repeating_in(10**9), PROMPT, sampling=GREEDY)
    timer = threading.Timer(0.05, generation.close)
    timer.start()
    assert generation.read().ended_by == "cancelled"
    timer.join()


def test_a_timeout_ends_with_its_own_reason() -> None:
    result = generate(repeating_in(10**9), PROMPT, sampling=GREEDY, timeout=0.05).read()
    assert (result.ended_by, result.finish_reason) == ("timeout", "timeout")


def test_the_token_alone_tells_what_stopped_a_generation() -> None:
    """Another clock, that of the progress here, may be late or early: it decides nothing."""
    for shift in (-1e6, 1e6):
        generation = generate(repeating_in(10**9), PROMPT, sampling=GREEDY, timeout=0.02)
        generation._progress.started += shift
        assert generation.read().ended_by == "timeout"
        generation = generate(repeating_in(10**9), PROMPT, sampling=GREEDY, timeout=1e6)
        generation._progress.started += shift
        next(generation)
        generation._cancel.cancel()
        assert generation.read().ended_by == "cancelled"
    parent = CancelToken(timeout=0.02)
    assert generate(repeating_in(10**9), PROMPT, sampling=GREEDY, cancel=parent).read().ended_by == "timeout"


def test_what_was_seen_first_stays_the_reason() -> None:
    token = CancelToken()
    assert (token.reason, token.cancelled) == (None, False)
    late = CancelToken(timeout=0.0)
    child = CancelToken(parent=late)
    assert late.cancelled
    late.cancel()
    assert late.reason == "timeout"
    # The child has not been asked before, and by now its parent was told to stop.
    assert child.reason == "cancelled"
    assert CancelToken(timeout=0.0, parent=token).reason == "timeout"
    token.cancel()
    assert token.reason == "cancelled"


def test_a_cancelled_token_stops_before_any_work() -> None:
    token = CancelToken()
    token.cancel()
    session = repeating().session()
    assert generate(session, PROMPT, sampling=GREEDY, cancel=token).read().tokens == ()
    assert session.calls == []


def test_cancelling_the_task_stops_the_work() -> None:
    generation = generate(repeating_in(10**9), PROMPT, sampling=GREEDY)

    async def consume() -> None:
        async for piece in generation:
            assert piece == "x"

    async def main() -> None:
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    # Without another call: whether the task was cancelled inside a step or between two of them.
    assert generation.result.ended_by == "cancelled"
    assert list(generation) == []
