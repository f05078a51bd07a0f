"""langchain-tests' standard suites on `llamacpu.integrations.langchain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

import llamacpu
from llamacpu.integrations.langchain import ChatLlamaCpu, LlamaCpuEmbeddings

DEMO = str(Path(llamacpu.__file__).parent / "data" / "demo.gguf")


class TestChatUnits(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatLlamaCpu

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model_path": DEMO, "n_ctx": 512, "n_threads": 1}


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
