"""Drafts as `Llama`, the module `llama_cpp` and the command line take them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
from llamacpu import compat
from llamacpu.drafting import FunctionDraft, ModelDraft, NGramDraft
from llamacpu.errors import GGUFError

ASKED = {"max_tokens": 40, "temperature": 0.0, "logit_bias": None}


@pytest.fixture
def llama_cpp() -> Iterator[Any]:
    yield compat.install()
    compat.uninstall()


def text_of(path: Path, **settings: Any) -> tuple[str, float]:
    """The answer of a `Llama`, and the seconds that drafts for it took."""
    with llamacpu.Llama(path, n_ctx=128, n_threads=2, **settings) as llm:
        text = llm("One two one two one two", **ASKED)["choices"][0]["text"]
        assert llm.last_result is not None
        return text, llm.last_result.timings.draft_seconds


def test_a_llama_drafts_by_default_and_as_it_is_told(tiny_model: Callable[..., Path]) -> None:
    path = tiny_model("gqa")
    with llamacpu.Llama(path) as llm:
        assert isinstance(llm.draft_model, NGramDraft)
    with llamacpu.Llama(path, draft_model=str(path)) as llm:
        assert isinstance(llm.draft_model, ModelDraft)
    plain, seconds = text_of(path, draft_model=None)
    assert seconds == 0
    always = NGramDraft(1, adaptive=False)
    with llamacpu.Model(path) as small:
        for draft in (path, small, always, lambda ids: [5, 6, 7]):
            text, seconds = text_of(path, draft_model=draft)
            assert text == plain
            assert seconds > 0


def test_an_impossible_draft_is_an_error_at_once(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(TypeError, match="draft is a int"):
        llamacpu.Llama(tiny_model("gqa"), draft_model=7)
    with pytest.raises(GGUFError, match="no such file"):
        llamacpu.Llama(tiny_model("gqa"), draft_model="no such file.gguf")


def test_draft_models_written_for_llama_cpp_python_work(tiny_model: Callable[..., Path], llama_cpp: Any) -> None:
    from llama_cpp.llama_speculative import LlamaDraftModel, LlamaPromptLookupDecoding

    asked: list[int] = []

    class Own(LlamaDraftModel):  # type: ignore[misc]
        def __call__(self, input_ids: Any, /, **kwargs: Any) -> Any:
            asked.append(len(input_ids))
            return np.array([7, 8], dtype=np.intc)

    path = tiny_model("gqa")
    plain, _ = text_of(path, draft_model=None)
    assert text_of(path, draft_model=Own())[0] == plain
    assert asked
    lookup = LlamaPromptLookupDecoding(num_pred_tokens=10, max_ngram_size=2)
    assert text_of(path, draft_model=lookup)[0] == plain
    assert lookup(np.array([1, 2, 3, 9, 1, 2], dtype=np.intc)).tolist() == [3, 9, 1, 2]
    assert lookup(np.array([1, 2, 3], dtype=np.intc)).tolist() == []
    with llama_cpp.Llama(path, draft_model=lookup) as llm:
        assert llm.draft_model is lookup
        assert not isinstance(llm.draft_model, FunctionDraft)


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamacpu", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def test_the_command_line_drafts(tiny_model: Callable[..., Path]) -> None:
    path = tiny_model("gqa")
    asked = ("run", path, "--raw", "-p", "One two one two", "-n", 30, "--seed", 3, "--ignore-end", "--json", "-t", 2)
    found = [json.loads(run(*asked, *extra).stdout) for extra in ((), ("--no-draft",), ("--draft-model", path))]
    assert found[0]["text"] == found[1]["text"] == found[2]["text"] != ""
    assert found[1]["timings"]["drafted_tokens"] == 0
    assert found[2]["timings"]["draft_seconds"] > 0
    both = run(*asked, "--no-draft", "--draft-model", path)
    assert both.returncode == 2
    assert "--draft-model and --no-draft; give one of them" in both.stderr


def test_a_draft_model_that_does_not_fit_is_one_line(tiny_model: Callable[..., Path]) -> None:
    found = run("run", tiny_model("gqa"), "-p", "x", "--draft-model", tiny_model("bpe"))
    assert found.returncode == 1
    assert found.stderr.startswith("Error: the draft model has ")
    assert found.stderr.count("\n") == 1


def test_the_bench_prices_drafts(tiny_model: Callable[..., Path]) -> None:
    path = tiny_model("gqa")
    asked = ("bench", path, "--prompt-tokens", 0, "--generate-tokens", 4, "--repeat", 1, "--draft-tokens", 3)
    plain = json.loads(run(*asked, "--json").stdout)["draft"]
    assert plain["tokens"] == 3
    assert plain["model_seconds"] == 0
    assert plain["break_even"] == pytest.approx(plain["pass_seconds"] / plain["step_seconds"] - 1)
    modelled = json.loads(run(*asked, "--draft-model", path, "--json").stdout)["draft"]
    assert modelled["model_seconds"] > 0
    whole = modelled["pass_seconds"] + modelled["model_seconds"]
    assert modelled["best_tokens_per_second"] == pytest.approx(4 / whole)
    shown = run(*asked, "--draft-model", path).stdout
    assert "of 3 drafted tokens must be right" in shown
    assert run(*asked[:2], "--draft-model", path).returncode == 2
