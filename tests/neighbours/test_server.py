"""The server with the clients that people use, each as its own documentation calls it, with the demo model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from model_hub import ModelHub

openai = pytest.importorskip("openai")
ollama = pytest.importorskip("ollama")
anthropic = pytest.importorskip("anthropic")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HELLO: Any = [{"role": "user", "content": "What can you do?"}]
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["place"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "The weather of a place.", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FUNCTION}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llamacpu.serve(DEMO) as found:
        yield found


@pytest.fixture(scope="module")
def alone() -> str:
    llm = llamacpu.Llama(str(DEMO), n_ctx=1024)
    return str(llm.create_chat_completion(HELLO, max_tokens=40, temperature=0)["choices"][0]["message"]["content"])


# --- openai ---


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as found:
        yield found


def test_openai_chat(client: Any, alone: str) -> None:
    answer = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=40, temperature=0)
    assert answer.choices[0].message.content == alone
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    stream = client.chat.completions.create(
        model="demo", messages=HELLO, max_tokens=40, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == alone
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    with client.chat.completions.stream(model="demo", messages=HELLO, max_tokens=40, temperature=0) as helper:
        helper.until_done()
        assert helper.get_final_completion().choices[0].message.content == alone


def test_openai_tools(client: Any) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = client.chat.completions.create(
            model="demo", messages=HELLO, tools=[TOOL], tool_choice=choice, max_tokens=80
        )
        call = answer.choices[0].message.tool_calls[0]
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["place"] in ("Rome", "Oslo")
        assert answer.choices[0].finish_reason == "tool_calls"


def test_openai_json_schema(client: Any) -> None:
    from pydantic import BaseModel

    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}}
    answer = client.chat.completions.create(model="demo", messages=HELLO, response_format=form, max_tokens=80)
    assert json.loads(answer.choices[0].message.content)["place"] in ("Rome", "Oslo")

    class Verdict(BaseModel):
        good: bool

    parsed = client.chat.completions.parse(model="demo", messages=HELLO, response_format=Verdict, max_tokens=80)
    assert isinstance(parsed.choices[0].message.parsed, Verdict)


def test_openai_embeddings_and_models(client: Any) -> None:
    found = client.embeddings.create(model="demo", input=["one", "two"])
    with llamacpu.Model(DEMO) as model:
        expected = model.embed(["one", "two"], normalize=True).tolist()
    assert [row.embedding for row in found.data] == [pytest.approx(row) for row in expected]
    assert [model.id for model in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"


def test_openai_responses(client: Any, alone: str) -> None:
    answer = client.responses.create(model="demo", input="What can you do?", max_output_tokens=40, temperature=0)
    assert answer.output_text == alone
    with client.responses.stream(model="demo", input=HELLO, max_output_tokens=40, temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == alone
    tool = {"type": "function", **FUNCTION, "strict": True}
    called = client.responses.create(
        model="demo", input="Weather?", tools=[tool], tool_choice="required", max_output_tokens=80
    )
    assert json.loads(called.output[0].arguments)["place"] in ("Rome", "Oslo")


def test_openai_errors(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="demo"):
        client.chat.completions.create(model="gpt-5", messages=HELLO)
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="demo", messages=HELLO, top_p=2)
    assert found.value.param == "top_p"


def test_openai_completions(client: Any) -> None:
    answer = client.completions.create(model="demo", prompt="Once upon", max_tokens=5, logprobs=2, echo=True)
    assert answer.choices[0].text.startswith("Once upon")
    assert len(answer.choices[0].logprobs.tokens) >= 6


# --- ollama ---


def test_ollama(url: str, alone: str) -> None:
    client = ollama.Client(host=url)
    options = {"temperature": 0, "num_predict": 40}
    assert client.chat("demo", messages=HELLO, options=options).message.content == alone
    pieces = client.chat("demo", messages=HELLO, options=options, stream=True)
    assert "".join(piece.message.content for piece in pieces) == alone
    assert client.generate("demo", "What can you do?", options=options).response == alone
    shaped = client.chat("demo", messages=HELLO, format=SCHEMA, options=options)
    assert json.loads(shaped.message.content)["place"] in ("Rome", "Oslo")
    assert len(client.embed("demo", ["one", "two"]).embeddings) == 2
    assert client.list().models[0].model == "demo:latest"
    assert client.ps().models[0].model == "demo:latest"
    assert "completion" in client.show("demo").capabilities
    assert client.pull("demo").status == "success"
    with pytest.raises(ollama.ResponseError, match="there is demo"):
        client.generate("other", "x")
    for change in (lambda: client.pull("other"), lambda: client.delete("demo"), lambda: client.copy("demo", "x")):
        with pytest.raises(ollama.ResponseError, match="this server does not"):
            change()


def test_ollama_changes_the_store_where_it_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = ModelHub()
    hub.put_model("other:v2", DEMO.read_bytes())
    for name in ("LLAMACPU_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("LLAMACPU_REGISTRY", hub.url)
    with llamacpu.serve(DEMO, store_changes=True) as url:
        client = ollama.Client(host=url)
        told = list(client.pull("other:v2", stream=True))
        assert told[0].status == "pulling manifest"
        assert told[-1].status == "success"
        assert any(line.completed == line.total == DEMO.stat().st_size for line in told if line.total)
        assert client.generate("other:v2", "Once", options={"num_predict": 3}).response
        assert client.copy("other:v2", "mine").status == "success"
        assert {model.model for model in client.list().models} == {"demo:latest", "other:v2", "mine:latest"}
        settings = {"temperature": 0, "num_predict": 4, "stop": ["<x>"]}
        told = list(client.create("brief", from_="mine", system="Be kind.", parameters=settings, stream=True))
        assert told[-1].status == "success"
        shown = client.show("brief")
        assert "SYSTEM" in str(shown.modelfile)
        assert str(shown.parameters).split() == ["temperature", "0", "num_predict", "4", "stop", '"<x>"']
        assert client.chat("brief", HELLO).eval_count == 4
        assert client.delete("brief").status == "success"
        assert client.delete("other:v2").status == "success"
        assert client.delete("mine").status == "success"
        for change in (lambda: client.delete("mine"), lambda: client.copy("mine", "x"), lambda: client.pull("none")):
            with pytest.raises(ollama.ResponseError) as error:
                change()
            assert error.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match="neither on this machine nor in the registry"):
            list(client.pull("none", stream=True))
    hub.close()


# --- anthropic, groq ---


def test_anthropic(url: str, alone: str) -> None:
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        greedy = {"extra_body": {"temperature": 0}}
        message = client.messages.create(model="demo", max_tokens=40, messages=HELLO, **greedy)
        assert message.content[0].text == alone
        with client.messages.stream(model="demo", max_tokens=40, messages=HELLO, **greedy) as stream:
            assert "".join(stream.text_stream) == alone
            assert stream.get_final_message().usage.output_tokens == message.usage.output_tokens
        count = client.messages.count_tokens(model="demo", messages=HELLO).input_tokens
        assert count == message.usage.input_tokens + message.usage.cache_read_input_tokens
        tools = [{"name": "weather", "description": "x", "input_schema": SCHEMA}]
        called = client.messages.create(
            model="demo", max_tokens=80, messages=HELLO, tools=tools, tool_choice={"type": "any"}
        )
        assert called.content[0].input["place"] in ("Rome", "Oslo")
        assert called.stop_reason == "tool_use"
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="claude", max_tokens=1, messages=HELLO)


def test_groq(url: str, alone: str) -> None:
    groq = pytest.importorskip("groq")
    with groq.Groq(base_url=url, api_key="none", max_retries=0) as client:
        answer = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=40, temperature=0)
        assert answer.choices[0].message.content == alone


# --- Frameworks ---


def test_langchain(url: str, alone: str) -> None:
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    model = chat_openai(base_url=f"{url}/v1", api_key="none", model="demo", temperature=0, max_tokens=40)
    assert model.invoke("What can you do?").content == alone
    assert "".join(str(chunk.content) for chunk in model.stream("What can you do?")) == alone
    shaped = model.with_structured_output({"title": "Place", **SCHEMA}, method="json_schema")
    assert shaped.invoke("A place")["place"] in ("Rome", "Oslo")


def test_langchain_ollama(url: str, alone: str) -> None:
    chat_ollama = pytest.importorskip("langchain_ollama").ChatOllama
    model = chat_ollama(base_url=url, model="demo", temperature=0, num_predict=40, validate_model_on_init=True)
    assert model.invoke("What can you do?").content == alone
    assert "".join(str(chunk.content) for chunk in model.stream("What can you do?")) == alone


def test_llama_index_ollama(url: str, alone: str) -> None:
    module = pytest.importorskip("llama_index.llms.ollama")
    options = {"num_predict": 40}
    model = module.Ollama(model="demo", base_url=url, temperature=0, additional_kwargs=options, request_timeout=60)
    assert str(model.complete("What can you do?")) == alone


# --- The document ---


def test_the_document_is_true_and_nothing_breaks_the_server(url: str, tmp_path: Path) -> None:
    """schemathesis makes requests of the document: none ends in 5xx, and answers are as the document says."""
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("schemathesis is not installed")
    checks = "not_a_server_error,response_schema_conformance,status_code_conformance,content_type_conformance"
    command = [program, "run", f"{url}/openapi.json", "--checks", checks, "--phases", "coverage,fuzzing"]
    seconds = "60" if os.environ.get("LLAMACPU_THOROUGH") else "20"
    limits = ["--max-examples", "10", "--max-time", seconds, "--generation-database", "none", "--seed", "1"]
    done = subprocess.run([*command, *limits], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
