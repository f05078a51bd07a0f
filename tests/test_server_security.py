"""A server is closed: to other hosts' names, to web pages of other origins, without its key, past its limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
KEY = "a key with ümlaut"


def models(url: str, **headers: str) -> Any:
    return httpx.get(f"{url}/v1/models", headers=headers)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "1.2.3"]
)
def test_a_name_of_another_host_is_refused(demo_url: str, host: str) -> None:
    response = models(demo_url, Host=host)
    assert response.status_code in (400, 403)
    assert "error" in response.json() if response.status_code == 403 else True


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:8080", "me.localhost", "10.0.0.7"])
def test_names_of_this_machine_are_taken(demo_url: str, host: str) -> None:
    assert models(demo_url, Host=host).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", ""])
def test_pages_of_other_origins_are_refused(demo_url: str, origin: str) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
    for response in (
        models(demo_url, Origin=origin),
        httpx.options(f"{demo_url}/v1/models", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}),
        # What a page can send without asking first.
        httpx.post(f"{demo_url}/v1/chat/completions", content=json.dumps(body), headers={"Origin": origin}),
    ):
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


def test_its_own_page_and_a_configured_origin_may(demo_url: str) -> None:
    assert models(demo_url, Origin=demo_url).status_code == 200
    friend = models(demo_url, Origin="https://friend.example")
    assert friend.status_code == 200
    assert friend.headers["access-control-allow-origin"] == "https://friend.example"
    asked = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{demo_url}/v1/chat/completions", headers=asked).status_code == 204


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with llamacpu.serve(
        DEMO, api_keys=(KEY, "second"), body_bytes=10_000, schema_bytes=500, hosts=("me.example",)
    ) as url:
        yield url


def test_a_key_is_wanted(locked: str) -> None:
    for headers in ({}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {KEY}"}, {"x-api-key": "secon"}):
        response = httpx.get(f"{locked}/v1/models", headers={k: v.encode() for k, v in headers.items()})
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"x-api-key": "second"}, {"authorization": "bearer second"}):
        response = httpx.get(f"{locked}/v1/models", headers={k: v.encode() for k, v in headers.items()})
        assert response.status_code == 200
    assert httpx.get(f"{locked}/metrics").status_code == 401
    assert httpx.get(f"{locked}/health").status_code == 200
    assert models(locked, Host="me.example", Authorization="Bearer second").status_code == 200


def test_limits(locked: str) -> None:
    headers = {"Authorization": "Bearer second"}
    url = f"{locked}/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "x" * 20_000}], "max_tokens": 1}
    assert httpx.post(url, json=body, headers=headers).status_code == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 1000

    assert httpx.post(url, content=pieces(), headers=headers).status_code == 413
    schema = {"enum": ["x" * 600]}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = {"messages": [{"role": "user", "content": "x"}], "response_format": form}
    response = httpx.post(url, json=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format"
    compressed = httpx.post(url, content=b"x", headers={**headers, "content-encoding": "gzip"})
    assert compressed.status_code == 415


def test_a_large_head_is_refused(demo_url: str) -> None:
    assert models(demo_url, **{"x-long": "y" * 100_000}).status_code >= 400
    assert models(demo_url).status_code == 200


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/page/../x.py"])
def test_no_path_leads_to_a_file(demo_url: str, path: str) -> None:
    assert httpx.get(demo_url + path).status_code == 404
    assert httpx.get(f"{demo_url}/v1/models{path}").status_code == 404


def test_an_address_that_others_reach_wants_a_key() -> None:
    with pytest.raises(ValueError, match="api_keys"):
        llamacpu.serve(DEMO, host="0.0.0.0")


@given(st.text(), st.sampled_from(["host", "origin"]))
def test_hosts_and_origins_are_checked_whatever_they_are(text: str, field: str) -> None:
    """Nothing but an address, localhost and what was configured passes, and nothing raises anything but the refusal."""
    from llamacpu.server.errors import ApiError
    from llamacpu.server.security import Security
    from llamacpu.server.settings import Settings

    async def nothing(*_: Any) -> None:
        raise AssertionError

    security = Security(nothing, Settings())
    refused = None
    try:
        if field == "host":
            security._check_host(text)
        else:
            security._check_origin(text, "localhost:8080")
    except ApiError as error:
        refused = error
    if refused is not None:
        assert refused.status == 403
    else:
        assert field == "host"
        assert not any(letter in text for letter in "/@? ")
