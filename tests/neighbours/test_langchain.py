"""langchain-tests' standard suites on `llamacpu.integrations.langchain`, with the demo model.

Left out by the suites' own switches: images (theirs come from the web; see test_client_pictures.py), sound, video and
PDF in messages of the user and of tools (the engine reads text and images), the name of another model in a call (an
object has one file open), and recorded answers of an HTTP service (there is none). What the demo model cannot do is
expected to fail, each with its reason.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests
from pydantic import BaseModel

import llamacpu
from llamacpu.integrations.langchain import ChatLlamaCpu, LlamaCpuEmbeddings

DEMO = str(Path(llamacpu.__file__).parent / "data" / "demo.gguf")


DECIDES = "the model decides itself whether it calls a tool, which the demo model was not trained for"
LISTED = (
    "loads only classes on the list that LangChain keeps of its own packages; test_settings_are_written_down instead"
)
ENDLESS = "the demo model repeats itself in a text of the forced call until max_tokens"


class TestChatUnits(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLlamaCpu

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": DEMO, "n_ctx": 512, "n_threads": 1}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"LLAMACPU_MODEL_PATH": DEMO}, {"n_ctx": 64}, {"model_path": DEMO, "n_ctx": 64}

    @pytest.mark.xfail(reason=LISTED, strict=True, raises=ValueError)
    def test_serdes(self, model: BaseChatModel, snapshot: Any) -> None:
        super().test_serdes(model, lambda name: dumpd(model))  # type: ignore[arg-type]


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLlamaCpu

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": DEMO, "n_ctx": 4096, "seed": 1, "temperature": 0, "max_tokens": 200}

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @pytest.mark.xfail(reason=DECIDES, strict=True)
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason=DECIDES, strict=True)
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason=DECIDES, strict=True)
    def test_bind_runnables_as_tools(self, model: BaseChatModel) -> None:
        super().test_bind_runnables_as_tools(model)

    @pytest.mark.xfail(reason=DECIDES, strict=True)
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason=ENDLESS, strict=True)
    def test_unicode_tool_call_integration(self, model: BaseChatModel) -> None:
        super().test_unicode_tool_call_integration(model)


class TestEmbeddingsUnits(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[LlamaCpuEmbeddings]:
        return LlamaCpuEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_path": DEMO, "n_threads": 1}


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[LlamaCpuEmbeddings]:
        return LlamaCpuEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_path": DEMO, "n_threads": 1}


# --- What the suites do not look at ---


@pytest.fixture
def chat() -> Iterator[ChatLlamaCpu]:
    found = ChatLlamaCpu(model_path=DEMO, n_ctx=4096, temperature=0, max_tokens=40)
    yield found
    found.close()


def test_a_stream_is_the_answer(chat: ChatLlamaCpu) -> None:
    whole = chat.invoke("Tell me a story.")
    pieces = list(chat.stream("Tell me a story."))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert pieces[-1].usage_metadata == whole.usage_metadata
    assert whole.response_metadata["finish_reason"] == "length"
    assert chat.invoke("Tell me a story.", max_tokens=2).usage_metadata["output_tokens"] == 2
    assert chat.get_num_tokens_from_messages([HumanMessage("Tell me a story.")]) == whole.usage_metadata["input_tokens"]


def test_a_forced_call_of_a_named_tool(chat: ChatLlamaCpu) -> None:
    class Flag(BaseModel):
        """Sets a flag."""

        on: bool

    bound = chat.bind_tools([Flag], tool_choice="Flag")
    assert set(bound.invoke("Set it.").tool_calls[0]["args"]) == {"on"}
    with pytest.raises(ValueError, match=r"'Flagg'.*Flag"):
        chat.bind_tools([Flag], tool_choice="Flagg")


async def test_a_cancelled_call_stops_the_model(chat: ChatLlamaCpu) -> None:
    ends = sorted(chat.llama.model.tokenizer.eog)
    steps = 0

    def endless(ids: Any, logits: Any) -> Any:
        nonlocal steps
        steps += 1
        logits[ends] = float("-inf")
        return logits

    task = asyncio.ensure_future(chat.ainvoke("Tell me a story.", max_tokens=3000, logits_processor=[endless]))
    while steps < 3:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert steps < 3000
    done = steps
    assert len(chat.invoke("Hi", max_tokens=3).text) > 0
    assert steps == done


def test_messages_in_the_form_of_anthropic() -> None:
    from llamacpu.integrations.langchain_messages import messages_of

    use = {"type": "tool_use", "id": "u1", "name": "add", "input": {"a": 1}}
    answer = AIMessage([{"type": "thinking", "thinking": "Hm", "signature": "x"}, {"type": "text", "text": "So."}, use])
    results = [
        {"type": "tool_result", "tool_use_id": name, "content": text} for name, text in (("u1", "2"), ("u2", "3"))
    ]
    found = messages_of([HumanMessage("Hi"), answer, HumanMessage([*results, {"type": "text", "text": "And?"}])])
    assert [message["role"] for message in found] == ["user", "assistant", "tool", "tool", "user"]
    assert found[1]["reasoning_content"] == "Hm"
    assert found[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert [message["tool_call_id"] for message in found[2:4]] == ["u1", "u2"]
    own = AIMessage([{"type": "reasoning", "reasoning": "Hm"}, {"type": "text", "text": "Yes"}])
    assert messages_of([own])[0]["reasoning_content"] == "Hm"
    assert "Hm" not in str(messages_of([own])[0]["content"])


def test_settings_are_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(DEMO).parent)
    chat = ChatLlamaCpu(model_path="demo.gguf", n_ctx=64, temperature=0, stop=["x"])
    written = dumpd(chat)
    assert written["id"] == ["llamacpu", "integrations", "langchain", "ChatLlamaCpu"]
    assert written["kwargs"] == {"model_path": "demo.gguf", "n_ctx": 64, "temperature": 0.0, "stop": ["x"]}
    again = load(json.loads(json.dumps(written)), valid_namespaces=["llamacpu"], allowed_objects=[ChatLlamaCpu])
    assert isinstance(again, ChatLlamaCpu)
    assert again.model_dump() == chat.model_dump()
