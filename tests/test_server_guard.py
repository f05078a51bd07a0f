"""A guard in front of a server: what it refuses does not pass, and every API says so in its own words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.tasks.moderation import Moderation, moderate

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GOOD = [{"role": "user", "content": "What can you do?"}]
# The demo model answers it with a text about llamacpu, which the judge below refuses.
BAD = [{"role": "user", "content": "Tell me about bombs."}]
WORDS = "S9: Indiscriminate Weapons"


def judge(_session: Any, messages: Sequence[Mapping[str, Any]], **_: Any) -> Moderation:
    """Refuses what names bombs, and answers that name poems."""
    last = messages[-1]
    unsafe = "bomb" in last["content"] or (last["role"] == "assistant" and "poem" in last["content"])
    return Moderation(unsafe, float(unsafe), ("S9",) if unsafe else (), "")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    patch = pytest.MonkeyPatch()
    patch.setattr("llamacpu.server.guard.moderate", judge)
    with llamacpu.serve(DEMO, guard=DEMO, ping_seconds=5) as found:
        yield found
    patch.undo()


def post(url: str, path: str, **body: Any) -> Any:
    response = httpx.post(url + path, json={"temperature": 0, **body}, timeout=60)
    assert response.status_code == 200, response.text
    return response


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


# A limit of tokens at which the answer to GOOD is safe, and one at which it names a poem.
SAFE, UNSAFE = 8, 24
CASES = [(GOOD, SAFE, False), (BAD, SAFE, True), (GOOD, UNSAFE, True)]


@pytest.mark.parametrize(("messages", "limit", "refused"), CASES)
def test_openai(url: str, messages: Any, limit: int, refused: bool) -> None:
    body = {"messages": messages, "max_tokens": limit}
    choice = post(url, "/v1/chat/completions", **body).json()["choices"][0]
    chunks = events(post(url, "/v1/chat/completions", stream=True, **body).text)
    told = "".join(chunk["choices"][0]["delta"].get("refusal") or "" for chunk in chunks)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    reason = chunks[-1]["choices"][0]["finish_reason"]
    if refused:
        assert choice["message"]["content"] is None
        assert WORDS in choice["message"]["refusal"]
        assert choice["finish_reason"] == reason == "content_filter"
        assert told == choice["message"]["refusal"]
        assert text == ""
    else:
        assert choice["message"]["refusal"] is None
        assert text == choice["message"]["content"] != ""
        assert reason == "length"
    prompt = messages[0]["content"] if refused and messages is BAD else "Hello"
    found = post(url, "/v1/completions", prompt=prompt, max_tokens=2).json()["choices"][0]
    assert found["finish_reason"] == ("content_filter" if prompt != "Hello" else "length")
    assert (found["text"] == "") is (prompt != "Hello")


@pytest.mark.parametrize(("messages", "limit", "refused"), CASES)
def test_the_other_apis(url: str, messages: Any, limit: int, refused: bool) -> None:
    message = post(url, "/v1/messages", messages=messages, max_tokens=limit).json()
    assert (message["stop_reason"] == "refusal") is refused
    assert (WORDS in message["content"][0]["text"]) is refused
    streamed = events(post(url, "/v1/messages", messages=messages, max_tokens=limit, stream=True).text)
    text = "".join(e["delta"]["text"] for e in streamed if e["type"] == "content_block_delta")
    assert text == message["content"][0]["text"]

    response = post(url, "/v1/responses", input=messages, max_output_tokens=limit).json()
    part = response["output"][0]["content"][0]
    assert part["type"] == ("refusal" if refused else "output_text")
    done = events(post(url, "/v1/responses", input=messages, max_output_tokens=limit, stream=True).text)[-1]
    assert done["response"]["output"][0]["content"] == response["output"][0]["content"]

    options = {"num_predict": limit, "temperature": 0}
    for stream in (False, True):
        text = post(url, "/api/chat", messages=messages, options=options, stream=stream).text
        last = json.loads(text.splitlines()[-1])
        assert (last["done_reason"] == "content_filter") is refused
        assert (WORDS in text) is refused
        words = messages[0]["content"]
        text = post(url, "/api/generate", prompt=words, options=options, stream=stream).text
        assert (WORDS in text) is refused

    if limit == SAFE:
        prompt = "Once upon" + (" a bomb" if refused else "")
        found = post(url, "/completion", prompt=prompt, n_predict=2).json()
        assert ("refusal" in found) is refused
        assert (found["content"] == "") is refused


def test_tools_and_earlier_turns_are_judged_as_the_users(url: str) -> None:
    hidden = [*GOOD, {"role": "assistant", "content": "Yes?"}, {"role": "tool", "content": "how to make bombs"}]
    choice = post(url, "/v1/chat/completions", messages=hidden, max_tokens=2).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    parts = [{"role": "user", "content": [{"type": "text", "text": "bo"}, {"type": "text", "text": "mbs"}]}]
    choice = post(url, "/v1/chat/completions", messages=parts, max_tokens=2).json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"


def test_what_a_guard_cannot_judge_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.server.guard.moderate", moderate)
    with llamacpu.serve(DEMO, guard=DEMO) as url:
        body = {"messages": GOOD, "max_tokens": 2}
        response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)
        assert response.status_code == 500
        assert "Llama Guard" in response.json()["error"]["message"]
    with pytest.raises(FileNotFoundError):
        llamacpu.serve(DEMO, guard="no/such.gguf")
