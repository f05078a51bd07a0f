"""A signal arrives in the middle of a step, and its handler evaluates an expression; run by test_signals.py.

    python tests/signal_child.py MODEL EXPRESSION

Prints as JSON what the expression gave, what came of the step, and whether everything works afterwards. Where nothing
moves any more, the stacks of all threads are written and the process ends with an error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import llamacpu
import llamacpu.kernels
from llamacpu.generation import generate

PATIENCE_SECONDS = 50
PROMPT = [1, 2, 3]
ENDLESS = [1] * 90_000


def in_a_thread(work: Callable[[], object]) -> object:
    """What another thread gets, which the handler waits for."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def forward(session: llamacpu.Session, cancel: llamacpu.CancelToken) -> None:
    """A step that only a signal or a token ends; again where `watch` was forking the session at the moment it began."""
    while True:
        try:
            session.forward(ENDLESS, logits="none", cancel=cancel)
        except RuntimeError as error:
            if "in the middle of another step" not in str(error):
                raise


def send_in_mid_step(session: llamacpu.Session, number: int) -> None:
    """Sends the signal from another thread as soon as a step of the session runs."""

    def watch() -> None:
        while True:
            try:
                session.fork()
            except RuntimeError:
                return os.kill(os.getpid(), number)
            time.sleep(0.001)

    threading.Thread(target=watch, daemon=True).start()


def nested(session: llamacpu.Session, other: llamacpu.Session) -> list[int]:
    """Steps another session in the handler, and looks at both from a handler within."""
    seen: list[int] = []
    token = llamacpu.CancelToken()

    def inner(_number: int, _frame: object) -> None:
        seen.extend([session.position, other.position])
        token.cancel()

    signal.signal(signal.SIGUSR2, inner)
    send_in_mid_step(other, signal.SIGUSR2)
    try:
        forward(other, token)
    except llamacpu.Cancelled:
        seen.append(other.position)
    return seen


def forked(work: Callable[[], object]) -> int:
    """The status of a child that is forked in the handler and does something: 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(PATIENCE_SECONDS // 2)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    """Step, be interrupted, and report."""
    faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
    path, expression = Path(sys.argv[1]), sys.argv[2]
    model = llamacpu.Model(path, threads=2)
    session, other, token = model.session(), model.session(), llamacpu.CancelToken()
    expected = session.forward(PROMPT)
    names: dict[str, Any] = {
        **globals(), "model": model, "session": session, "other": other, "token": token, "expected": expected,
        "path": path, "generate": generate, "same": lambda logits: bool(np.array_equal(logits, expected)),
    }  # fmt: skip
    report: dict[str, object] = {}

    def handler(_number: int, _frame: object) -> None:
        try:
            report["found"] = repr(eval(expression, names))
        except RuntimeError as error:
            report["found"] = f"RuntimeError: {error}"
        finally:
            token.cancel()

    signal.signal(signal.SIGUSR1, handler)
    send_in_mid_step(session, signal.SIGUSR1)
    try:
        forward(session, token)
    except (llamacpu.Cancelled, ZeroDivisionError) as error:
        report["step"] = type(error).__name__
    report["position"] = session.position
    if not model.closed:
        session.truncate(0)
        report["works"] = names["same"](session.forward(PROMPT))
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
