"""llamacpu as the module llama_cpp: the module itself, and the real packages that import it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
import vision_files
from fake_llama import llama
from llamacpu import compat
from tiny_models import VARIANTS

__all__ = ["llama"]
SOURCE = Path(llamacpu.__file__).parents[1]
DEMO = SOURCE / "llamacpu" / "data" / "demo.gguf"


@pytest.fixture
def llama_cpp() -> Iterator[types.ModuleType]:
    if "llama_cpp" in sys.modules:
        pytest.skip("llama-cpp-python is in use in this process")
    yield compat.install()
    compat.uninstall()


def test_the_module_has_the_known_names(llama_cpp: types.ModuleType) -> None:
    from llama_cpp import (  # type: ignore[import-not-found]
        BaseLlamaCache,
        Llama,
        LlamaCache,
        LlamaDiskCache,
        LlamaGrammar,
        LlamaRAMCache,
        LlamaState,
        LogitsProcessorList,
        StoppingCriteriaList,
    )
    from llama_cpp.llama_grammar import LlamaGrammar as Same  # type: ignore[import-not-found]

    assert Llama is llamacpu.Llama
    assert Same is LlamaGrammar
    assert issubclass(LlamaDiskCache, BaseLlamaCache)
    assert LlamaCache is LlamaRAMCache
    assert llama_cpp.__version__ == "0.3.36"
    assert llama_cpp.LLAMA_POOLING_TYPE_MEAN == 1
    assert all((LlamaState, LogitsProcessorList, StoppingCriteriaList))
    types = importlib.import_module("llama_cpp.llama_types")
    assert types.CreateCompletionResponse is llama_cpp.CreateCompletionResponse
    assert types.ChatCompletionRequestUserMessage(role="user", content="a") == {"role": "user", "content": "a"}
    assert importlib.import_module("llama_cpp.llama_cpp").LLAMA_DEFAULT_SEED == 0xFFFFFFFF


def test_it_can_be_installed_twice_and_removed(llama_cpp: types.ModuleType) -> None:
    assert compat.install().Llama is llamacpu.Llama
    compat.uninstall()
    assert "llama_cpp" not in sys.modules
    assert "llama_cpp.llama" not in sys.modules


def test_it_does_not_replace_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", types.ModuleType("llama_cpp"))
    with pytest.raises(RuntimeError, match="before"):
        compat.install()
    compat.uninstall()
    assert "llama_cpp" in sys.modules


def test_processors_and_criteria_run_in_llama(llama: Callable[..., Any]) -> None:
    found = llama("ab")
    processors = compat.LogitsProcessorList([compat.MinTokensLogitsProcessor(4, found.token_eos())])
    text = found("p", temperature=0.0, logits_processor=processors, max_tokens=4)["choices"][0]
    assert text["finish_reason"] == "length"
    assert found("p", temperature=0.0, max_tokens=4)["choices"][0]["finish_reason"] == "stop"
    criteria = compat.StoppingCriteriaList([lambda ids, scores: len(ids) > 2])
    assert found("p", temperature=0.0, stopping_criteria=criteria)["choices"][0]["text"] == "a"
    assert criteria(np.zeros(3, dtype=np.intc), np.zeros(1, dtype=np.single)) is True


# --- The real packages, in a process of their own ---


def run(script: str, *arguments: str, **environment: str) -> str:
    """Run Python code with llamacpu importable; returns what it prints."""
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "PYTHONPATH": paths, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


LANGCHAIN = """
import json, sys
import llamacpu.compat
llamacpu.compat.install()
from langchain_community.chat_models import ChatLlamaCpp
from langchain_community.llms import LlamaCpp
from langchain_core.messages import HumanMessage, SystemMessage

chat = ChatLlamaCpp(model_path=sys.argv[1], temperature=0.0, max_tokens=8, n_ctx=128, seed=1, verbose=False)
messages = [SystemMessage("You are kind."), HumanMessage("Once upon a time")]
answer = chat.invoke(messages)
streamed = "".join(chunk.content for chunk in chat.stream(messages))
text = LlamaCpp(model_path=sys.argv[1], temperature=0.0, max_tokens=8, n_ctx=128, seed=1, verbose=False)
words = text.invoke("once upon a time")
pieces = "".join(text.stream("once upon a time"))
print(json.dumps([answer.content, streamed, words, pieces, text.get_num_tokens("once upon a time")]))
"""


def test_langchain_runs_unchanged(tiny_model: Callable[..., Path]) -> None:
    pytest.importorskip("langchain_community", reason="langchain-community is not installed")
    answer, streamed, words, pieces, count = json.loads(run(LANGCHAIN, str(tiny_model("mha"))).splitlines()[-1])
    assert answer == streamed
    assert words == pieces
    assert len(words) > 0
    assert count > 2


LANGCHAIN_EMBEDDINGS = """
import json, sys
import llamacpu.compat
llamacpu.compat.install()
from langchain_community.embeddings import LlamaCppEmbeddings

found = LlamaCppEmbeddings(model_path=sys.argv[1], n_ctx=64, n_batch=32, verbose=False)
texts = ["once upon a time", "a little girl"]
print(json.dumps([found.embed_documents(texts), [found.embed_query(text) for text in texts]]))
"""


def test_langchain_embeds_unchanged(tiny_model: Callable[..., Path]) -> None:
    pytest.importorskip("langchain_community", reason="langchain-community is not installed")
    path = tiny_model(replace(VARIANTS["mha"], extra={"pooling_type": 1}))
    documents, queries = json.loads(run(LANGCHAIN_EMBEDDINGS, str(path)).splitlines()[-1])
    assert documents == queries
    with llamacpu.Model(path, threads=1) as model:
        assert documents == model.embed(["once upon a time", "a little girl"], "mean").tolist()


LLAMA_INDEX = """
import json, sys
import llamacpu.compat
llamacpu.compat.install()
from llama_index.core.llms import ChatMessage
from llama_index.llms.llama_cpp import LlamaCPP

found = LlamaCPP(model_path=sys.argv[1], temperature=0.0, max_new_tokens=8, context_window=128,
                 model_kwargs={"n_gpu_layers": 0, "seed": 1}, verbose=False,
                 messages_to_prompt=lambda messages: " ".join(m.content for m in messages),
                 completion_to_prompt=lambda text: text)
whole = found.complete("once upon a time").text
pieces = "".join(piece.delta for piece in found.stream_complete("once upon a time"))
chat = found.chat([ChatMessage(role="user", content="once upon a time")]).message.content
print(json.dumps([whole, pieces, chat, found.metadata.context_window]))
"""


def test_llama_index_runs_unchanged(tiny_model: Callable[..., Path]) -> None:
    folders = [Path(folder) / "llama_index" / "llms" / "llama_cpp" for folder in sys.path]
    if not any(folder.is_dir() for folder in folders):
        pytest.skip("llama-index-llms-llama-cpp is not installed")
    whole, pieces, chat, window = json.loads(run(LLAMA_INDEX, str(tiny_model("mha"))).splitlines()[-1])
    assert whole == pieces == chat
    assert len(whole) > 0
    assert window == 128


LLM = """
import sys
# Another plugin may want llama-cpp-python.
import llamacpu.compat
llamacpu.compat.install()
from llm import plugins
plugins.load_plugins()
from llamacpu.integrations import llm_plugin
if not any(name == "llamacpu" or plugin is llm_plugin for name, plugin in plugins.pm.list_name_plugin()):
    plugins.pm.register(llm_plugin, "llamacpu")
from llm.cli import cli
cli(sys.argv[1:])
"""


def test_the_llm_command(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("llm", reason="llm is not installed")
    path = str(tiny_model("mha"))
    user = {"LLM_USER_PATH": str(tmp_path)}
    run(LLM, "llamacpu", "add", "tiny", path, **user)
    assert run(LLM, "llamacpu", "list", **user) == f"tiny: {path}\n"
    assert "tiny" in run(LLM, "models", **user)
    options = ("-o", "temperature", "0", "-o", "max_tokens", "8", "-o", "seed", "1")
    answer = run(LLM, "-m", "tiny", "once upon a time", *options, **user)
    assert answer == run(LLM, "-m", "tiny", "once upon a time", *options, "--no-stream", **user)
    assert len(answer) > 1
    again = run(LLM, "-c", "and then", "-m", "tiny", *options, **user)
    messages: Any = [{"role": "user", "content": "once upon a time"}, {"role": "assistant", "content": answer[:-1]}]
    messages.append({"role": "user", "content": "and then"})
    with llamacpu.Llama(path, seed=1) as whole:
        expected = whole.create_chat_completion(messages, temperature=0.0, max_tokens=8, seed=1)
    assert again == expected["choices"][0]["message"]["content"] + "\n"
    vector = json.loads(run(LLM, "embed", "-m", "tiny", "-c", "once upon a time", "-f", "json", **user))
    with llamacpu.Model(path, threads=1) as model:
        assert vector == model.embed("once upon a time").tolist()
    run(LLM, "llamacpu", "remove", "tiny", **user)
    assert run(LLM, "llamacpu", "list", **user) == ""


def test_the_llm_command_shows_pictures(tmp_path: Path) -> None:
    pytest.importorskip("llm", reason="llm is not installed")
    pytest.importorskip("PIL")
    user = {"LLM_USER_PATH": str(tmp_path)}
    mmproj = vision_files.write_mmproj(tmp_path / "encoder.gguf")
    picture = tmp_path / "picture.png"
    picture.write_bytes(vision_files.png())
    run(LLM, "llamacpu", "add", "seeing", str(DEMO), "--mmproj", str(mmproj), **user)
    assert run(LLM, "llamacpu", "list", **user) == f"seeing: {DEMO} with {mmproj}\n"
    options = ("-o", "temperature", "0", "-o", "max_tokens", "12", "-o", "priority", "low")
    question, again = "What is this?", "And what else?"
    shown = [run(LLM, "-m", "seeing", question, "-a", str(picture), *options, **user)]
    shown.append(run(LLM, "-m", "seeing", "-c", again, *options, **user))
    with llamacpu.Llama(DEMO, mmproj=mmproj) as model:
        settings: Any = {"max_tokens": 12, "temperature": 0.0}
        messages: list[Any] = vision_files.asked(question, vision_files.url())
        expected = []
        for more in (again, None):
            answer = model.create_chat_completion(messages, **settings)["choices"][0]["message"]["content"]
            expected.append(answer)
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": more}]
        plain = model.create_chat_completion([{"role": "user", "content": question}], **settings)
    assert [text.strip() for text in shown] == [text.strip() for text in expected]
    assert shown[0].strip() != plain["choices"][0]["message"]["content"].strip()
    refused = subprocess.run(
        [sys.executable, "-c", LLM, "-m", "llamacpu-demo", question, "-a", str(picture)],
        env=os.environ | {"PYTHONPATH": str(SOURCE), **user}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "does not support attachments" in refused.stderr + refused.stdout


def test_the_plugin_finds_the_demo_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where `llm` is not installed, something of its shape stands in."""
    stand_in: Any = types.ModuleType("llm")
    stand_in.Model = stand_in.EmbeddingModel = stand_in.Options = object
    stand_in.hookimpl = lambda function: function
    stand_in.user_dir = lambda: tmp_path
    fields: Any = types.ModuleType("pydantic")
    fields.Field = lambda **_settings: None
    monkeypatch.setitem(sys.modules, "llm", stand_in)
    monkeypatch.setitem(sys.modules, "pydantic", fields)
    monkeypatch.delitem(sys.modules, "llamacpu.integrations.llm_plugin", raising=False)
    plugin = importlib.import_module("llamacpu.integrations.llm_plugin")
    monkeypatch.delitem(sys.modules, "llamacpu.integrations.llm_plugin")
    found: dict[str, str] = {}
    plugin.register_models(lambda model: found.update({model.model_id: model.path}))
    assert Path(found[plugin.DEMO]).is_file()
