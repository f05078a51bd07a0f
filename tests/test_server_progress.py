"""How far a prompt is, told in streams as llama-server tells it (`return_progress`)."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.sampling import Sampling
from llamacpu.scheduler import Engine, PromptReport

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette", reason="the extra [server] is not installed")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
KEYS = {"total", "cache", "processed", "time_ms"}


def story(name: str, count: int = 120) -> str:
    return " ".join(f"{name} counted {number} stars." for number in range(count))


def chunks(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def post(url: str, path: str, **body: Any) -> Any:
    body = {"max_tokens": 4, "temperature": 0, "stream": True, "return_progress": True, **body}
    return httpx.post(url + path, json=body, timeout=60)


def fields(path: str, text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]} if path.endswith("chat/completions") else {"prompt": text}


def text_of(chunk: Any) -> str:
    if "choices" not in chunk:
        return str(chunk["content"])
    return "".join(str(c.get("text", c.get("delta", {}).get("content")) or "") for c in chunk["choices"])


def checked(found: list[Any]) -> list[Any]:
    """The reports of the chunks of one answer, which come before its text and in order."""
    told = ["prompt_progress" in chunk for chunk in found]
    first_text = next((place for place, chunk in enumerate(found) if text_of(chunk)), len(found))
    assert not any(told[first_text:])
    reports = [chunk["prompt_progress"] for chunk in found if "prompt_progress" in chunk]
    assert reports[0]["processed"] == reports[0]["cache"]
    assert reports[-1]["processed"] == reports[-1]["total"]
    assert len({(report["total"], report["cache"]) for report in reports}) == 1
    for before, after in pairwise(reports):
        assert before["processed"] <= after["processed"]
        assert before["time_ms"] <= after["time_ms"]
    assert all(type(report[key]) is int for report in reports for key in KEYS)
    return reports


PATHS = ["/v1/chat/completions", "/v1/completions", "/completion"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llamacpu.serve(DEMO, context=4096) as address:
        yield address


@pytest.mark.parametrize("path", PATHS)
def test_a_prompt_is_told_in_parts_up_to_its_end(url: str, path: str) -> None:
    text = story(f"The owl of {path}")
    found = chunks(post(url, path, **fields(path, text)).text)
    reports = checked(found)
    assert len(reports) > 2
    assert all(set(report) == KEYS for report in reports)
    total = reports[0]["total"]
    assert total > 600
    plain = chunks(post(url, path, return_progress=None, **fields(path, text)).text)
    assert not any("prompt_progress" in chunk for chunk in plain)
    assert "".join(map(text_of, found)) == "".join(map(text_of, plain))
    # Everything but the last token is known the second time.
    again = checked(chunks(post(url, path, **fields(path, text)).text))
    assert total > again[0]["cache"] > total // 2
    if path == "/completion":
        assert found[-1]["tokens_evaluated"] == total
        silent = next(chunk for chunk in found if "prompt_progress" in chunk)
        assert (silent["content"], silent["tokens"], silent["stop"]) == ("", [], False)
        assert silent["tokens_predicted"] == 0


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_told_unless_asked_for_and_streamed(url: str, path: str) -> None:
    for wanted in ({"return_progress": False}, {"return_progress": None}, {"stream": False}):
        assert "prompt_progress" not in post(url, path, **fields(path, story("Ada")), **wanted).text


@pytest.mark.parametrize("path", [*PATHS, "/infill"])
@pytest.mark.parametrize("value", ["yes", 1, [True], {}])
def test_anything_but_true_and_false_is_refused(url: str, path: str, value: Any) -> None:
    given = {} if path == "/infill" else fields(path, "Hello")
    answer = post(url, path, return_progress=value, **given)
    assert answer.status_code == 400
    assert "return_progress" in answer.json()["error"]["message"]


def test_every_choice_tells_its_own_progress(url: str) -> None:
    prompts = [story("Bo", 60), story("Cy", 90)]
    found = chunks(post(url, "/v1/completions", prompt=prompts, n=2).text)
    for index in range(4):
        own = [chunk for chunk in found if any(choice["index"] == index for choice in chunk["choices"])]
        checked(own)
    assert len({chunk["prompt_progress"]["total"] for chunk in found if "prompt_progress" in chunk}) == 2


def test_requests_that_share_steps_tell_each_their_own(url: str) -> None:
    def ask(name: str) -> tuple[int, str]:
        found = chunks(post(url, "/v1/chat/completions", **fields("chat/completions", story(name))).text)
        return checked(found)[-1]["total"], "".join(map(text_of, found))

    names = ["Ann", "Bartholomew", "Cleopatra", "Di", "Emmeline", "Fitzgerald the Third"]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, names))
    assert together == [ask(name) for name in names]


def test_the_schema_of_the_field_is_in_the_openapi_document(url: str) -> None:
    schemas = httpx.get(f"{url}/openapi.json").json()["components"]["schemas"]
    for name in ("ChatRequest", "CompletionRequest", "Completion", "Infill"):
        assert "prompt_progress" in schemas[name]["properties"]["return_progress"]["description"]


def test_a_prompt_that_is_cancelled_in_the_middle_tells_no_end() -> None:
    told, go = threading.Event(), threading.Event()

    def pause(done: int, total: int) -> None:
        if 0 < done < total:
            told.set()
            go.wait(60)

    async def cancelled(engine: Engine) -> list[PromptReport]:
        request = engine.submit(story("Eve"), max_tokens=4, reports=True, on_prompt=pause)
        reports: list[PromptReport] = []
        while (found := await request.next_async()) is not None:
            assert isinstance(found, PromptReport)
            reports.append(found)
            if found.processed:
                assert await asyncio.to_thread(told.wait, 60)
                request.cancel()
                go.set()
        assert request.result.ended_by == "cancelled"
        return reports

    with Engine(DEMO, context=2048) as engine:
        reports = asyncio.run(cancelled(engine))
        assert reports[0].processed == 0
        assert 0 < reports[-1].processed < reports[-1].total
        # Those who iterate over events alone meet no report, and the engine goes on.
        settings: dict[str, Any] = {"max_tokens": 4, "sampling": Sampling(temperature=0)}
        request = engine.submit(story("Eve"), reports=True, **settings)
        assert "".join(request.text()) == engine.submit(story("Eve"), **settings).read().content
