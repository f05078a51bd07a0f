"""The Anthropic API, the Responses API and llama-server's own endpoints, over HTTP with the demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llamacpu

httpx = pytest.importorskip("httpx")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HELLO = [{"role": "user", "content": "What can you do?"}]
SCHEMA = {"type": "object", "properties": {"place": {"enum": ["Rome"]}}, "required": ["place"]}


def post(url: str, path: str, **body: Any) -> Any:
    return httpx.post(url + path, json={"model": "demo", "temperature": 0, **body}, timeout=60)


def events(text: str) -> list[Any]:
    """The documents of server-sent events, each of which is named as its event is."""
    found = []
    for block in text.strip().split("\n\n"):
        name, _, data = block.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


@pytest.fixture(scope="module")
def alone() -> str:
    llm = llamacpu.Llama(str(DEMO), n_ctx=1024)
    return str(llm.create_chat_completion(HELLO, max_tokens=12, temperature=0)["choices"][0]["message"]["content"])


# --- Anthropic ---


def test_messages(demo_url: str, alone: str) -> None:
    whole = post(demo_url, "/v1/messages", messages=HELLO, max_tokens=12).json()
    assert whole["content"] == [{"type": "text", "text": alone}]
    assert whole["stop_reason"] == "max_tokens"
    assert whole["usage"]["output_tokens"] == 12
    found = events(post(demo_url, "/v1/messages", messages=HELLO, max_tokens=12, stream=True).text)
    kinds = [event["type"] for event in found if event["type"] not in ("ping", "content_block_delta")]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    text = "".join(event["delta"]["text"] for event in found if event["type"] == "content_block_delta")
    assert text == alone
    counted = post(demo_url, "/v1/messages/count_tokens", messages=HELLO).json()
    assert counted == {"input_tokens": found[0]["message"]["usage"]["input_tokens"]}
    usage = whole["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == counted["input_tokens"]


def test_messages_with_stop_sequences_and_system(demo_url: str, alone: str) -> None:
    stopped = post(demo_url, "/v1/messages", messages=HELLO, max_tokens=12, stop_sequences=[" answer"]).json()
    assert stopped["content"][0]["text"] == alone.partition(" answer")[0]
    assert stopped["stop_reason"] == "stop_sequence"
    assert stopped["stop_sequence"] == " answer"
    system = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    counted = post(demo_url, "/v1/messages/count_tokens", messages=HELLO, system=system).json()["input_tokens"]
    assert counted > post(demo_url, "/v1/messages/count_tokens", messages=HELLO).json()["input_tokens"]


@pytest.mark.parametrize("stream", [False, True])
def test_messages_with_tools(demo_url: str, stream: bool) -> None:
    pytest.importorskip("llguidance")
    tools = [{"name": "weather", "description": "x", "input_schema": SCHEMA}]
    response = post(
        demo_url, "/v1/messages", messages=HELLO, max_tokens=60, tools=tools, tool_choice={"type": "any"}, stream=stream
    )
    if not stream:
        block = response.json()["content"][0]
        assert (block["type"], block["name"], block["input"]) == ("tool_use", "weather", {"place": "Rome"})
        assert response.json()["stop_reason"] == "tool_use"
        return
    found = events(response.text)
    assert next(e for e in found if e["type"] == "content_block_start")["content_block"]["name"] == "weather"
    parts = [e["delta"]["partial_json"] for e in found if e["type"] == "content_block_delta"]
    assert json.loads("".join(parts)) == {"place": "Rome"}


def test_results_of_tools_are_messages() -> None:
    from llamacpu.server.anthropic.requests import CountBody

    called = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"place": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "sun"}]}
    messages = [
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, called]},
        {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
    ]
    body = CountBody.model_validate({"messages": messages, "system": "S"})
    found = body.conversation()
    assert [message["role"] for message in found] == ["system", "assistant", "tool", "user"]
    assert json.loads(found[1]["tool_calls"][0]["function"]["arguments"]) == {"place": "Rome"}
    assert found[2] == {"role": "tool", "tool_call_id": "t1", "content": "sun"}


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "messages": [{"role": "user", "content": [{"type": "image"}]}]}, "image"),
        ({"max_tokens": 1, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"max_tokens": 1, "tool_choice": {"type": "any"}}, "tool_choice"),
    ],
)
def test_wrong_messages_get_errors_in_that_shape(demo_url: str, fields: dict[str, Any], word: str) -> None:
    response = post(demo_url, "/v1/messages", **{"messages": HELLO, **fields})
    assert response.status_code == 400
    document = response.json()
    assert document["type"] == "error"
    assert document["error"]["type"] == "invalid_request_error"
    assert word in document["error"]["message"]
    unknown = post(demo_url, "/v1/messages", messages=HELLO, max_tokens=1, model="none")
    assert unknown.json()["error"]["type"] == "not_found_error"
    refused = httpx.post(f"{demo_url}/v1/messages", json={}, headers={"Origin": "https://evil.example"})
    assert refused.json()["error"]["type"] == "permission_error"


# --- Responses ---


def test_responses(demo_url: str, alone: str) -> None:
    whole = post(demo_url, "/v1/responses", input="What can you do?", max_output_tokens=12).json()
    assert whole["output"][0]["content"][0]["text"] == alone
    assert whole["status"] == "incomplete"
    assert whole["incomplete_details"] == {"reason": "max_output_tokens"}
    found = events(post(demo_url, "/v1/responses", input=HELLO, max_output_tokens=12, stream=True).text)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    assert text == alone
    assert found[-1]["type"] == "response.incomplete"
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == alone


def test_responses_with_tools_and_forms(demo_url: str) -> None:
    pytest.importorskip("llguidance")
    tools = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}]
    for choice in ("required", {"type": "function", "name": "weather"}):
        fields = {"tools": tools, "tool_choice": choice, "max_output_tokens": 60}
        item = post(demo_url, "/v1/responses", input="Weather?", **fields).json()["output"][0]
        assert item["type"] == "function_call"
        assert json.loads(item["arguments"]) == {"place": "Rome"}
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": False}}
    answer = post(demo_url, "/v1/responses", input="JSON", text=form, max_output_tokens=60).json()
    assert json.loads(answer["output"][0]["content"][0]["text"])["place"] == "Rome"
    for wrong, field in (
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
    ):
        response = post(demo_url, "/v1/responses", **{"input": "x", **wrong})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == field


# --- llama-server ---


def test_completion(demo_url: str) -> None:
    with llamacpu.Model(DEMO) as model:
        expected = model.generate("Once upon", max_tokens=6, sampling=llamacpu.Sampling(temperature=0)).read()
    whole = post(demo_url, "/completion", prompt="Once upon", n_predict=6, return_tokens=True, n_probs=2).json()
    assert whole["content"] == expected.text
    assert whole["tokens"] == list(expected.tokens)
    assert whole["stop_type"] == "limit"
    assert whole["timings"]["predicted_n"] == 6
    assert len(whole["completion_probabilities"]) == 6
    text = post(demo_url, "/completion", prompt="Once upon", n_predict=6, stream=True).text
    streamed = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]
    assert "".join(piece["content"] for piece in streamed) == expected.text
    assert [piece["stop"] for piece in streamed] == [False] * (len(streamed) - 1) + [True]
    several = post(demo_url, "/completion", prompt=["Once upon", "Hello"], n_predict=6).json()
    assert [row["index"] for row in several] == [0, 1]
    assert several[0]["content"] == expected.text
    mixed = model.tokenizer.encode("Once", add_special=True)
    assert post(demo_url, "/completion", prompt=[*mixed, " upon"], n_predict=6).json()["content"] == expected.text
    chosen = post(demo_url, "/completion", prompt="x", n_predict=1, response_fields=["content", "timings/predicted_n"])
    assert sorted(chosen.json()) == ["content", "predicted_n"]
    banned = post(demo_url, "/completion", prompt="Once upon", n_predict=6, logit_bias=[[expected.tokens[0], False]])
    assert banned.json()["content"] != expected.text


def test_tokens_and_templates(demo_url: str) -> None:
    ids = post(demo_url, "/tokenize", content="Hello wörld").json()["tokens"]
    assert post(demo_url, "/detokenize", tokens=ids).json()["content"].strip() == "Hello wörld"
    pieces = post(demo_url, "/tokenize", content="Hello wörld", with_pieces=True).json()["tokens"]
    assert [piece["id"] for piece in pieces] == ids
    prompt = post(demo_url, "/apply-template", messages=HELLO).json()["prompt"]
    assert "What can you do?" in prompt
    assert post(demo_url, "/detokenize", tokens=[10**9]).status_code == 400


def test_properties_tell_no_path_and_no_prompt(demo_url: str) -> None:
    post(demo_url, "/completion", prompt="A secret", n_predict=1)
    for path in ("/props", "/slots", "/metrics", "/models"):
        text = httpx.get(demo_url + path).text
        assert "secret" not in text
        assert str(DEMO.parent) not in text
    props = httpx.get(f"{demo_url}/props").json()
    assert props["total_slots"] == 16
    assert props["default_generation_settings"]["n_ctx"] == 1024


def test_metrics_are_those_that_operators_watch(demo_url: str) -> None:
    post(demo_url, "/completion", prompt="Hello", n_predict=4)
    text = httpx.get(f"{demo_url}/metrics").text
    for name in ("time_to_first_token_seconds", "time_between_tokens_seconds", "queue_seconds", "batch_size"):
        assert f'llamacpu_{name}_bucket{{le="+Inf",model="demo"}}' in text
    assert 'llamacpu_prefix_cache_hits_total{model="demo"}' in text
    assert 'llamacpu_http_requests_total{path="/completion",status="200"}' in text


def test_the_access_log_has_no_word_of_a_prompt(demo_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        post(demo_url, "/completion", prompt="A secret", n_predict=1, stop="A secret")
        httpx.get(f"{demo_url}/no/such?path=secret")
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("llamacpu")]
    assert any("POST /completion 200" in line for line in lines)
    assert not any("secret" in line for line in lines)


def test_other_paths_of_the_openai_api(demo_url: str) -> None:
    for path in ("/openai/v1/chat/completions", "/chat/completions"):
        assert post(demo_url, path, messages=HELLO, max_tokens=1).json()["object"] == "chat.completion"
