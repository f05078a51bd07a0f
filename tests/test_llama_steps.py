"""`Llama` step by step, its states and arguments, its beginning and end."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fake_llama import Model, llama
from fake_model import END, START, ids_of
from llamacpu.errors import LlamaCpuError, ModelError
from llamacpu.llama import Llama
from llamacpu.llama.caches import LlamaRAMCache
from llamacpu.llama.state import LlamaState

__all__ = ["llama"]
Make = Callable[..., Llama]
GREEDY = {"temperature": 0.0}
USER = [{"role": "user", "content": "Hi"}]


def model_of(found: Llama) -> Model:
    assert isinstance(found.model, Model)
    return found.model


# --- Step by step ---


def test_tokens_there_and_back(llama: Make) -> None:
    found = llama()
    assert found.tokenize(b"ab") == [START, *ids_of("ab")] == found.tokenize("ab")
    assert found.tokenize(b"</s>", add_bos=False) == ids_of("</s>")
    assert found.tokenize(b"</s>", add_bos=False, special=True) == [END]
    assert found.detokenize([START, *ids_of(" ab"), END]) == b"ab"
    assert found.detokenize(ids_of(" ab"), prev_tokens=[5]) == b" ab"
    assert found.detokenize([END], special=True) == b"</s>"
    assert found.tokenizer().decode(found.tokenizer().encode("xé")) == "xé"
    assert (found.token_bos(), found.token_eos(), found.token_nl()) == (START, END, ids_of("\n")[0])
    assert (found.n_ctx(), found.n_vocab(), found.n_embd()) == (1000, 259, 8)


def test_eval_and_sample(llama: Make) -> None:
    found = llama("x", logits_all=True)
    with pytest.raises(LlamaCpuError, match="eval"):
        found.sample()
    found.eval(found.tokenize("ab"))
    assert found.n_tokens == 3
    assert found.scores.shape == (3, 259)
    assert list(found.eval_tokens) == [START, *ids_of("ab")]
    assert found.sample(temp=0.0) == ids_of("x")[0]
    assert found.sample(temp=0.0, idx=0) == ids_of("x")[0]
    found.reset()
    assert (found.n_tokens, len(found.scores)) == (0, 0)
    last = llama("x")
    last.eval([3, 4])
    assert last.scores.shape == (1, 259)


def test_generate_yields_tokens_and_takes_some(llama: Make) -> None:
    found = llama("x")
    running = found.generate(found.tokenize("ab"), temp=0.0)
    assert next(running) == ids_of("x")[0]
    assert running.send(ids_of("yz")) == END
    assert list(found.eval_tokens) == [START, *ids_of("abxyz")]
    again = found.generate(found.tokenize("abq"), temp=0.0)
    next(again)
    assert list(found.eval_tokens) == [START, *ids_of("abq")]
    assert list(found.generate([5], temp=0.0, stopping_criteria=[lambda ids, logits: True])) == []


def test_states_and_caches(llama: Make) -> None:
    found = llama("x")
    found.eval([3, 4, 5])
    state = found.save_state()
    found.eval([6])
    found.load_state(state)
    assert list(found.eval_tokens) == [3, 4, 5]
    found.reset()
    found.load_state(LlamaState(np.array([3, 4], dtype=np.intc), state.scores, 2))
    assert list(found.eval_tokens) == [3, 4]
    cache = LlamaRAMCache()
    found.set_cache(cache)
    found("abc", **GREEDY)
    found("zzz", **GREEDY)
    assert found.tokenize("abc") + ids_of("x") in cache
    assert cache[found.tokenize("abcd")].n_tokens == 5
    small = LlamaRAMCache(capacity_bytes=10)
    small[[1]] = state
    assert small.cache_size == 0
    with pytest.raises(KeyError):
        small[[1]]


def test_the_common_beginning_is_not_computed_again(llama: Make) -> None:
    found = llama("x")
    found("abc", **GREEDY)
    found("abd", **GREEDY)
    assert found.last_result is not None
    assert found.last_result.cached_tokens == 3
    assert found.last_result.timings.as_dict()["first_token_seconds"] > 0


def test_two_completions_at_once_do_not_meet(llama: Make) -> None:
    found = llama("abcdef")
    first = found("p", stream=True, **GREEDY)
    next(first)
    second = found("p", stream=True, **GREEDY)
    assert "".join(chunk["choices"][0]["text"] for chunk in second) == "abcdef"
    assert "".join(chunk["choices"][0]["text"] for chunk in first) == "bcdef"
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(found("p", **GREEDY)["choices"][0]["text"])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["abcdef"] * 8


def test_a_stream_that_is_left_gives_the_session_back(llama: Make) -> None:
    found = llama("abcdef")
    stream = found("p", stream=True, **GREEDY)
    next(stream)
    stream.close()
    assert found._conversation._leased is None
    assert found("p", **GREEDY)["choices"][0]["text"] == "abcdef"


def test_a_state_loaded_in_the_middle_of_a_stream_gives_the_session_back(llama: Make) -> None:
    found = llama("abcdef")
    state = found.save_state()
    stream = found("p", stream=True, **GREEDY)
    next(stream)
    found.load_state(state)
    assert "".join(chunk["choices"][0]["text"] for chunk in stream) == "bcdef"
    assert (found.n_tokens, found._conversation._leased) == (0, None)


# --- Arguments, life and death ---


def test_metadata_is_text(llama: Make) -> None:
    found = llama().metadata
    assert found["general.name"] == "fake"
    assert found["tokenizer.ggml.add_bos_token"] == "true"
    assert "tokenizer.ggml.token_type" not in found


def test_arguments_without_meaning_are_noted(llama: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="llamacpu"):
        llama("x", n_gpu_layers=-1, n_ubatch=64, flash_attn=True, f16_kv=True)
    notes = " ".join(record.getMessage() for record in caplog.records)
    assert all(name in notes for name in ("n_gpu_layers", "n_ubatch", "flash_attn", "f16_kv"))
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="llamacpu"):
        llama("x", n_gpu_layers=0, use_mlock=False, rope_freq_base=0.0, lora_path=None)
    assert not caplog.records


@pytest.mark.parametrize(
    "wrong",
    [{"yarn_attn_factor": 2.0}, {"attention_type": 1}, {"rope_scaling_type": 7}, {"type_k": 2}],
)
def test_arguments_that_cannot_be_followed_are_errors(llama: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        llama("x", **wrong)


def test_infill(llama: Make) -> None:
    found = llama("mid")
    with pytest.raises(ModelError, match="middle"):
        found.infill("a", "b")
    tokenizer = model_of(found).tokenizer
    tokenizer.fim = {"prefix": 256, "suffix": 257, "middle": 258}  # type: ignore[attr-defined]
    assert found.infill("a", "b", max_tokens=3, **GREEDY)["choices"][0]["text"] == "mid"
    assert model_of(found).prompts[-1] == [START, 256, *ids_of("a"), 257, *ids_of("b"), 258]
    found.spm_infill = True
    found.infill("a", "b", **GREEDY)
    assert model_of(found).prompts[-1] == [START, 256, 257, *ids_of("b"), 258, *ids_of("a")]


def test_closing(llama: Make) -> None:
    with llama("x") as found:
        model = model_of(found)
    assert model.closed
    with pytest.raises(LlamaCpuError, match="closed"):
        found("a")
    found.close()


def test_pickling_opens_the_file_again(llama: Make) -> None:
    found = llama("x", last_n_tokens_size=7)
    arguments = found.__getstate__()
    assert arguments["model_path"] == "fake.gguf"
    found.__setstate__(arguments)
    assert found.last_n_tokens_size == 7


def test_static_helpers() -> None:
    chances = Llama.logits_to_logprobs(np.array([[1.0, 2.0], [-np.inf, 0.0]]))
    assert np.allclose(np.exp(chances).sum(axis=-1), 1)
    assert Llama.longest_token_prefix([1, 2, 3], [1, 2, 4]) == 2


def test_results_are_json(llama: Make) -> None:
    for result in (
        llama("x").create_completion("a", logprobs=3),
        llama("x").create_chat_completion(USER, logprobs=True, top_logprobs=3),
    ):
        assert json.loads(json.dumps(result)) == result
