"""The vision encoder that comes with a model's name: in the window, in what `info` says, and in a conversation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
import vision_files
from llamacpu import window
from llamacpu.cli.group import command_line
from llamacpu.window.engine import Ended, Engine, Failed
from test_store_local import put_ollama

pytest.importorskip("PIL")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
QUESTION = [{"role": "user", "content": [
    {"type": "image", "image": vision_files.png()}, {"type": "text", "text": "What is this?"},
]}]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without models."""
    for name in ("HF_HUB_CACHE", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.fixture(params=["seeing", "hf:maker/Seeing-GGUF:Q8_0"])
def name(home: Path, request: pytest.FixtureRequest) -> str:
    """The name of a model that came with its encoder: from Ollama's registry, or from a repository of two models."""
    encoder = vision_files.write_mmproj(home / "encoder.gguf").read_bytes()
    if request.param == "seeing":
        put_ollama(home / ".ollama/models", "seeing", "latest", DEMO.read_bytes(), projector=encoder)
    else:
        folder = home / ".cache/huggingface/hub/models--maker--Seeing-GGUF"
        commit = folder / "snapshots/abc"
        commit.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs/main").write_text("abc")
        (commit / "Seeing-Q8_0.gguf").write_bytes(DEMO.read_bytes())
        (commit / "Other-Q4_0.gguf").write_bytes(DEMO.read_bytes())
        (commit / "mmproj-model-f16.gguf").write_bytes(encoder)
    return str(request.param)


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments])


def test_the_window_opens_what_the_name_means(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, Any]] = []
    monkeypatch.setattr(window, "show", lambda model, system, settings: shown.append((model, settings)))
    answer = run("window", name, "--context", 256)
    assert answer.exit_code == 0, answer.output
    engine = Engine(*shown[0])
    engine.ask(QUESTION)
    engine.start()
    while not isinstance(event := engine.events.get(timeout=100), Ended):
        assert not isinstance(event, Failed), event.text
    engine.close()
    engine.join()


def test_info_counts_with_the_encoder_of_the_name(name: str) -> None:
    facts = json.loads(run("info", name, "--json").stdout)
    assert facts["vision"]["kind"] == "llama4"


def test_run_shows_pictures_to_a_model_opened_by_name(name: str, home: Path) -> None:
    (home / "a.png").write_bytes(vision_files.png())
    answer = run("run", name, "--image", home / "a.png", "-p", "What?", "-n", 1, "--context", 256)
    assert answer.exit_code == 0, answer.output
