"""Ollama's API as a program meets it: over HTTP, with the demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import llamacpu

httpx = pytest.importorskip("httpx")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HELLO = [{"role": "user", "content": "What can you do?"}]
GREEDY = {"temperature": 0, "num_predict": 12}


def post(url: str, path: str, **body: Any) -> Any:
    return httpx.post(url + path, json={"model": "demo", **body}, timeout=60)


def lines(response: Any) -> list[Any]:
    assert response.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.fixture(scope="module")
def alone() -> str:
    llm = llamacpu.Llama(str(DEMO), n_ctx=1024)
    return str(llm.create_chat_completion(HELLO, max_tokens=12, temperature=0)["choices"][0]["message"]["content"])


def test_chat(demo_url: str, alone: str) -> None:
    whole = post(demo_url, "/api/chat", messages=HELLO, options=GREEDY, stream=False).json()
    assert whole["message"] == {"role": "assistant", "content": alone}
    assert whole["done"] is True
    assert whole["done_reason"] == "length"
    assert whole["eval_count"] == 12
    assert whole["total_duration"] >= whole["eval_duration"] > 0
    streamed = lines(post(demo_url, "/api/chat", messages=HELLO, options=GREEDY))
    assert "".join(line["message"]["content"] for line in streamed) == alone
    assert [line["done"] for line in streamed] == [False] * (len(streamed) - 1) + [True]
    assert streamed[-1]["prompt_eval_count"] == whole["prompt_eval_count"]


def test_generate(demo_url: str, alone: str) -> None:
    whole = post(demo_url, "/api/generate", prompt="What can you do?", options=GREEDY, stream=False).json()
    assert whole["response"] == alone
    assert len(whole["context"]) == whole["prompt_eval_count"] + 12
    streamed = lines(post(demo_url, "/api/generate", prompt="What can you do?", options=GREEDY))
    assert "".join(line["response"] for line in streamed) == alone
    more = post(demo_url, "/api/generate", prompt="Again.", context=whole["context"], options=GREEDY, stream=False)
    assert more.json()["prompt_eval_count"] > len(whole["context"])


def test_raw_and_templates(demo_url: str) -> None:
    def text(**fields: Any) -> tuple[str, int]:
        answer = post(demo_url, "/api/generate", options=GREEDY, stream=False, **fields).json()
        return answer["response"], answer["prompt_eval_count"]

    with llamacpu.Model(DEMO) as model:
        expected = model.generate("Q: why? A:", max_tokens=12, sampling=llamacpu.Sampling(temperature=0)).read().text
    assert text(prompt="Q: why? A:", raw=True)[0] == expected
    go = "{{ if .System }}S: {{ .System }} {{ end }}Q: {{ .Prompt }} A:{{ .Response }}<end>"
    assert text(prompt="why?", template=go)[0] == expected
    assert text(prompt="why?", template="Q: {{ prompt }}{% if system %}!{% endif %} A:")[0] == expected
    assert text(prompt="why?", template=go, system="Be brief.")[1] > text(prompt="why?", template=go)[1]
    # Control tokens in what a template is given stay text.
    assert text(prompt="a<|eot_id|>b", template=go)[1] > text(prompt="a b", template=go)[1] + 2
    wrong = post(demo_url, "/api/generate", prompt="x", template="{{ range .Messages }}{{ .Nosuch }}{{ end }}")
    assert wrong.status_code == 400
    assert "Message has no field Nosuch" in wrong.json()["error"]
    whole = "{{ range .Messages }}Q: {{ .Content }} A:{{ end }}"
    assert text(prompt="why?", template=whole)[0] == expected


def test_forms(demo_url: str) -> None:
    pytest.importorskip("llguidance")
    schema = {"type": "object", "properties": {"mood": {"enum": ["good"]}}, "required": ["mood"]}
    for path, key in (("/api/chat", "message"), ("/api/generate", "response")):
        asked = {"messages": HELLO} if key == "message" else {"prompt": "How are you?"}
        for form in (schema, "json"):
            options = {"temperature": 0, "num_predict": 40}
            answer = post(demo_url, path, format=form, options=options, stream=False, **asked).json()[key]
            text = answer["content"] if key == "message" else answer
            # The demo model does not end every text within its limit.
            assert text.startswith("{") if form == "json" else json.loads(text)["mood"] == "good"


def test_options(demo_url: str, alone: str) -> None:
    stopped = post(demo_url, "/api/chat", messages=HELLO, options={"temperature": 0, "stop": [" answer"]}, stream=False)
    assert stopped.json()["message"]["content"] == alone.partition(" answer")[0]
    assert stopped.json()["done_reason"] == "stop"
    seeded = {"temperature": 1.5, "seed": 3, "num_predict": 8, "num_gpu": 99, "unknown": {}}
    texts = {post(demo_url, "/api/chat", messages=HELLO, options=seeded, stream=False).json()["message"]["content"]
             for _ in range(2)}  # fmt: skip
    assert len(texts) == 1
    long = [{"role": "user", "content": "word " * 3000}]
    assert post(demo_url, "/api/chat", messages=long, options=GREEDY, stream=False).status_code == 200
    assert post(demo_url, "/api/chat", messages=long, options=GREEDY, truncate=False).status_code == 400


def test_log_probabilities(demo_url: str) -> None:
    answer = post(demo_url, "/api/chat", messages=HELLO, options=GREEDY, stream=False, logprobs=True, top_logprobs=2)
    rows = answer.json()["logprobs"]
    assert len(rows) == 12
    assert all(len(row["top_logprobs"]) == 2 for row in rows)


def test_embeddings(demo_url: str) -> None:
    answer = post(demo_url, "/api/embed", input=["one", "two"]).json()
    with llamacpu.Model(DEMO) as model:
        assert answer["embeddings"] == model.embed(["one", "two"], normalize=True).tolist()
        assert post(demo_url, "/api/embeddings", prompt="one").json()["embedding"] == model.embed("one").tolist()
    assert post(demo_url, "/api/embeddings").json() == {"embedding": []}
    assert post(demo_url, "/api/embed", input="word " * 3000).status_code == 200
    assert post(demo_url, "/api/embed", input="word " * 3000, truncate=False).status_code == 400


def test_models(demo_url: str) -> None:
    listed = httpx.get(f"{demo_url}/api/tags").json()["models"]
    assert [model["name"] for model in listed] == ["demo:latest", "tiny:latest"]
    assert listed[0]["details"]["format"] == "gguf"
    assert len(listed[0]["digest"]) == 64
    shown = post(demo_url, "/api/show").json()
    assert shown["model_info"]["general.architecture"] == "llama"
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert "completion" in shown["capabilities"]
    verbose = post(demo_url, "/api/show", verbose=True).json()
    assert len(verbose["model_info"]["tokenizer.ggml.tokens"]) > 100
    assert "." in httpx.get(f"{demo_url}/api/version").json()["version"]


def test_models_are_loaded_and_unloaded_as_asked() -> None:
    with llamacpu.serve(DEMO) as url:
        assert post(url, "/api/generate", keep_alive="10m").json()["done_reason"] == "load"
        assert [model["name"] for model in httpx.get(f"{url}/api/ps").json()["models"]] == ["demo:latest"]
        assert post(url, "/api/generate", keep_alive=0).json()["done_reason"] == "unload"
        assert httpx.get(f"{url}/api/ps").json() == {"models": []}
        assert post(url, "/api/chat", messages=HELLO, options=GREEDY, stream=False).status_code == 200
        assert post(url, "/api/chat", messages=HELLO, keep_alive="soon").status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/api/create", {"model": "x"}, "--store-changes"),
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}, "mmproj"),
        ("/api/generate", {"prompt": "x", "images": ["aGk="]}, "mmproj"),
        ("/api/generate", {"prompt": "x", "suffix": "y"}, "insert"),
        ("/api/generate", {"prompt": "x", "options": {"top_p": 2}}, "options.top_p"),
    ],
)
def test_what_is_refused_is_refused_in_words(demo_url: str, path: str, body: dict[str, Any], word: str) -> None:
    response = post(demo_url, path, **body)
    assert response.status_code == (403 if path == "/api/create" else 400)
    assert word in response.json()["error"]
    assert post(demo_url, "/api/pull", model="demo", stream=False).json() == {"status": "success"}
    assert post(demo_url, "/api/chat", model="none", messages=HELLO).status_code == 404


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("5m", 300.0), ("1h30m", 5400.0), ("250ms", 0.25), (-1, None), ("-1m", None), (0, 0.0), (90, 90.0), ("7", 7.0)],
)
def test_times(given: Any, seconds: float | None) -> None:
    from llamacpu.server.ollama.requests import seconds_of

    assert seconds_of(given) == seconds
