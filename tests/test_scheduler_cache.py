"""The prefix cache and the memory budget of an engine: they change what is computed, and no bit of any text."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
from llamacpu import Engine, Model, NGramDraft, Sampling
from llamacpu.engine.interfaces import PAGE_TOKENS
from llamacpu.generation import generate
from llamacpu.scheduler.pages import PageCounter, PageList
from llamacpu.scheduler.prefix_cache import Ordered, key_of, shared_tokens

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = Sampling(temperature=0)
SYSTEM = [1, *range(300, 500)]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(DEMO) as opened:
        yield opened


def alone(model: Model, prompt: list[int], tokens: int) -> str:
    return generate(model, prompt, draft=None, sampling=GREEDY, max_tokens=tokens, ignore_end=True).read().text


def tokens_alone(model: Model, prompt: list[int], tokens: int) -> tuple[int, ...]:
    settings: dict[str, Any] = {"sampling": GREEDY, "max_tokens": tokens, "ignore_end": True}
    return generate(model, prompt, draft=None, **settings).read().tokens


def ask(engine: Engine, prompt: list[int], tokens: int = 20, **settings: Any) -> Any:
    return engine.submit(prompt, sampling=GREEDY, max_tokens=tokens, ignore_end=True, **settings)


# --- The index ---

TOKENS = st.lists(st.sampled_from([0, 1, 255, 256, 70000]), max_size=8)


@given(st.lists(TOKENS.filter(bool), max_size=12), TOKENS)
def test_the_nearest_text_is_the_one_that_shares_most(texts: list[list[int]], prompt: list[int]) -> None:
    def shared(one: list[int], other: list[int]) -> int:
        return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

    order = Ordered()
    kept: list[list[int]] = []
    for text in texts:
        covered = any(other[: len(text)] == text for other in kept)
        assert order.covers(key_of(text)) == covered
        if not covered:
            shorter = [other for other in kept if text[: len(other)] == other]
            removed = order.add(key_of(text))
            assert [key_of(other) for other in shorter] == ([] if removed is None else [removed])
            kept = [other for other in kept if other not in shorter] + [text]
    assert list(order) == [key_of(text) for text in sorted(kept)]
    nearest = order.nearest(key_of(prompt))
    most = max((shared(text, prompt) for text in kept), default=0)
    assert (nearest[1] if nearest else 0) == most
    if nearest:
        assert shared_tokens(nearest[0], key_of(prompt)) == most


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(1, 300)), max_size=30))
def test_pages_are_counted_as_references_to_them(steps: list[tuple[int, int, int]]) -> None:
    """Beside a model of the native pages: numbers that lists share, copied by who writes into a shared one."""
    counter = PageCounter(10)
    lists, positions = [PageList(counter)], [0]
    native: list[list[int]] = [[]]
    fresh = 0
    for kind, which, count in steps:
        index = which % len(lists)
        pages, mine = lists[index], native[index]
        if kind == 0:
            position, end = positions[index], positions[index] + count
            expected = counter.pages + pages.missing(position, count)
            pages.grow(position, count)
            first = position // PAGE_TOKENS
            if first < len(mine) and sum(mine[first] in other for other in native) > 1:
                fresh += 1
                mine[first] = fresh
            while len(mine) * PAGE_TOKENS < end:
                fresh += 1
                mine.append(fresh)
            positions[index] = end
            assert counter.pages <= expected
        elif kind == 1:
            lists.append(pages.fork())
            native.append(list(mine))
            positions.append(positions[index])
        else:
            keep = min(count, positions[index])
            pages.truncate(keep)
            del mine[-(-keep // PAGE_TOKENS) :]
            positions[index] = keep
        assert counter.nbytes == 10 * len({page for other in native for page in other})


# --- The cache ---


def test_a_prompt_that_begins_alike_is_not_computed_again(model: Model) -> None:
    with Engine(model) as engine:
        for tail, cached in (([7, 8, 9], 0), ([7, 8, 10, 11], 203), ([5], 201), ([7, 8, 9], 203)):
            answer = ask(engine, SYSTEM + tail).read()
            assert answer.result.cached_tokens == cached
            assert answer.content == alone(model, SYSTEM + tail, 20)
        first = ask(engine, [1, 50]).read()
        turn = [1, 50, *first.result.tokens, 60]
        answer = ask(engine, turn).read()
        assert answer.result.cached_tokens == len(turn) - 2
        assert answer.content == alone(model, turn, 20)
        assert engine.statistics.prefix_hits == 5
        assert engine.statistics.cached_tokens == 203 + 201 + 203 + 1 + len(turn) - 2


def test_without_a_cache_everything_is_computed(model: Model) -> None:
    with Engine(model, prefix_cache=False) as engine:
        for _ in range(2):
            assert ask(engine, SYSTEM).read().result.cached_tokens == 0
        assert engine.statistics.kv_bytes_limit > engine.statistics.kv_bytes == 0


def test_requests_that_come_together_share_what_one_of_them_computes(model: Model) -> None:
    prompts = [[*SYSTEM, 600 + number, 601] for number in range(10)]
    with Engine(model) as engine:
        answers = [request.read() for request in [ask(engine, prompt, draft=None) for prompt in prompts]]
        assert [answer.content for answer in answers] == [alone(model, prompt, 20) for prompt in prompts]
        assert sorted(answer.result.cached_tokens for answer in answers) == [0] + 9 * [len(SYSTEM)]
        # The system prompt once, and of each request its own tokens.
        assert engine.statistics.step_tokens <= len(SYSTEM) + 10 * (2 + 20)


def test_a_request_that_waits_for_another_survives_its_end(model: Model) -> None:
    prompts = [[*SYSTEM, 600 + number] for number in range(6)]
    with Engine(model, longest_step=0.001) as engine:
        requests = [ask(engine, prompt) for prompt in prompts]
        requests[0].cancel()
        requests[3].cancel()
        for number, request in enumerate(requests):
            answer = request.read()
            if number not in (0, 3):
                assert answer.content == alone(model, prompts[number], 20)


# --- The budget ---


def test_the_budget_holds_and_every_text_is_the_same(model: Model) -> None:
    page = model.page_bytes("f16")
    prompts = [[1, *range(10 * number, 10 * number + 2 * PAGE_TOKENS)] for number in range(8)]
    expected = [alone(model, prompt, 2 * PAGE_TOKENS) for prompt in prompts]
    with Engine(model, memory=12 * page, max_running=8) as engine:
        most = 0
        ended = threading.Event()

        def watch() -> None:
            nonlocal most
            while not ended.is_set():
                most = max(most, engine.statistics.kv_bytes)
                time.sleep(0.001)

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(2):
            requests = [ask(engine, prompt, 2 * PAGE_TOKENS) for prompt in prompts]
            assert [request.read(100).content for request in requests] == expected
        ended.set()
        watcher.join()
        assert most <= 12 * page
        assert engine.statistics.prefix_evictions > 0


def test_young_requests_are_preempted_for_older_ones(model: Model) -> None:
    page = model.page_bytes("f16")
    prompts = [[1, *range(10 * number, 10 * number + 20)] for number in range(4)]
    tokens = 3 * PAGE_TOKENS
    expected = [alone(model, prompt, tokens) for prompt in prompts]
    with Engine(model, memory=8 * page, max_running=4, context=4 * PAGE_TOKENS) as engine:
        requests = [ask(engine, prompt, tokens) for prompt in prompts]
        assert [request.read(100).content for request in requests] == expected
        assert engine.statistics.preemptions > 0


def test_a_context_that_the_budget_cannot_hold_is_refused(model: Model) -> None:
    page = model.page_bytes("f16")
    with pytest.raises(ValueError, match="expected at most that, or more memory"):
        Engine(model, memory=page, context=2 * PAGE_TOKENS)
    with Engine(model, memory=2 * page) as engine:
        assert engine.context == 2 * PAGE_TOKENS


def test_sessions_that_are_kept_open_and_use_up_the_budget_are_an_error(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamacpu.scheduler.scheduler._MOST_MEMORY_PAUSES", 2)
    with Engine(model, memory=4 * model.page_bytes("f16")) as engine:
        kept = engine.model.session()
        kept.forward(list(range(4 * PAGE_TOKENS)), "none")
        with pytest.raises(MemoryError, match="close some of them"):
            ask(engine, SYSTEM).read()
        del kept
        assert ask(engine, SYSTEM, 5).read().content == alone(model, SYSTEM, 5)


# --- Everything at once ---


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_and_goes_every_text_is_the_one_it_is_alone(model: Model, seed: int) -> None:
    chance = random.Random(seed)
    prompts = [[*SYSTEM[: chance.randrange(1, 200)], chance.randrange(2000)] for _ in range(12)]
    chosen = [tokens_alone(model, prompt, 60) for prompt in prompts]
    memory = None if seed == 0 else 30 * model.page_bytes("f16")
    with Engine(model, memory=memory, max_running=1 + 5 * seed, max_queue=1000, longest_step=0.002) as engine:
        requests = []
        for _ in range(120):
            which = chance.randrange(len(prompts))
            timeout = chance.choice([None, None, None, 0.0, 0.01, 0.05])
            tokens = chance.randrange(1, 60)
            draft = chance.choice(["auto", NGramDraft(adaptive=False), None])
            request = ask(engine, prompts[which], tokens, client=chance.choice("abc"), timeout=timeout, draft=draft)
            requests.append((which, tokens, request))
            if chance.random() < 0.3:
                time.sleep(chance.random() * 0.01)
            if chance.random() < 0.2:
                chance.choice(requests)[2].cancel()
        reasons = set()
        for which, tokens, request in requests:
            answer = request.read(100)
            reasons.add(answer.finish_reason)
            if answer.finish_reason == "length":
                assert len(answer.result.tokens) == tokens
            assert answer.result.tokens == chosen[which][: len(answer.result.tokens)]
        assert {"length", "timeout"} <= reasons
        statistics = engine.statistics
        assert statistics.running == statistics.queued == 0
        ended = statistics.requests_finished + statistics.requests_cancelled + statistics.requests_timed_out
        assert ended == statistics.requests_submitted == 120


def test_the_end_of_a_request_wakes_those_that_wait_for_it(model: Model) -> None:
    """Nothing else runs then: whoever waits depends on being woken."""
    prompt = [*SYSTEM, 700]
    with Engine(model, longest_step=0.001, max_running=2) as engine:
        for _ in range(20):
            stopped = threading.Event()

            def hold(done: int, total: int, stopped: threading.Event = stopped) -> None:
                stopped.wait()

            first = ask(engine, prompt, on_prompt=hold)
            while not engine._desk._prefixes._begun:
                time.sleep(0.0005)
            second = ask(engine, [*prompt, 5], 3)
            while not list(engine._desk._prefixes.waiting()):
                time.sleep(0.0005)
            first.cancel()
            stopped.set()
            assert second.read(100).finish_reason == "length"
            engine._desk._memory.free(1 << 60)
