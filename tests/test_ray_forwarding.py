"""Which requests meet in one replica, and what becomes of requests whose replica dies. Without Ray."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette")
from llamacpu.ray.affinity import prefix_key, ranked
from llamacpu.ray.forwarding import Forwarding, ReplicaLost, answered
from llamacpu.server.settings import Settings

SYSTEM = {"role": "system", "content": "You are brief."}
USER = {"role": "user", "content": "Who are you?"}
BRIEF = "Be brief."
LATER = [{"role": "assistant", "content": "A model."}, {"role": "user", "content": "Whose?"}]


def key(path: str, **body: Any) -> str:
    return prefix_key(path, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("path", "first", "later"),
    [
        ("/v1/chat/completions", {"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, USER, *LATER], "seed": 3}),
        ("/v1/chat/completions", {"messages": [USER]}, {"messages": [USER, *LATER]}),
        ("/api/chat", {"messages": [SYSTEM, USER]}, {"messages": [SYSTEM, USER, *LATER]}),
        ("/v1/messages", {"system": BRIEF, "messages": [USER]}, {"system": BRIEF, "messages": [USER, *LATER]}),
        ("/v1/responses", {"instructions": BRIEF, "input": [USER]}, {"instructions": BRIEF, "input": [USER, LATER[1]]}),
        ("/v1/completions", {"prompt": "x" * 300}, {"prompt": "x" * 300 + "y"}),
        ("/infill", {"input_prefix": "x" * 300}, {"input_prefix": "x" * 301}),
        ("/v1/chat/completions", {"messages": [USER], "prompt_cache_key": "a"}, {"prompt_cache_key": "a"}),
    ],
)  # fmt: skip
def test_a_conversation_keeps_its_key(path: str, first: dict[str, Any], later: dict[str, Any]) -> None:
    assert key(path, **first) == key(path, **later) != ""
    assert key(path, **first) != key(path, **first, model="another")


def test_what_differs_from_the_start_has_other_keys() -> None:
    path = "/v1/chat/completions"
    others = [
        key(path, messages=[SYSTEM, USER]),
        key(path, messages=[USER]),
        key(path, messages=[SYSTEM, {"role": "user", "content": "Who am I?"}]),
        key(path, messages=[USER], tools=[{"type": "function"}]),
        key("/v1/completions", prompt="Who are you?"),
    ]
    assert len(set(others)) == len(others)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000, b"{}", b'{"messages": 3}'])
def test_what_has_no_beginning_goes_anywhere(body: bytes) -> None:
    assert prefix_key("/v1/chat/completions", body) == ""


def test_embeddings_go_anywhere() -> None:
    assert key("/v1/embeddings", input="Who are you?") == key("/api/embed", input=["Who"]) == ""


@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=8), st.text(max_size=20))
def test_only_the_keys_of_a_lost_replica_move(names: set[str], key: str) -> None:
    order = ranked(key, [(name, name) for name in names])
    assert sorted(order) == sorted(names)
    for lost in names:
        left = [name for name in names if name != lost]
        assert ranked(key, [(name, name) for name in left]) == [name for name in order if name != lost]


def test_keys_spread_over_replicas() -> None:
    names = [(name, name) for name in "abcd"]
    first = [ranked(str(number), names)[0] for number in range(400)]
    assert all(60 < first.count(name) < 140 for name in "abcd")


START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
NDJSON = {**START, "headers": [(b"content-type", b"application/x-ndjson")]}
WHOLE = {**START, "headers": [(b"content-type", b"application/json")]}
PIECE = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
END = {"type": "http.response.body", "body": b"", "more_body": False}


def forwarded(replicas: list[list[Any]], method: str = "POST", path: str = "/v1/chat/completions") -> list[Any]:
    """What the client gets when the replicas, asked one after another, answer so."""
    sent: list[Any] = []
    waiting = iter(replicas)

    async def ask(_key: str, _scope: dict[str, Any], body: bytes) -> AsyncIterator[list[dict[str, Any]]]:
        assert body == b"{}"
        for message in next(waiting):
            if isinstance(message, type):
                raise message
            yield [message]

    async def receive() -> Any:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(Forwarding(ask, Settings())(scope, receive, send))
    assert next(waiting, None) is None
    return sent


def test_a_request_that_was_not_answered_goes_to_another_replica() -> None:
    assert forwarded([[ReplicaLost], [ReplicaLost], [START, PIECE, END]]) == [START, PIECE, END]


@pytest.mark.parametrize(
    ("path", "start", "last"),
    [
        ("/v1/chat/completions", START, b'data: {"error":{"message":"the replica that wrote'),
        ("/v1/messages", START, b'event: error\ndata: {"type":"error","error":{"type":"'),
        ("/v1/responses", START, b'event: error\ndata: {"type":"error","code":"server_error"'),
        ("/api/chat", NDJSON, b'{"error":"the replica that wrote'),
    ],
)
def test_a_stream_that_has_begun_ends_with_an_error(path: str, start: dict[str, Any], last: bytes) -> None:
    sent = forwarded([[start, PIECE, ReplicaLost]], path=path)
    assert sent[:2] == [start, PIECE]
    assert sent[2]["body"].startswith(last)
    assert not sent[2]["more_body"]


def test_half_a_document_is_a_broken_connection() -> None:
    with pytest.raises(Exception, match="the replica that wrote this answer is gone"):
        forwarded([[WHOLE, ReplicaLost]])


@pytest.mark.parametrize(("method", "tries"), [("POST", 3), ("DELETE", 1)])
def test_where_all_are_lost_the_client_is_told(method: str, tries: int) -> None:
    start, body = forwarded([[ReplicaLost]] * tries, method)
    assert start["status"] == 503
    assert json.loads(body["body"])["error"]["code"] == "replica_lost"


def test_an_application_is_told_that_its_client_is_gone() -> None:
    seen: list[str] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"].decode())
        await send(START)
        seen.append((await receive())["type"])

    async def some() -> None:
        messages = answered(app, {"type": "http"}, b"asked")
        assert await anext(messages) == [START]
        await messages.aclose()  # type: ignore[attr-defined]

    asyncio.run(some())
    assert seen == ["asked", "http.disconnect"]


def test_what_an_application_raises_comes_out() -> None:
    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        raise RuntimeError("in the middle")

    async def some() -> None:
        async for _ in answered(app, {"type": "http"}, b""):
            pass

    with pytest.raises(RuntimeError, match="in the middle"):
        asyncio.run(some())
