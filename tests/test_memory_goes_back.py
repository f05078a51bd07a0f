"""Memory that is dropped goes back at once, without a garbage collection: to the system where it is much."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.drafting import ModelDraft

HERE = Path(__file__).parent
MESSAGES = [{"role": "user", "content": "a b"}]


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def ended(model: llamacpu.Model) -> None:
    list(model.generate("a b", max_tokens=4))


def dropped_in_the_middle(model: llamacpu.Model) -> None:
    next(model.generate("a b", max_tokens=40, ignore_end=True))


def never_begun(model: llamacpu.Model) -> None:
    model.generate("a b")


def every_step_of_the_sampler(model: llamacpu.Model) -> None:
    sampling = llamacpu.Sampling(
        repeat_penalty=1.1, dry_multiplier=1, top_n_sigma=3, typical_p=0.9, xtc_probability=0.5, dynatemp_range=0.1
    )
    for settings in (sampling, llamacpu.Sampling(mirostat=2), llamacpu.Sampling(adaptive_target=0.5)):
        list(model.generate("a b", max_tokens=4, sampling=settings))


def embeddings(model: llamacpu.Model) -> None:
    model.embed(["a", "b"])


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize(
    "use", [ended, dropped_in_the_middle, never_begun, every_step_of_the_sampler, embeddings], ids=lambda f: f.__name__
)
def test_a_model_goes_with_its_last_name(
    use: Callable[[llamacpu.Model], None], tiny_model: Callable[..., Path]
) -> None:
    model = llamacpu.Model(tiny_model("bpe"))
    use(model)
    watched = weakref.ref(model)
    del model
    assert watched() is None


ENGINE = """
import gc, sys, threading, weakref
import llamacpu

gc.disable()
engine = llamacpu.Engine(sys.argv[1], context=500)
request = engine.submit("a b", max_tokens=int(sys.argv[2]), ignore_end=True)
next(iter(request))
watched = weakref.ref(engine.model._model)
del engine, request
# The engine's threads, and the one that ends it without being waited for.
while threads := set(threading.enumerate()) - {threading.main_thread()}:
    threads.pop().join()
assert watched() is None
"""


@pytest.mark.parametrize("tokens", ["4", "400"])
def test_an_engine_goes_with_its_last_name(tokens: str, tiny_model: Callable[..., Path]) -> None:
    # In a process of its own, which has no other threads.
    child = subprocess.run(
        [sys.executable, "-c", ENGINE, tiny_model("bpe"), tokens],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"PYTHONPATH": str(Path(llamacpu.__file__).parent.parent)},
    )
    assert child.returncode == 0, child.stderr[-3000:]


@pytest.mark.usefixtures("no_collection")
def test_a_dropped_generation_is_closed(tiny_model: Callable[..., Path]) -> None:
    with llamacpu.Model(tiny_model("bpe")) as model, llamacpu.Model(tiny_model("bpe", seed=1)) as small:
        draft = ModelDraft(small)
        generation = model.generate("a b", max_tokens=40, ignore_end=True, draft=draft)
        next(generation)
        watched = weakref.ref(generation)
        assert not draft._idle
        del generation
        assert watched() is None
        # What a generation gives back when it is closed.
        assert draft._idle


def completion(llama: llamacpu.Llama) -> None:
    llama("a b", max_tokens=4, logprobs=2)


def chat(llama: llamacpu.Llama) -> None:
    llama.create_chat_completion(MESSAGES, max_tokens=4)
    llama.create_chat_completion(MESSAGES, max_tokens=4, logprobs=True, top_logprobs=2)


def grammar(llama: llamacpu.Llama) -> None:
    llama.create_chat_completion(MESSAGES, max_tokens=4, response_format={"type": "json_object"})


def streams(llama: llamacpu.Llama) -> None:
    next(iter(llama("a b", max_tokens=40, stream=True)))
    next(iter(llama.create_chat_completion(MESSAGES, max_tokens=40, stream=True)))


def tokens(llama: llamacpu.Llama) -> None:
    next(llama.generate(llama.tokenize(b"a b"), repeat_penalty=1.1))
    llama.sample()
    llama.load_state(llama.save_state())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("use", [completion, chat, grammar, streams, tokens], ids=lambda f: f.__name__)
def test_a_llama_goes_with_its_last_name(
    use: Callable[[llamacpu.Llama], None], tiny_model: Callable[..., Path]
) -> None:
    llama = llamacpu.Llama(tiny_model("bpe"), draft_model=tiny_model("bpe", seed=1), verbose=False)
    use(llama)
    watched: list[weakref.ref[Any]] = [weakref.ref(part) for part in (llama, llama.model, llama.draft_model.model)]
    del llama
    assert [part() for part in watched] == [None] * 3


@pytest.mark.usefixtures("no_collection")
def test_a_closed_llama_gives_back_what_it_has(tiny_model: Callable[..., Path]) -> None:
    llama = llamacpu.Llama(tiny_model("bpe"), draft_model=tiny_model("bpe", seed=1), verbose=False, logits_all=True)
    llama("a b", max_tokens=4)
    llama.eval([2, 3])
    parts = (llama.model, llama.session, llama.draft_model, llama.draft_model.model)
    watched: list[weakref.ref[Any]] = [weakref.ref(part) for part in parts]
    del parts
    llama.close()
    assert [part() for part in watched] == [None] * 4
    assert llama.scores.size == 0
    llama.close()
    with pytest.raises(llamacpu.LlamaCpuError, match="closed"):
        llama("a b")


def test_closing_in_the_middle_of_a_stream(tiny_model: Callable[..., Path]) -> None:
    llama = llamacpu.Llama(tiny_model("bpe"), verbose=False)
    stream = llama("a b", max_tokens=40, stream=True)
    next(stream)
    llama.close()
    with pytest.raises(llamacpu.LlamaCpuError, match="closed"):
        list(stream)
    with pytest.raises(llamacpu.LlamaCpuError, match="closed"):
        llama("a b")


SESSIONS = """
import json, sys
from pathlib import Path
import llamacpu

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

model = llamacpu.Model(sys.argv[1], threads=2)
def work():
    sessions = [model.session(kv_type=kind) for kind in ("f16", "f32", "q8_0") for _ in range(100)]
    for session in sessions:
        session.forward([2])
    taken = resident()
    # Something that stays, allocated last: whatever lies in the heap below it cannot go back.
    kept.append([bytearray(1000) for _ in range(1000)])
    return taken
kept = []
model.session().forward([2])
before = resident()
taken = work()
first = resident()
work()
print(json.dumps([before, taken, first, resident(), model._native.page_bytes("f16")]))
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_three_hundred_sessions_leave_nothing_behind(tiny_model: Callable[..., Path]) -> None:
    from tiny_models import Shape

    # Pages of about 1 MB, like those of a small model: less than what a heap gives back by itself.
    path = tiny_model(Shape(width=512, heads=8, kv_heads=8, layers=8, feed_forward=64))
    package = str(Path(llamacpu.__file__).parent.parent)
    child = subprocess.run(
        [sys.executable, "-c", SESSIONS, path],
        capture_output=True,
        text=True,
        timeout=110,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([package, str(HERE)])},
    )
    assert child.returncode == 0, child.stderr[-3000:]
    before, taken, first, last, page = json.loads(child.stdout)
    assert 500_000 < page < 1 << 21
    assert taken - before > 100 * page
    assert first - before < 20 << 20
    assert last - first < 20 << 20
