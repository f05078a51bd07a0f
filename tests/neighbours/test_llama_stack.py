"""Llama Stack over our server, through its providers for Ollama and for servers that speak the OpenAI API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import llamacpu

stack = pytest.importorskip("llama_stack_client")
if find_spec("llama_stack") is None:
    pytest.skip("llama-stack is not installed", allow_module_level=True)

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
HELLO: Any = [{"role": "user", "content": "What can you do?"}]
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 24}
SCHEMA = {
    "type": "object",
    "properties": {"place": {"type": "string", "enum": ["Rome", "Oslo"]}},
    "required": ["place"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("stack")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with llamacpu.serve(DEMO) as url:
        ollama = {"provider_id": "ollama", "provider_type": "remote::ollama", "config": {"url": url}}
        openai = {"url": f"{url}/v1", "api_token": "none", "max_tokens": 64}
        models = [("demo-ollama", "ollama", "demo:latest"), ("demo-openai", "openai", "demo")]
        settings = {
            "version": "2",
            "image_name": "test",
            "apis": ["inference"],
            "providers": {
                "inference": [ollama, {"provider_id": "openai", "provider_type": "remote::vllm", "config": openai}]
            },
            "metadata_store": {"type": "sqlite", "db_path": str(folder / "registry.db")},
            "models": [
                {"model_id": name, "provider_id": who, "provider_model_id": there, "model_type": "llm", "metadata": {}}
                for name, who, there in models
            ],
            "server": {"port": port},
        }
        # JSON is YAML.
        (folder / "run.yaml").write_text(json.dumps(settings))
        command = [sys.executable, "-m", "llama_stack.distribution.server.server", "--yaml-config"]
        command += [str(folder / "run.yaml"), "--port", str(port)]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(command, env=os.environ | {"HOME": str(folder)}, stdout=log, stderr=log)
        try:
            found = stack.LlamaStackClient(base_url=f"http://127.0.0.1:{port}", timeout=120)
            while not answers(port):
                assert running.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
            yield found
        finally:
            running.kill()
            running.wait()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def alone() -> str:
    with llamacpu.Llama(str(DEMO), n_ctx=1024, verbose=False) as llm:
        answer: Any = llm.create_chat_completion(HELLO, max_tokens=24, temperature=0)
        return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("model", ["demo-ollama", "demo-openai"])
def test_answers_streams_and_schemas(client: Any, alone: str, model: str) -> None:
    asked: Any = {"model_id": model, "messages": HELLO, "sampling_params": GREEDY}
    assert client.inference.chat_completion(**asked).completion_message.content == alone
    stream = client.inference.chat_completion(**asked, stream=True)
    assert "".join(getattr(piece.event.delta, "text", "") or "" for piece in stream if piece.event) == alone
    form = {"type": "json_schema", "json_schema": SCHEMA}
    longer = {**asked, "sampling_params": {**GREEDY, "max_tokens": 60}}
    shaped = client.inference.chat_completion(**longer, response_format=form)
    assert json.loads(shaped.completion_message.content)["place"] in ("Rome", "Oslo")
    plain = client.chat.completions.create(model=model, messages=HELLO, max_tokens=24, temperature=0)
    assert plain.choices[0].message.content == alone
