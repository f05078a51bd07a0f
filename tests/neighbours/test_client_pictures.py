"""Pictures from the clients and frameworks that people use, in each of their forms, to a model that sees drawings."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from drawings import Drawing

pytest.importorskip("PIL")
SEEING = Path(__file__).resolve().parents[1] / "seeing" / "seeing.gguf"
STAR = Drawing("star", "yellow", "blue")
DATA = base64.b64encode(STAR.png()).decode()
URL = f"data:image/png;base64,{DATA}"
TEXT: dict[str, Any] = {"type": "text", "text": "What is this?"}
FORMS: dict[str, dict[str, Any]] = {
    "OpenAI": {"type": "image_url", "image_url": {"url": URL}},
    "OpenAI, short": {"type": "image_url", "image_url": URL},
    "LangChain 0.3": {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
    "LangChain 0.3, address": {"type": "image", "source_type": "url", "url": URL},
    "LangChain 1": {"type": "image", "base64": DATA, "mime_type": "image/png"},
    "LangChain 1, address": {"type": "image", "url": URL},
    "Anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with llamacpu.serve(SEEING) as found:
        yield found


@pytest.fixture(scope="module")
def chat() -> Iterator[Any]:
    pytest.importorskip("langchain_core")
    from llamacpu.integrations.langchain import ChatLlamaCpu

    found = ChatLlamaCpu(model_path=str(SEEING), temperature=0, max_tokens=24)
    yield found
    found.close()


@pytest.mark.parametrize("form", FORMS)
def test_langchain(chat: Any, form: str) -> None:
    from langchain_core.messages import AIMessage, HumanMessage

    asked = [HumanMessage([FORMS[form], TEXT])]
    answer = chat.invoke(asked)
    assert answer.text == STAR.sentence
    assert chat.get_num_tokens_from_messages(asked) == answer.usage_metadata["input_tokens"]
    assert "".join(piece.text for piece in chat.stream(asked)) == STAR.sentence
    more = [*asked, AIMessage(answer.text), HumanMessage("What color is the background?")]
    assert chat.invoke(more).text == "It is blue."


def test_langchain_says_what_is_wrong(chat: Any) -> None:
    from langchain_core.messages import HumanMessage

    for part, words in (
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "address"),
        ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, "not an image"),
    ):
        with pytest.raises(llamacpu.LlamaCpuError, match=words):
            chat.invoke([HumanMessage([part, TEXT])])


@pytest.mark.parametrize("form", ["OpenAI", "LangChain 1", "Anthropic"])
def test_langchain_to_the_server(url: str, form: str) -> None:
    chat_openai = pytest.importorskip("langchain_openai").ChatOpenAI
    from langchain_core.messages import HumanMessage

    chat = chat_openai(base_url=f"{url}/v1", api_key="none", model="seeing", temperature=0, max_retries=0)
    assert chat.invoke([HumanMessage([FORMS[form], TEXT])]).text == STAR.sentence
    chat_ollama = pytest.importorskip("langchain_ollama").ChatOllama
    ollama = chat_ollama(model="seeing", base_url=url, temperature=0)
    if form == "OpenAI":
        assert ollama.invoke([HumanMessage([FORMS[form], TEXT])]).text == STAR.sentence


def test_llama_index(url: str) -> None:
    module = pytest.importorskip("llama_index.llms.ollama")
    from llama_index.core.llms import ChatMessage, ImageBlock, TextBlock

    found = module.Ollama(model="seeing", base_url=url, temperature=0, request_timeout=60, context_window=512)
    blocks = [ImageBlock(image=STAR.png(), image_mimetype="image/png"), TextBlock(text="What is this?")]
    messages = [ChatMessage(role="user", blocks=blocks)]
    assert found.chat(messages).message.content == STAR.sentence
    assert [piece.message.content for piece in found.stream_chat(messages)][-1] == STAR.sentence


def test_clients(url: str) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": [FORMS["OpenAI"], TEXT]}]
        answer = client.chat.completions.create(model="seeing", messages=messages, temperature=0)
        assert answer.choices[0].message.content == STAR.sentence
        parts = [{"type": "input_image", "image_url": URL}, {"type": "input_text", "text": "What is this?"}]
        given: Any = [{"role": "user", "content": parts}]
        assert client.responses.create(model="seeing", input=given, temperature=0).output_text == STAR.sentence
    anthropic = pytest.importorskip("anthropic")
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        messages = [{"role": "user", "content": [FORMS["Anthropic"], TEXT]}]
        greedy = {"temperature": 0}
        answer = client.messages.create(model="seeing", messages=messages, max_tokens=24, extra_body=greedy)
        assert answer.content[0].text == STAR.sentence
    ollama = pytest.importorskip("ollama")
    client = ollama.Client(host=url)
    messages = [{"role": "user", "content": "What is this?", "images": [STAR.png()]}]
    answer = client.chat(model="seeing", messages=messages, options={"temperature": 0})
    assert answer.message.content == STAR.sentence
    made = client.generate(model="seeing", prompt="What is this?", images=[STAR.png()], options={"temperature": 0})
    assert made.response == STAR.sentence
