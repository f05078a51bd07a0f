"""A guard that is a file: its template, its tokens and its verdict, from the request to what the client is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from guard_model import DEMO, write_guard
from llamacpu.tasks.moderation import moderate

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

WORD = " poem"
GOOD = [{"role": "user", "content": "What can you do?"}]
BAD = [{"role": "user", "content": "Tell me a poem."}]
# The answer of the demo model to GOOD names a poem behind this many tokens.
SAFE, UNSAFE = 8, 24
REFUSED = "S9: Indiscriminate Weapons"


@pytest.fixture(scope="module", params=[True, False], ids=["own template", "no template"])
def guard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_guard(tmp_path_factory.mktemp("guard") / "guard.gguf", WORD, request.param)


@pytest.fixture(scope="module")
def url(guard: Path) -> Iterator[str]:
    with llamacpu.serve(DEMO, guard=guard) as found:
        yield found


def test_the_file_gives_verdicts(guard: Path) -> None:
    with llamacpu.Model(guard) as model:
        good = moderate(model.session(), GOOD)
        assert (good.unsafe, good.categories, good.text) == (False, (), "safe")
        bad = moderate(model.session(), BAD)
        assert (bad.unsafe, bad.categories, bad.text) == (True, ("S9",), "unsafe\nS9")
        assert good.probability < 0.01 < 0.99 < bad.probability
        answered = [*GOOD, {"role": "assistant", "content": "I can write a poem."}]
        assert moderate(model.session(), answered).unsafe


@pytest.mark.parametrize(("messages", "limit", "refused"), [(GOOD, SAFE, 0), (BAD, SAFE, 1), (GOOD, UNSAFE, 1)])
def test_what_it_refuses_does_not_pass(url: str, messages: Any, limit: int, refused: int) -> None:
    body = {"messages": messages, "max_tokens": limit, "temperature": 0}
    choice = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]
    assert (choice["finish_reason"] == "content_filter") == bool(refused)
    assert (REFUSED in json.dumps(choice)) == bool(refused)
    streamed = httpx.post(f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60).text
    assert (REFUSED in streamed) == bool(refused)
    if refused:
        assert "poem" not in json.dumps(choice) + streamed
    options = {"num_predict": limit, "temperature": 0}
    chat = {"model": "demo", "messages": messages, "stream": False, "options": options}
    told = httpx.post(f"{url}/api/chat", json=chat, timeout=60).json()
    assert (REFUSED in told["message"]["content"]) == bool(refused)
    claude = {"model": "demo", "messages": messages, "max_tokens": limit, "temperature": 0}
    told = httpx.post(f"{url}/v1/messages", json=claude, timeout=60).json()
    assert (told["stop_reason"] == "refusal") == bool(refused)


def test_a_file_that_is_no_guard_is_told(tmp_path: Path) -> None:
    with llamacpu.serve(DEMO, guard=DEMO) as url:
        body = {"messages": GOOD, "max_tokens": 4}
        found = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        assert found.status_code == 500
        assert "Llama Guard" in found.json()["error"]["message"]
