"""States and caches of `Llama` over real sessions: in memory, pickled and on disk."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu.engine import saved_sessions
from llamacpu.errors import ContextOverflow, SessionError
from llamacpu.llama import Llama
from llamacpu.llama.caches import BaseLlamaCache, LlamaDiskCache, LlamaRAMCache
from llamacpu.llama.state import LlamaState

GREEDY: dict[str, Any] = {"temperature": 0.0}
TEXT = "once upon a time there was"


@pytest.fixture
def llama(tiny_model: Callable[..., Path]) -> Iterator[Llama]:
    with Llama(tiny_model("gqa"), n_ctx=128) as found:
        yield found


def state_of(llama: Llama, tokens: list[int]) -> LlamaState:
    llama.reset()
    llama.eval(tokens)
    return llama.save_state()


# --- States ---


def test_a_pickled_state_has_its_keys_and_values(llama: Llama, monkeypatch: pytest.MonkeyPatch) -> None:
    llama.eval([5, 6, 7])
    state = pickle.loads(pickle.dumps(llama.save_state()))
    assert state.session is None
    assert state.llama_state_size > len(state.llama_state) > 0
    expected = llama.eval([8]).copy()
    llama.reset()
    llama.load_state(state)
    assert (llama.n_tokens, list(llama.input_ids)) == (3, [5, 6, 7])
    assert np.array_equal(llama.scores, state.scores)
    assert np.array_equal(llama.eval([8]), expected)


def test_a_state_of_another_model_is_refused(llama: Llama, tiny_model: Callable[..., Path]) -> None:
    state = state_of(llama, [5, 6])
    with Llama(tiny_model("gqa", seed=1), n_ctx=128) as other:
        for one in (state, pickle.loads(pickle.dumps(state))):
            with pytest.raises(SessionError, match="another model"):
                other.load_state(one)
    with Llama(llama.model_path, n_ctx=64) as same:
        same.load_state(state)
        assert (same.n_tokens, same.n_ctx()) == (2, 64)
        with pytest.raises(ContextOverflow):
            same.load_state(state_of(llama, [1] * 65))


# --- Caches ---


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> BaseLlamaCache:
    return LlamaRAMCache() if request.param == "memory" else LlamaDiskCache(tmp_path / "cache")


def test_the_longest_common_beginning_is_found(llama: Llama, cache: BaseLlamaCache) -> None:
    with pytest.raises(KeyError):
        cache[[1, 2]]
    for tokens in ([1, 2], [1, 2, 3, 4], [1, 2, 9, 9, 9], [7]):
        cache[tokens] = state_of(llama, tokens)
    assert list(cache[[1, 2, 3, 5]].input_ids) == [1, 2, 3, 4]
    assert list(cache[[1, 2, 9, 8]].input_ids) == [1, 2, 9, 9, 9]
    assert [7, 7] in cache
    assert [8] not in cache
    found = cache.best_for(llama.model, [1, 2, 3, 4, 5], 3)
    assert found is not None
    assert list(found.input_ids) == [1, 2, 3, 4]
    assert cache.best_for(llama.model, [1, 2, 3, 4, 5], 4) is None
    expected = state_of(llama, [1, 2, 3, 4]).scores
    assert np.array_equal(found.scores, expected)


def test_completions_begin_from_the_cache(llama: Llama, cache: BaseLlamaCache) -> None:
    expected = llama(TEXT, max_tokens=4, **GREEDY)["choices"][0]["text"]
    llama.reset()
    llama.set_cache(cache)
    llama(TEXT, max_tokens=4, **GREEDY)
    assert cache.cache_size > 0
    llama.reset()
    assert llama(TEXT, max_tokens=4, **GREEDY)["choices"][0]["text"] == expected
    assert llama.last_result is not None
    assert llama.last_result.cached_tokens == llama.last_result.prompt_tokens - 1


def test_states_of_other_models_are_passed_by(
    llama: Llama, cache: BaseLlamaCache, tiny_model: Callable[..., Path]
) -> None:
    with Llama(tiny_model("gqa", seed=1), n_ctx=128) as other:
        other.set_cache(cache)
        other(TEXT, max_tokens=4, **GREEDY)
        llama.set_cache(cache)
        llama(TEXT, max_tokens=4, **GREEDY)
        assert llama.last_result is not None
        assert llama.last_result.cached_tokens == 0


def test_a_cache_of_ones_own_is_enough(llama: Llama) -> None:
    class Own(BaseLlamaCache):
        kept: LlamaState | None = None

        def __getitem__(self, key: Any) -> LlamaState:
            if self.kept is None:
                raise KeyError(key)
            return self.kept

        def __setitem__(self, key: Any, value: LlamaState) -> None:
            self.kept = value

    llama.set_cache(Own())
    for cached in (0, 1):
        llama.reset()
        llama(TEXT, max_tokens=4, **GREEDY)
        assert llama.last_result is not None
        assert (llama.last_result.cached_tokens > 0) == bool(cached)


def test_the_state_used_longest_ago_goes_first(llama: Llama, tmp_path: Path) -> None:
    cache = LlamaDiskCache(tmp_path)
    for age, tokens in enumerate(([1, 1], [2, 2], [3, 3])):
        cache[tokens] = state_of(llama, tokens)
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10 * (3 - age)))
    assert list(cache[[1, 1]].input_ids) == [1, 1]
    cache.capacity_bytes = cache.cache_size
    cache[[4, 4]] = state_of(llama, [4, 4])
    assert [[tokens, tokens] in cache for tokens in (1, 2, 3, 4)] == [True, False, True, True]
    assert cache.cache_size <= cache.capacity_bytes
    cache.capacity_bytes = 10
    cache[[5, 5]] = state_of(llama, [5, 5])
    assert cache.cache_size == 0
    assert list(tmp_path.iterdir()) == []


def test_another_process_finds_the_files(llama: Llama, tmp_path: Path) -> None:
    first, second = LlamaDiskCache(tmp_path), LlamaDiskCache(tmp_path)
    first[[1, 2]] = state_of(llama, [1, 2])
    assert list(second[[1, 2]].input_ids) == [1, 2]
    for path in tmp_path.iterdir():
        path.unlink()
    assert [1, 2] not in first
    with pytest.raises(KeyError):
        second[[1, 2]]


@pytest.mark.parametrize("damage", ["header", "tokens", "pages", "empty", "folder", "foreign", "note"])
def test_damaged_files_are_forgotten(
    llama: Llama, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = LlamaDiskCache(tmp_path)
    llama.set_cache(cache)
    expected = llama(TEXT, max_tokens=4, **GREEDY)["choices"][0]["text"]
    [path] = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "folder":
        path.unlink()
        path.mkdir()
    elif damage == "foreign":
        path.write_bytes(pickle.dumps(["anything"]))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "note":
        llama.session.save(path)
    else:
        data[{"header": 20, "tokens": 99, "pages": len(data) - 99}[damage]] ^= 1
        path.write_bytes(data)
    cache = LlamaDiskCache(tmp_path)
    llama.reset()
    llama.set_cache(cache)
    with caplog.at_level(logging.WARNING, logger="llamacpu"):
        assert llama(TEXT, max_tokens=4, **GREEDY)["choices"][0]["text"] == expected
    assert llama.last_result is not None
    assert llama.last_result.cached_tokens == 0
    assert damage == "tokens" or "cache cannot be used" in caplog.text


def test_a_disk_that_is_full_does_not_stop_an_answer(
    llama: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_sessions, "save", fail)
    llama.set_cache(LlamaDiskCache(tmp_path))
    for _ in range(2):
        assert llama(TEXT, max_tokens=4, **GREEDY)["choices"][0]["text"]
    assert "No space" in caplog.text


def test_a_state_without_a_session_cannot_go_to_disk(llama: Llama, tmp_path: Path) -> None:
    state = pickle.loads(pickle.dumps(state_of(llama, [1])))
    with pytest.raises(ValueError, match="no session"):
        LlamaDiskCache(tmp_path)[[1]] = state
