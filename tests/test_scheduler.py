"""`Engine`: many requests on one model, each with the text that it has alone."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu import (
    Cancelled,
    CancelToken,
    ContextOverflow,
    Engine,
    LlamaCpuError,
    Model,
    NGramDraft,
    Overloaded,
    Sampling,
)
from llamacpu.answers import chat_prompt, chat_question
from llamacpu.answers.chat_completions import ChatShape
from llamacpu.answers.responses import async_chunks, chunks
from llamacpu.chat import Chat
from llamacpu.generation import generate

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = Sampling(temperature=0)
PROMPTS = ["Once upon a time", "The cat", "A little girl went to the", "There was a big red", "One day", "Tom and Lily"]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(DEMO) as opened:
        yield opened


@pytest.fixture
def engine(model: Model) -> Iterator[Engine]:
    with Engine(model) as made:
        yield made


def alone(model: Model, prompt: Any, **settings: Any) -> str:
    """The text of a prompt without an engine."""
    ids = prompt if not isinstance(prompt, str) else model.tokenizer.encode(prompt)
    return generate(model, ids, draft=None, **{"sampling": GREEDY, **settings}).read().text


def slowly(seconds: float) -> Callable[[Any, Any], Any]:
    """A logits processor that keeps a request busy."""

    def process(history: Any, logits: Any) -> Any:
        time.sleep(seconds)
        return logits

    return process


def waiting(event: threading.Event) -> Callable[[Any, Any], Any]:
    """A logits processor that keeps a request at its first token until the event."""

    def process(history: Any, logits: Any) -> Any:
        event.wait()
        return logits

    return process


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """No step runs in here: what is submitted meanwhile begins together."""
    inside, go = threading.Event(), threading.Event()
    thread = threading.Thread(target=engine._scheduler.call, args=(lambda: (inside.set(), go.wait()),))
    thread.start()
    inside.wait()
    try:
        yield
    finally:
        go.set()
        thread.join()


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is true; the test's own limit of time ends what never is."""
    while not condition():
        time.sleep(0.002)


def test_every_request_has_the_text_that_it_has_alone(model: Model, engine: Engine) -> None:
    expected = [alone(model, prompt, max_tokens=40) for prompt in PROMPTS]
    with held(engine):
        requests = [engine.submit(prompt, sampling=GREEDY, max_tokens=40) for prompt in PROMPTS]
    assert [request.read().content for request in requests] == expected
    assert engine.statistics.requests_finished == len(PROMPTS)
    assert engine.statistics.batch_sessions.sum > engine.statistics.steps


def test_streams_and_async_streams_add_up(model: Model, engine: Engine) -> None:
    expected = [alone(model, prompt, max_tokens=30) for prompt in PROMPTS]

    async def one(prompt: str) -> str:
        return "".join([event.text async for event in engine.submit(prompt, sampling=GREEDY, max_tokens=30)])

    async def every() -> list[str]:
        return await asyncio.gather(*map(one, PROMPTS))

    assert asyncio.run(every()) == expected
    assert ["".join(engine.submit(p, sampling=GREEDY, max_tokens=30).text()) for p in PROMPTS] == expected


def test_responses_of_a_request_are_those_of_a_running_answer(model: Model, engine: Engine) -> None:
    chat = Chat.of(engine.model)
    prompt = chat_prompt(chat, [{"role": "user", "content": "Tell me a story."}])

    def ask() -> Any:
        question = chat_question(chat, prompt, sampling=GREEDY, max_tokens=20, log_probabilities=1)
        return engine.submit(question), ChatShape("demo", engine.model.tokenizer, logprobs=True)

    async def gather() -> list[dict[str, Any]]:
        return [chunk async for chunk in async_chunks(*ask(), usage=True)]

    def text(found: list[dict[str, Any]]) -> str:
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in found if c["choices"])

    def tokens(found: list[dict[str, Any]]) -> int:
        return sum(len((c["choices"][0]["logprobs"] or {"content": []})["content"]) for c in found if c["choices"])

    whole = alone(model, prompt.ids, max_tokens=20)
    for found in (list(chunks(*ask(), usage=True)), asyncio.run(gather())):
        assert text(found) == whole
        assert found[-1]["usage"]["completion_tokens"] == tokens(found) == 20


def test_what_is_written_for_a_model_runs_on_the_scheduled_one(model: Model, engine: Engine) -> None:
    ids = model.tokenizer.encode(PROMPTS[0])
    np.testing.assert_array_equal(engine.model.session().forward(ids, "all"), model.session().forward(ids, "all"))
    assert generate(engine.model, ids, sampling=GREEDY, max_tokens=30).read().text == alone(model, ids, max_tokens=30)
    session, own = engine.model.session(), model.session()
    np.testing.assert_array_equal(session.hidden(ids), own.hidden(ids))
    other, fork = session.fork(), own.fork()
    other.truncate(2)
    fork.truncate(2)
    np.testing.assert_array_equal(other.forward([5]), fork.forward([5]))
    rows = engine.model.step([(session, [7]), (other, [8])])
    for found, expected in zip(rows, model.step([(own, [7]), (fork, [8])]), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_wrong_requests_are_refused_at_once(engine: Engine) -> None:
    with pytest.raises(ContextOverflow):
        engine.submit([5] * (engine.context + 1))
    with pytest.raises(ValueError, match="token 999999"):
        engine.submit([999999])
    with pytest.raises(ValueError, match="timeout is -1"):
        engine.submit("x", timeout=-1)
    with pytest.raises(TypeError, match="nonsense"):
        engine.submit("x", nonsense=1)
    assert engine.statistics.requests_submitted == 0


def test_a_request_that_is_alone_is_drafted(model: Model, engine: Engine) -> None:
    prompt = model.tokenizer.encode("The cat sat. The dog ran. The cat sat. The dog ran. The cat sat. The dog")
    settings = {"sampling": GREEDY, "max_tokens": 60, "ignore_end": True}
    draft = NGramDraft(adaptive=False, max_tokens=4)
    expected = alone(model, prompt, **{key: value for key, value in settings.items() if key != "sampling"})
    result = engine.submit(prompt, draft=draft, **settings).read().result
    assert result.text == expected
    assert result.timings.drafted_tokens >= result.timings.accepted_tokens > 0
    assert engine.statistics.accepted_tokens == result.timings.accepted_tokens
    many = [engine.submit(prompt, draft=draft, **settings) for _ in range(5)]
    assert {request.read().content for request in many} == {expected}
    assert engine.submit(prompt, draft=None, **settings).read().result.timings.drafted_tokens == 0
    with pytest.raises(ValueError, match="draft is 'fast'"):
        engine.submit(prompt, draft="fast")


def test_errors_of_one_request_are_its_own(model: Model, engine: Engine) -> None:
    def fail(history: Any, logits: Any) -> Any:
        raise ZeroDivisionError("of the caller")

    good = engine.submit(PROMPTS[0], sampling=GREEDY, max_tokens=30)
    bad = engine.submit(PROMPTS[1], logits_processors=(fail,))
    with pytest.raises(ZeroDivisionError):
        bad.read()
    with pytest.raises(ZeroDivisionError):
        list(bad)
    assert bad.state == "failed"
    assert good.read().content == alone(model, PROMPTS[0], max_tokens=30)
    with pytest.raises(ContextOverflow):
        engine.model.session(context=4).forward([1] * 5)
    with pytest.raises(ValueError, match="vocabulary"):
        engine.model.session().forward([1, 10**6])


def test_cancelled_and_late_requests_end_with_what_they_have(model: Model, engine: Engine) -> None:
    settings = {"sampling": GREEDY, "ignore_end": True, "logits_processors": (slowly(0.01),)}
    request = engine.submit(PROMPTS[0], **settings)
    first = next(request)
    request.cancel()
    answer = request.read()
    assert answer.finish_reason == "cancelled"
    assert answer.content.startswith(first.text)
    assert engine.submit(PROMPTS[0], timeout=0.05, **settings).read().finish_reason == "timeout"
    token = CancelToken()
    request = engine.submit(PROMPTS[0], cancel=token, **settings)
    next(request)
    token.cancel()
    assert request.read().finish_reason == "cancelled"


def test_a_dropped_request_is_cancelled(engine: Engine) -> None:
    request = engine.submit(PROMPTS[0], ignore_end=True, logits_processors=(slowly(0.01),))
    next(request)
    del request
    gc.collect()
    wait_for(lambda: engine.statistics.requests_cancelled == 1)


def test_the_queue_has_a_limit_and_those_in_it_may_leave(model: Model) -> None:
    ends = threading.Event()
    settings = {"sampling": GREEDY, "ignore_end": True, "logits_processors": (waiting(ends),)}
    with Engine(model, max_running=1, max_queue=2, max_queue_per_client=1) as engine:
        wait_for(lambda: engine.state == "ready")
        running = engine.submit(PROMPTS[0], **settings)
        queued = [engine.submit(PROMPTS[1], client=client, **settings) for client in "ab"]
        with pytest.raises(Overloaded, match="2 requests waiting") as refused:
            engine.submit(PROMPTS[1], client="c", **settings)
        assert refused.value.scope == "engine"
        assert refused.value.retry_after >= 1
        queued[1].cancel()
        assert queued[1].read().finish_reason == "cancelled"
        with pytest.raises(Overloaded) as refused:
            engine.submit(PROMPTS[1], client="a", **settings)
        assert refused.value.scope == "client"
        assert engine.submit(PROMPTS[2], client="b", timeout=0.05, **settings).read().finish_reason == "timeout"
        assert running.state == "running"
        running.cancel()
        queued[0].cancel()
        ends.set()
        assert engine.statistics.requests_rejected == 2


def test_clients_take_turns(model: Model) -> None:
    order: list[str] = []

    def note(client: str) -> Callable[[Any, Any], Any]:
        def process(history: Any, logits: Any) -> Any:
            if not order or order[-1] != client:
                order.append(client)
            return logits

        return process

    with Engine(model, max_running=1) as engine:
        wait_for(lambda: engine.state == "ready")
        blocker = engine.submit("x", client="z", ignore_end=True, logits_processors=(slowly(0.01),))
        requests = [
            engine.submit(PROMPTS[0], client=client, max_tokens=10, ignore_end=True, logits_processors=(note(client),))
            for client in "aaaab"
        ]
        blocker.cancel()
        for request in requests:
            request.read()
    assert "b" in order[:2]


def test_closing_drains_and_then_cancels(model: Model) -> None:
    engine = Engine(model)
    short = engine.submit(PROMPTS[0], sampling=GREEDY, max_tokens=5)
    assert engine.close(drain=60)
    assert short.answer.finish_reason == "length"
    with pytest.raises(LlamaCpuError, match="closed"):
        engine.submit(PROMPTS[0])
    with pytest.raises(LlamaCpuError, match="closed"):
        engine.model.session().forward([1])
    engine = Engine(model, max_running=1)
    requests = [engine.submit(PROMPTS[0], ignore_end=True, logits_processors=(slowly(0.01),)) for _ in range(3)]
    next(requests[0])
    assert not engine.close(drain=0.02)
    assert [request.read().finish_reason for request in requests] == ["cancelled"] * 3
    assert engine.state == "closed"
    engine.close()


def test_a_dropped_engine_ends_its_threads(model: Model) -> None:
    engine = Engine(model)
    engine.submit(PROMPTS[0], max_tokens=2).read()
    thread = engine._scheduler._thread
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_an_error_of_the_scheduler_reaches_everybody(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(model)
    requests = [engine.submit(prompt, ignore_end=True, logits_processors=(slowly(0.01),)) for prompt in PROMPTS]
    next(requests[0])

    def broken(*_: Any) -> Any:
        raise RuntimeError("a fault of the scheduler")

    monkeypatch.setattr("llamacpu.scheduler.scheduler.plan", broken)
    for request in requests:
        with pytest.raises(LlamaCpuError, match="a fault of the scheduler"):
            request.read()
    with pytest.raises(LlamaCpuError, match="a fault"):
        engine.submit(PROMPTS[0])
    engine.close()


def test_an_error_while_loading_is_told(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = threading.Event()

    def broken(*_: Any) -> None:
        seen.wait()
        raise MemoryError("no memory for the weights")

    monkeypatch.setattr(Model, "prepare", broken)
    engine = Engine(model)
    assert engine.state == "loading"
    seen.set()
    with pytest.raises(LlamaCpuError, match="no memory for the weights"):
        engine.submit(PROMPTS[0]).read()
    assert isinstance(engine.error, MemoryError)
    assert engine.state == "closed"
    engine.close()


def test_closing_while_it_loads_is_no_error(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(model: Model, on_load: Any, cancel: CancelToken) -> None:
        while not cancel.cancelled:
            time.sleep(0.001)
        raise Cancelled("it was stopped")

    monkeypatch.setattr(Model, "prepare", slow)
    engine = Engine(model)
    request = engine.submit(PROMPTS[0])
    engine.close()
    assert request.read().finish_reason == "cancelled"
    assert engine.error is None
    assert not caplog.records


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_is_told_and_does_not_hang(engine: Engine) -> None:
    request = engine.submit(PROMPTS[0], ignore_end=True, logits_processors=(slowly(0.01),))
    next(request)
    child = os.fork()
    if not child:
        told = 0
        session = engine.model.session()
        for use in (lambda: engine.submit(PROMPTS[0]), request.read, lambda: session.forward([1])):
            try:
                use()
            except LlamaCpuError as error:
                told += "forked" in str(error)
        os._exit(10 * told + int(engine.close()))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (30, 31)
    request.cancel()
    assert request.read().finish_reason == "cancelled"


def test_an_idle_engine_does_nothing(engine: Engine) -> None:
    engine.submit(PROMPTS[0], max_tokens=2).read()
    turns = 0
    tick = engine._desk.tick

    def counted() -> float | None:
        nonlocal turns
        turns += 1
        return tick()

    engine._desk.tick = counted  # type: ignore[method-assign]
    threads = threading.active_count()
    time.sleep(0.3)
    assert turns <= 2
    assert threading.active_count() <= threads
