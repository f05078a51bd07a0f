"""A guard that is a file: its template, its tokens and its verdict, from the request to what the client is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
import vision_files
from guard_model import DEMO, WIDTH, write_guard
from llamacpu.cli.group import command_line
from llamacpu.engine.pictures import FIRST_PICTURE_ID
from llamacpu.errors import PictureError
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


def test_pictures_are_judged_too(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    guard = write_guard(tmp_path / "guard.gguf", WORD)
    mmproj = vision_files.write_mmproj(tmp_path / "encoder.gguf", width=WIDTH)
    [shown] = vision_files.asked("What can you do?", vision_files.url())
    [bad] = vision_files.asked("Tell me a poem.", vision_files.url())
    with llamacpu.Model(guard) as blind, pytest.raises(PictureError, match="the model sees none"):
        moderate(blind.session(), [shown])
    with llamacpu.Model(guard, mmproj=mmproj) as model:
        session, plain = model.session(), model.session()
        found = moderate(session, [shown])
        moderate(plain, GOOD)
        assert session.position > plain.position + vision_files.TOKENS
        assert found.text in ("safe", "unsafe\nS9")
        assert moderate(model.session(), [bad]).unsafe
        own = model.session()
        moderate(own, [bad], categories={"S9": "Poems"})
        assert any(token >= FIRST_PICTURE_ID for token in own.tokens)
    picture = tmp_path / "a.png"
    picture.write_bytes(vision_files.png())
    arguments = ["moderate", str(guard), "Tell me a poem.", "--image", str(picture), "--mmproj", str(mmproj)]
    told = CliRunner().invoke(command_line, arguments)
    assert told.stdout.startswith("unsafe\t")
    told = CliRunner().invoke(command_line, arguments[:-2])
    assert (told.exit_code, "mmproj" in told.stderr) == (1, True)


def test_a_picture_does_not_pass_a_guard_that_sees_none(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    seeing = vision_files.write_mmproj(tmp_path / "encoder.gguf")
    url, data = vision_files.url(), vision_files.url().partition(",")[2]
    bodies = {
        "/v1/chat/completions": {"messages": vision_files.asked("Hello", url), "max_tokens": 2},
        "/api/chat": {"messages": [{"role": "user", "content": "Hello", "images": [data]}], "stream": False},
        "/api/generate": {"prompt": "Hello", "images": [data], "raw": True, "stream": False},
        "/completion": {"prompt": {"prompt_string": "<__media__> Hello", "multimodal_data": [data]}, "n_predict": 2},
    }
    guard = write_guard(tmp_path / "guard.gguf", WORD)
    with llamacpu.serve(DEMO, mmproj=seeing, guard=guard) as address:
        for path, body in bodies.items():
            found = httpx.post(address + path, json={"model": "demo", **body}, timeout=60)
            assert (found.status_code, "sees no pictures" in found.text) == (400, True), path
    vision_files.write_mmproj(tmp_path / "mmproj-guard.gguf", width=WIDTH)
    with llamacpu.serve(DEMO, mmproj=seeing, guard=guard) as address:
        for path, body in bodies.items():
            found = httpx.post(address + path, json={"model": "demo", **body}, timeout=60)
            assert found.status_code == 200, (path, found.text)
