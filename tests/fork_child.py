"""Processes that are forked while a thread of their parent is at work; run by test_fork.py.

    python tests/fork_child.py SCENE MODEL

Prints the exit status of every child as JSON: 0 where it did what it should.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import llamacpu
from llamacpu import kernels
from llamacpu.constraints.gbnf import GbnfGrammar
from llamacpu.locks import ProcessLock, cached_property

PATIENCE_SECONDS = 20
PROMPT = [1, 2, 3]
# The status of a child that was told that the session it uses was being changed when it was forked.
TOLD = 3


def fork(work: Callable[[], bool]) -> int:
    """The status of a child: 0 if `work` is true there, a negative number if it hung."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(PATIENCE_SECONDS)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forward(session: llamacpu.Session, cancel: llamacpu.CancelToken) -> None:
    """A step that only the token ends; again where another thread was forking the session at the moment it began."""
    while True:
        try:
            session.forward([1] * 90_000, logits="none", cancel=cancel)
        except RuntimeError as error:
            if "in the middle of another step" not in str(error):
                raise


def packing(path: Path) -> list[int]:
    """The parent is packing weights, at some other place each time; the child needs them too."""
    with llamacpu.Model(path, threads=2) as model:
        expected = model.session().forward(PROMPT)
    statuses = []
    for number in range(20):
        with llamacpu.Model(path, threads=2) as model:
            began = threading.Event()
            report = lambda done, total, began=began: began.set()  # noqa: E731
            thread = threading.Thread(target=model.prepare, args=(report,))
            thread.start()
            began.wait()
            time.sleep(random.Random(number).random() * 0.01)
            statuses.append(fork(lambda model=model: np.array_equal(model.session().forward(PROMPT), expected)))
            thread.join()
    return statuses


def stepping(path: Path) -> list[int]:
    """The parent steps a session: the child has the model, that session as it was, and a refusal."""
    model = llamacpu.Model(path, threads=2)
    session, token = model.session(), llamacpu.CancelToken()
    expected = session.forward(PROMPT)

    def step() -> None:
        with contextlib.suppress(llamacpu.Cancelled):
            forward(session, token)

    def refused(work: Callable[[], object]) -> bool:
        try:
            work()
        except RuntimeError as error:
            return "in the middle of another step" in str(error)
        return False

    def child() -> bool:
        known = (session.position, session.tokens, session.kv_type, session.nbytes > 0) == (3, PROMPT, "f16", True)
        busy = all(map(refused, [lambda: session.forward([1]), session.fork, lambda: session.truncate(0)]))
        works = np.array_equal(model.session().forward(PROMPT), expected)
        return (
            known and busy and works and len(model.generate("Hello", max_tokens=2, ignore_end=True).read().tokens) == 2
        )

    thread = threading.Thread(target=step)
    thread.start()
    while not refused(session.fork):
        time.sleep(0.001)
    statuses = [fork(child) for _ in range(3)]
    token.cancel()
    thread.join()
    return statuses


def running(path: Path) -> list[int]:
    """The parent begins and ends short steps, forks and cuts all the time."""
    model = llamacpu.Model(path, threads=2)
    session, ends = model.session(), threading.Event()
    expected = model.session().forward(PROMPT)

    def work() -> None:
        while not ends.is_set():
            session.truncate(0)
            session.forward(PROMPT)
            session.fork()

    def child() -> bool:
        try:
            known = session.position in (0, 3)
        except RuntimeError as error:
            if "forked while another thread" in str(error):
                os._exit(TOLD)
            raise
        return known and np.array_equal(model.session().forward(PROMPT), expected)

    thread = threading.Thread(target=work)
    thread.start()
    statuses = [fork(child) for _ in range(30)]
    ends.set()
    thread.join()
    # The instants in which a session is being changed are few, and none when nobody uses it.
    told = [status for status in statuses if status == TOLD]
    return [status for status in statuses if status != TOLD] + told[3:] + [fork(child)]


def vocabulary(path: Path) -> list[int]:
    """The parent is making the tokenizer of a model at its first use."""
    parent, inside, ends = os.getpid(), threading.Event(), threading.Event()
    make = llamacpu.Tokenizer.__init__

    def slow(self: llamacpu.Tokenizer, *arguments: object) -> None:
        if os.getpid() == parent:
            inside.set()
            ends.wait()
        make(self, *arguments)  # type: ignore[arg-type]

    llamacpu.Tokenizer.__init__ = slow  # type: ignore[method-assign, assignment]
    model = llamacpu.Model(path)
    thread = threading.Thread(target=lambda: model.tokenizer)
    thread.start()
    inside.wait()
    statuses = [fork(lambda: len(model.tokenizer.encode("Hello")) > 0)]
    ends.set()
    thread.join()
    return statuses


def locks(path: Path) -> list[int]:
    """Another thread holds the lock of a Llama and is computing an attribute."""
    llm = llamacpu.Llama(path, n_ctx=64)
    inside, ends = threading.Event(), threading.Event()

    class Slow:
        lock = ProcessLock()

        @cached_property
        def attribute(self) -> int:
            if threading.current_thread() is thread:
                inside.set()
                ends.wait()
            return 1

    slow = Slow()

    def hold() -> None:
        with llm._conversation._lock, slow.lock:
            assert slow.attribute

    def child() -> bool:
        with slow.lock:
            return slow.attribute == 1 and bool(llm("Hello", max_tokens=2)["choices"])

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    statuses = [fork(child)]
    ends.set()
    thread.join()
    return statuses


def handler(path: Path) -> list[int]:
    """A signal handler forks in the middle of a step, and the child returns from it: one clear error."""
    model = llamacpu.Model(path, threads=2)
    session, token = model.session(), llamacpu.CancelToken()
    parent, statuses = os.getpid(), []

    def watch() -> None:
        while True:
            try:
                session.fork()
            except RuntimeError:
                return os.kill(parent, signal.SIGUSR1)

    def fork_here(_number: int, _frame: object) -> None:
        child = os.fork()
        if child:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            token.cancel()
        else:
            signal.alarm(PATIENCE_SECONDS)

    signal.signal(signal.SIGUSR1, fork_here)
    threading.Thread(target=watch, daemon=True).start()
    try:
        forward(session, token)
    except RuntimeError as error:
        if os.getpid() != parent:
            works = len(model.session().forward(PROMPT)) == model.vocab_size
            os._exit(0 if works and "forked by a signal handler" in str(error) else 2)
    except llamacpu.Cancelled:
        pass
    return statuses


def other_work(path: Path) -> list[int]:
    """The parent does everything else in native code, all at once and without end; the child does each as well."""
    model = llamacpu.Model(path, threads=2)
    saved = path.with_suffix(".session")
    session = model.session()
    session.forward(PROMPT)
    session.save(saved)
    words, weights = "a b ab " * 2000, np.linspace(-1, 1, 256 * 512, dtype=np.float32).reshape(512, 256)
    ids = model.tokenizer.encode(words)
    logits = np.linspace(-3, 3, model.vocab_size, dtype=np.float32)

    def quantizes() -> object:
        return kernels.dequantize(kernels.quantize(weights, "Q4_K"), "Q4_K")

    def multiplies() -> object:
        return kernels.matmul(weights[:4], kernels.quantize(weights, "Q8_0"), "Q8_0", threads=2)

    def constrains() -> object:
        return GbnfGrammar("root ::= [ab ]+").matcher(model.tokenizer)

    everything: list[Callable[[], object]] = [
        lambda: model.tokenizer.encode(words),
        lambda: model.tokenizer.decode(ids),
        lambda: llamacpu.Sampler(llamacpu.Sampling(seed=1)).sample(logits),
        lambda: model.embed(["a b", "b a"]),
        lambda: model.load_session(saved),
        lambda: llamacpu.GGUFFile(path).close(),
        lambda: llamacpu.Model(path, load="copy").close(),
        quantizes,
        multiplies,
        constrains,
    ]
    ends = threading.Event()
    # Python's own lock of a module that another thread is importing stays locked in a child.
    for one in everything:
        one()

    def work(one: Callable[[], object]) -> None:
        while not ends.is_set():
            one()

    threads = [threading.Thread(target=work, args=(one,)) for one in everything]
    for thread in threads:
        thread.start()
    statuses = [fork(lambda one=one: one() is not ends) for one in everything for _ in range(2)]
    ends.set()
    for thread in threads:
        thread.join()
    return statuses


def main() -> None:
    """Play one scene."""
    faulthandler.dump_traceback_later(100, exit=True)
    scenes = {scene.__name__: scene for scene in (packing, stepping, running, vocabulary, locks, handler, other_work)}
    sys.stdout.write(json.dumps(scenes[sys.argv[1]](Path(sys.argv[2]))))


if __name__ == "__main__":
    main()
