"""Bodies from anybody: whatever they hold, the answer is an error object and the server lives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from thorough import examples

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
bodies = pytest.importorskip("llamacpu.server.bodies")
CLIENT = httpx.Client(timeout=60)
parsed, ApiError = bodies.parsed, bodies.ApiError


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    """Its connections end with the module, and not with the interpreter."""
    yield
    CLIENT.close()


HELLO = [{"role": "user", "content": "hi"}]
VALID: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": 1, "temperature": 0.5, "stop": ["x"], "n": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1, "echo": True, "logprobs": 1},
    "/v1/embeddings": {"input": ["hi"], "dimensions": 4},
    "/v1/responses": {"input": "hi", "max_output_tokens": 1, "instructions": "be brief"},
    "/v1/messages": {"messages": HELLO, "max_tokens": 1, "system": "be brief"},
    "/v1/messages/count_tokens": {"messages": HELLO},
    "/api/generate": {"prompt": "hi", "options": {"num_predict": 1}, "system": "be brief"},
    "/api/chat": {"messages": HELLO, "options": {"num_predict": 1}},
    "/api/embed": {"input": "hi"},
    "/api/embeddings": {"prompt": "hi"},
    "/api/show": {"model": "demo"},
    "/api/pull": {"model": "demo"},
    "/completion": {"prompt": "hi", "n_predict": 1, "n_probs": 1},
    "/infill": {"input_prefix": "a", "input_suffix": "b", "n_predict": 1},
    "/tokenize": {"content": "hi"},
    "/detokenize": {"tokens": [300]},
    "/apply-template": {"messages": HELLO},
    "/embedding": {"content": "hi"},
    "/rerank": {"query": "hi", "documents": ["ho"]},
}
FIELDS = [
    "model", "messages", "prompt", "input", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k",
    "min_p", "n", "stop", "seed", "stream", "stream_options", "logprobs", "top_logprobs", "logit_bias", "tools",
    "tool_choice", "response_format", "json_schema", "grammar", "samplers", "mirostat", "dry_sequence_breakers", "echo",
    "suffix", "best_of", "dimensions", "encoding_format", "functions", "function_call", "chat_template_kwargs",
    "reasoning_effort", "repeat_last_n", "dynatemp_range", "ignore_eos", "frequency_penalty", "parallel_tool_calls",
    "system", "options", "format", "think", "keep_alive", "template", "context", "raw", "images", "truncate",
    "stop_sequences", "thinking", "output_config", "instructions", "text", "reasoning", "max_output_tokens", "content",
    "n_predict", "n_probs", "tokens", "t_max_predict_ms", "response_fields", "input_extra", "previous_response_id",
]  # fmt: skip
KEYS = ["type", "role", "content", "name", "function", "schema", "1"]
WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.just(10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(VALID)), st.dictionaries(st.sampled_from(FIELDS), WILD, min_size=1, max_size=3))
@example("/v1/chat/completions", {"seed": -(2**63)})
@example("/v1/chat/completions", {"chat_template_kwargs": {"messages": 1, "tools": 2, "add_generation_prompt": False}})
@example("/v1/completions", {"prompt": [[]]})
@example("/v1/completions", {"prompt": [10**400]})
@example("/api/generate", {"keep_alive": 1e300})
@example("/api/generate", {"template": "{{ range .Messages }}{{ end }}"})
@example("/api/generate", {"template": "{% for a in range(10**9) %}{{ a }}{% endfor %}"})
@example("/api/generate", {"context": [-1]})
@example("/completion", {"prompt": [[1, "a"], "b"]})
@example("/completion", {"logit_bias": [[1]]})
def test_wild_values(demo_url: str, path: str, fields: dict[str, Any]) -> None:
    response = CLIENT.post(demo_url + path, json={**VALID[path], "stream": False, **fields}, timeout=60)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        assert error if path.startswith("/api/") else error["message"]


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(VALID)), st.binary(max_size=60), st.integers(0, 200))
def test_damaged_bytes(demo_url: str, path: str, noise: bytes, place: int) -> None:
    whole = json.dumps(VALID[path]).encode()
    place %= len(whole)
    response = CLIENT.post(demo_url + path, content=whole[:place] + noise + whole[place + len(noise) :], timeout=60)
    assert response.status_code in (200, 400, 404), response.text


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "messages"),
        (b"[]", "object"),
        (b"null", "object"),
        (b"{", "JSON"),
        (b'{"messages": NaN}', "NaN"),
        (b'{"temperature": 1e999}', "too large"),
        (b'{"temperature": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "twice"),
        (b'{"a": "\xff"}', "UTF-8"),
        (rb'{"a": "\ud800"}', "half"),
        (rb'{"\udfff": 1}', "half"),
        (b"[" * 100_000, "deep"),
        (b'{"a":' * 100_000, "deep"),
        (b'{"messages": ' + b"[" * 1000 + b"]" * 1000 + b"}", "deep"),
        (b'{"a": "' + b"\\" * 99_999, "JSON"),
        (b'{"a": ' + b'"[' * 60_000, "deep"),
    ],
)
def test_what_is_no_object_of_json(demo_url: str, body: bytes, word: str) -> None:
    response = CLIENT.post(f"{demo_url}/v1/chat/completions", content=body)
    assert response.status_code == 400
    assert word in response.json()["error"]["message"]


def test_brackets_in_texts_are_no_depth() -> None:
    text = '[{"\\' * 1000 + '"'
    assert parsed(json.dumps({"a": text}).encode()) == {"a": text}


def or_error(data: bytes) -> Any:
    """The object, or the error that a body ends in."""
    try:
        return parsed(data)
    except ApiError as error:
        return error


@given(st.dictionaries(st.text(), WILD))
def test_json_is_taken_as_it_is(value: dict[str, Any]) -> None:
    found = or_error(json.dumps(value).encode())
    assert found == value or "digits" in found.message or "deep" in found.message


@given(st.binary())
def test_bytes_are_an_object_or_an_error(data: bytes) -> None:
    found = or_error(data)
    assert isinstance(found, dict) or found.status == 400
