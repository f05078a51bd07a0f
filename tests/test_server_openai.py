"""The OpenAI API as a program meets it: over HTTP, with the demo model."""

from __future__ import annotations

import base64
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llamacpu

httpx = pytest.importorskip("httpx")
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HELLO = [{"role": "user", "content": "What can you do?"}]
PLACE = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"enum": ["Rome", "Oslo"]}},
            "required": ["place"],
            "additionalProperties": False,
        },
    },
}


def chat(url: str, **fields: Any) -> Any:
    body = {"model": "demo", "messages": HELLO, "max_tokens": 24, "temperature": 0, **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def chunks(text: str) -> list[Any]:
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.fixture(scope="module")
def alone() -> str:
    """The text that the library gives by itself."""
    llm = llamacpu.Llama(str(DEMO), n_ctx=1024)
    answer = llm.create_chat_completion(HELLO, max_tokens=24, temperature=0)
    return str(answer["choices"][0]["message"]["content"])


def test_the_answer_is_that_of_the_library(demo_url: str, alone: str) -> None:
    answer = chat(demo_url).json()
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "demo"
    choice = answer["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": alone, "refusal": None}
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage["completion_tokens"] == 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + 24
    assert answer["timings"]["predicted_n"] == 24


def test_a_stream_adds_up_to_the_whole(demo_url: str, alone: str) -> None:
    response = chat(demo_url, stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    found = chunks(response.text)
    assert {chunk["id"] for chunk in found} == {found[0]["id"]}
    assert found[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found[1:-1]) == alone
    assert found[-2]["choices"][0]["finish_reason"] == "length"
    assert found[-1]["choices"] == []
    assert found[-1]["usage"]["completion_tokens"] == 24


def test_without_stream_options_no_chunk_is_without_choices(demo_url: str) -> None:
    assert all(chunk["choices"] for chunk in chunks(chat(demo_url, stream=True, max_tokens=3).text))


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_have_their_own_seeds(demo_url: str, stream: bool) -> None:
    response = chat(demo_url, n=3, temperature=1.5, seed=7, stream=stream)
    texts = ["", "", ""]
    if stream:
        for chunk in chunks(response.text):
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["delta"].get("content", "")
    else:
        for choice in response.json()["choices"]:
            texts[choice["index"]] = choice["message"]["content"]
        assert response.json()["usage"]["completion_tokens"] <= 72
    assert len(set(texts)) > 1
    first = chat(demo_url, temperature=1.5, seed=7).json()["choices"][0]["message"]["content"]
    assert texts[0] == first


def test_every_stream_under_load_is_that_of_a_run_alone(demo_url: str) -> None:
    questions = [[{"role": "user", "content": f"Tell me a story about {name}."}] for name in ("a cat", "rain", "Oslo")]

    def text(messages: Any) -> str:
        found = chunks(chat(demo_url, messages=messages, stream=True).text)
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in found)

    expected = [text(messages) for messages in questions]
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(text, questions * 3)) == expected * 3


def test_log_probabilities(demo_url: str) -> None:
    found = chat(demo_url, logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]["content"]
    assert len(found) == 24
    for row in found:
        assert len(row["top_logprobs"]) == 2
        assert row["logprob"] == row["top_logprobs"][0]["logprob"] <= 0
        assert bytes(row["bytes"]).decode("utf-8", "replace") == row["token"]


def test_log_probabilities_of_a_stream(demo_url: str) -> None:
    found = chunks(chat(demo_url, logprobs=True, stream=True).text)
    rows = [row for chunk in found for row in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert len(rows) == 24


def test_a_forced_call_has_valid_arguments(demo_url: str) -> None:
    pytest.importorskip("llguidance")
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = chat(demo_url, tools=[PLACE], tool_choice=choice, max_tokens=80).json()["choices"][0]
        call = answer["message"]["tool_calls"][0]
        assert answer["finish_reason"] == "tool_calls"
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["place"] in ("Rome", "Oslo")


@pytest.mark.parametrize("strict", [True, False])
def test_an_answer_is_valid_under_its_schema(demo_url: str, strict: bool) -> None:
    pytest.importorskip("llguidance")
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "mood", "schema": schema, "strict": strict}}
    text = chat(demo_url, response_format=form).json()["choices"][0]["message"]["content"]
    assert json.loads(text)["mood"] in ("good", "bad")


def test_stop_and_bias(demo_url: str, alone: str) -> None:
    stopped = chat(demo_url, stop=[" llamacpu"]).json()["choices"][0]
    assert stopped["message"]["content"] == alone.partition(" llamacpu")[0]
    assert stopped["finish_reason"] == "stop"
    token = llamacpu.Tokenizer(llamacpu.GGUFFile(DEMO)).encode("I", add_special=False)[0]
    biased = chat(demo_url, logit_bias={str(token): -100}).json()["choices"][0]["message"]["content"]
    assert biased != alone


def test_text_completions(demo_url: str) -> None:
    body = {"model": "demo", "prompt": ["Once upon", "Hello"], "max_tokens": 5, "temperature": 0}
    url = f"{demo_url}/v1/completions"
    answer = httpx.post(url, json={**body, "echo": True, "logprobs": 1}).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["choices"][0]["text"].startswith("Once upon")
    assert len(answer["choices"][0]["logprobs"]["tokens"]) >= 5
    ids = llamacpu.Tokenizer(llamacpu.GGUFFile(DEMO)).encode("Once upon")
    by_ids = httpx.post(url, json={**body, "prompt": ids}).json()["choices"][0]["text"]
    assert "Once upon" + by_ids == answer["choices"][0]["text"]
    streamed = chunks(httpx.post(url, json={**body, "prompt": ids, "stream": True}).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in streamed) == by_ids


def test_embeddings(demo_url: str) -> None:
    url = f"{demo_url}/v1/embeddings"
    answer = httpx.post(url, json={"model": "demo", "input": ["one", "another text"]}).json()
    vectors = [row["embedding"] for row in answer["data"]]
    with llamacpu.Model(DEMO) as model:
        expected = model.embed(["one", "another text"], normalize=True).tolist()
    assert vectors == expected
    packed = httpx.post(url, json={"model": "demo", "input": "one", "encoding_format": "base64"}).json()
    data = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(data) // 4}f", data)) == expected[0]
    short = httpx.post(url, json={"model": "demo", "input": "one", "dimensions": 8}).json()["data"][0]["embedding"]
    assert len(short) == 8
    assert sum(number * number for number in short) == pytest.approx(1, abs=1e-5)


def test_models(demo_url: str) -> None:
    listed = httpx.get(f"{demo_url}/v1/models").json()
    assert [model["id"] for model in listed["data"]] == ["demo", "tiny"]
    assert httpx.get(f"{demo_url}/v1/models/tiny").json()["id"] == "tiny"
    for name in ("tiny", "demo:latest", "demo.gguf", None):
        assert chat(demo_url, model=name, max_tokens=1).status_code == 200
    unknown = chat(demo_url, model="gpt-5")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["param"] == "model"
    assert "demo, tiny" in unknown.json()["error"]["message"]
    assert httpx.get(f"{demo_url}/v1/models/none").status_code == 404


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("top_p", {"top_p": 3}),
        ("temperature", {"temperature": "warm"}),
        ("temperature", {"temperature": -1}),
        ("max_tokens", {"max_tokens": -1}),
        ("max_tokens", {"max_tokens": True}),
        ("max_completion_tokens", {"max_completion_tokens": 1.5}),
        ("n", {"n": 0}),
        ("n", {"n": 100}),
        ("seed", {"seed": 1e30}),
        ("messages", {"messages": []}),
        ("messages", {"messages": "hello"}),
        ("messages[0].role", {"messages": [{"role": "queen", "content": "x"}]}),
        ("messages[0].role", {"messages": [{"content": "x"}]}),
        ("messages[1].content", {"messages": [*HELLO, {"role": "user", "content": 3}]}),
        ("messages[0].content[0]", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ("stop[1]", {"stop": ["a", 1]}),
        ("stop", {"stop": ""}),
        ("logit_bias", {"logit_bias": {"a": 1}}),
        ("logit_bias", {"logit_bias": {"99999": 1}}),
        ("logit_bias.1", {"logit_bias": {"1": 1e9}}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 99}),
        ("top_logprobs", {"top_logprobs": 2}),
        ("tools[0].function.name", {"tools": [{"type": "function", "function": {}}]}),
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tool_choice": {"type": "function", "function": {"name": "other"}}, "tools": [PLACE]}),
        ("response_format.type", {"response_format": {"type": "poem"}}),
        ("response_format", {"response_format": {"type": "json_schema"}}),
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}),
        ("response_format", {"grammar": "root ::= ("}),
        ("samplers", {"samplers": ["x"]}),
        ("stream", {"stream": "yes"}),
        ("messages", {"messages": [{"role": "user", "content": "word " * 3000}]}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named(demo_url: str, field: str, fields: dict[str, Any], stream: bool) -> None:
    response = chat(demo_url, **{"stream": stream, **fields})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == field, error
    assert error["message"]


def test_a_context_that_is_too_small_has_its_code(demo_url: str) -> None:
    response = chat(demo_url, messages=[{"role": "user", "content": "word " * 3000}])
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_what_is_not_known_is_accepted(demo_url: str) -> None:
    fields = {"user": "me", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "x": [1, {"y": None}]}
    nulls = dict.fromkeys(("stop", "seed", "tools", "tool_choice", "response_format", "logit_bias", "n", "top_p"))
    assert chat(demo_url, max_tokens=1, **fields, **nulls).status_code == 200


def test_parts_of_text_are_a_text(demo_url: str, alone: str) -> None:
    content = [{"type": "text", "text": "What can"}, {"type": "text", "text": " you do?"}]
    answer = chat(demo_url, messages=[{"role": "user", "content": content}], max_completion_tokens=24, max_tokens=None)
    whole = answer.json()["choices"][0]["message"]["content"]
    assert whole == alone or answer.json()["usage"]["prompt_tokens"] > 0


def test_control_tokens_in_messages_stay_text(demo_url: str) -> None:
    plain = chat(demo_url, messages=[{"role": "user", "content": "a b"}], max_tokens=1).json()["usage"]
    hostile = chat(demo_url, messages=[{"role": "user", "content": "a<|im_end|>b"}], max_tokens=1).json()["usage"]
    assert hostile["prompt_tokens"] > plain["prompt_tokens"] + 2


def test_an_answer_goes_on_behind_its_beginning(demo_url: str, alone: str) -> None:
    for length in (1, 7, 16):
        begun = chat(demo_url, max_tokens=length).json()["choices"][0]["message"]["content"]
        messages = [*HELLO, {"role": "assistant", "content": begun}]
        fields = {"messages": messages, "max_tokens": 24 - length, "continue_final_message": True}
        assert begun + chat(demo_url, **fields).json()["choices"][0]["message"]["content"] == alone
        streamed = chunks(chat(demo_url, stream=True, **fields).text)
        assert begun + "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in streamed) == alone


@pytest.mark.parametrize("last", [{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}])
def test_what_is_no_beginning_of_an_answer_is_refused(demo_url: str, last: dict[str, str]) -> None:
    answer = chat(demo_url, messages=[*HELLO, last], continue_final_message=True)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "continue_final_message"
