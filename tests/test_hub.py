"""Downloads from the Hugging Face Hub, with a hub that is not there."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llamacpu.store.hub import download

FILES = [
    "README.md",
    "model-Q4_K_M.gguf",
    "model-Q8_0.gguf",
    "parts/big-00001-of-00002.gguf",
    "parts/big-00002-of-00002.gguf",
]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    asked: list[str] = []

    def fetch(repo_id: str, name: str, **settings: Any) -> str:
        asked.append(name)
        return str(tmp_path / name)

    fake = SimpleNamespace(list_repo_files=lambda repo_id: FILES, hf_hub_download=fetch)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return asked


def test_a_pattern_names_one_file(hub: list[str], tmp_path: Path) -> None:
    assert download("someone/model", "*Q4_K_M.gguf") == str(tmp_path / "model-Q4_K_M.gguf")
    assert hub == ["model-Q4_K_M.gguf"]
    first = download("someone/model", "parts/*-00001-*.gguf", ["parts/*-00002-*.gguf"])
    assert first.endswith("big-00001-of-00002.gguf")
    assert hub[1:] == FILES[3:]


@pytest.mark.parametrize(("pattern", "words"), [("*.bin", "no file"), ("*.gguf", "4 files"), ("Q8_0", "no file")])
def test_anything_else_is_an_error_that_names_the_files(hub: list[str], pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        download("someone/model", pattern)
    assert "model-Q4_K_M.gguf" in str(caught.value)
    assert hub == []
