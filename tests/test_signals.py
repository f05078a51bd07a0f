"""Signal handlers that run in the middle of a step: they see the state before it, use what is free, and never hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiny_models import Shape

CHILD = Path(__file__).with_name("signal_child.py")
SLOW = Shape(layers=8, context=100_000)
REFUSED = "RuntimeError: the session is being stepped by this thread, in whose signal handler"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no signals of this kind")


def report(model: Path, expression: str) -> dict[str, Any]:
    """What the handler found and what came of the step."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", str(CHILD), str(model), expression]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("session.position", "3"),
        ("session.tokens", "[1, 2, 3]"),
        ("session.kv_type", "'f16'"),
        ("session.nbytes == model.session().nbytes", "False"),
        ("session.context", "100000"),
        ("repr(session).startswith('<Session: 3 of 100000 tokens')", "True"),
        ("in_a_thread(lambda: (session.position, session.tokens))", "(3, [1, 2, 3])"),
        ("nested(session, other)", "[3, 0, 0]"),
        ("(model.threads, model.closed, model.vocab_size > 0, model.weight_bytes > 0)", "(2, False, True, True)"),
        ("(model.isa != '', model.threads_reason, repr(model) != '')", "(True, 'asked for', True)"),
        ("len(model.fingerprint)", "64"),
    ],
)
def test_a_handler_reads_the_state_before_the_step(
    tiny_model: Callable[..., Path], expression: str, expected: str
) -> None:
    found = report(tiny_model(SLOW), expression)
    assert found == {"found": expected, "step": "Cancelled", "position": 3, "works": True}


@pytest.mark.parametrize(
    "expression",
    [
        "session.forward([4])",
        "session.forward([4] * 600, logits='none')",
        "session.hidden([4])",
        "session.fork()",
        "session.truncate(0)",
        "session.save(path.with_name('never.session'))",
        "model.step([(other, [1]), (session, [4])])",
        "generate(session, [1, 2, 3], max_tokens=2).read()",
    ],
)
def test_a_handler_cannot_change_the_session_that_is_stepped(tiny_model: Callable[..., Path], expression: str) -> None:
    found = report(tiny_model(SLOW), expression)
    assert found["found"].startswith(REFUSED)
    assert (found["step"], found["position"], found["works"]) == ("Cancelled", 3, True)


@pytest.mark.parametrize(
    "expression",
    [
        "same(other.forward(PROMPT))",
        "same(model.step([(other, PROMPT), (model.session(), [4, 5])])[0])",
        "same(in_a_thread(lambda: other.forward(PROMPT)))",
        "len(model.generate('Hello', max_tokens=3, ignore_end=True).read().tokens) == 3",
        "model.embed('Hello').ndim == 1",
        "model.prepare() is None",
        "same(llamacpu.Model(path, threads=2).session().forward(PROMPT))",
        "llamacpu.Llama(path, n_ctx=64)('Hello', max_tokens=2)['object'] == 'text_completion'",
        "bool(llamacpu.kernels.softmax(np.zeros((2, 8), np.float32))[0, 0] == 0.125)",
        "len(model.tokenizer.encode('Hello')) > 0",
        "forked(lambda: other.forward(PROMPT)) == 0",
        "forked(lambda: session.position == 3 or 1 / 0) == 0",
        "token.cancel() is None",
    ],
)
def test_a_handler_uses_everything_else(tiny_model: Callable[..., Path], expression: str) -> None:
    found = report(tiny_model(SLOW), expression)
    assert found == {"found": "True", "step": "Cancelled", "position": 3, "works": True}


def test_a_handler_may_raise_and_close(tiny_model: Callable[..., Path]) -> None:
    found = report(tiny_model(SLOW), "1 / 0")
    assert found == {"step": "ZeroDivisionError", "position": 3, "works": True}
    found = report(tiny_model(SLOW), "model.close() or model.closed")
    assert found == {"found": "True", "step": "Cancelled", "position": 3}
