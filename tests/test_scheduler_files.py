"""Prefixes of an engine that outlive the process: saved sessions in a folder."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu import Engine, Model, Sampling
from llamacpu.generation import generate

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = Sampling(temperature=0)
SYSTEM = [1, *range(300, 500)]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(DEMO) as opened:
        yield opened


def alone(model: Model, prompt: list[int]) -> str:
    return generate(model, prompt, draft=None, sampling=GREEDY, max_tokens=20, ignore_end=True).read().text


def ask(engine: Engine, prompt: list[int]) -> Any:
    return engine.submit(prompt, sampling=GREEDY, max_tokens=20, ignore_end=True).read()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.session"))


def test_prefixes_outlive_the_engine(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    with Engine(model, prefix_cache_directory=folder) as engine:
        assert ask(engine, [*SYSTEM, 5]).result.cached_tokens == 0
    assert len(files(folder)) == 1
    assert files(folder)[0].stat().st_mode & 0o077 == 0
    with Engine(model, prefix_cache_directory=folder) as engine:
        for tail in ([5], [6, 7]):
            answer = ask(engine, [*SYSTEM, *tail])
            assert answer.result.cached_tokens == len(SYSTEM)
            assert answer.content == alone(model, [*SYSTEM, *tail])
        assert engine.statistics.prefix_disk_hits == 1
        assert ask(engine, [3, *SYSTEM]).result.cached_tokens == 0


def test_what_several_requests_begin_with_is_written_while_they_run(model: Model, tmp_path: Path) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, [*SYSTEM, 5])
        ask(engine, [*SYSTEM, 6])
        while not files(tmp_path):
            time.sleep(0.01)
        # As if the process were killed now.
        with Engine(model, prefix_cache_directory=tmp_path) as other:
            assert ask(other, [*SYSTEM, 9]).result.cached_tokens == len(SYSTEM)


def test_what_is_kept_is_written_in_a_quiet_moment(model: Model, tmp_path: Path) -> None:
    prompt = [1, *range(300, 700)]
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, prompt)
        while not files(tmp_path):
            time.sleep(0.01)
        while engine.statistics.prefix_disk_writes < 1:
            time.sleep(0.01)
        assert engine.statistics.prefix_disk_bytes == files(tmp_path)[0].stat().st_size


def test_a_longer_text_takes_the_place_of_its_beginning(model: Model, tmp_path: Path) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        first = ask(engine, SYSTEM)
    before = files(tmp_path)
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, [*SYSTEM, *first.result.tokens, 5, *range(100)])
    assert len(files(tmp_path)) == 1
    assert files(tmp_path) != before


def test_the_limit_of_bytes_holds(model: Model, tmp_path: Path) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, SYSTEM)
    size = files(tmp_path)[0].stat().st_size
    (tmp_path / "notes.txt").write_text("not ours")
    for number in range(5):
        with Engine(model, prefix_cache_directory=tmp_path, prefix_cache_disk_bytes=2 * size + 8000) as engine:
            ask(engine, [1, 600 + number, *SYSTEM[2:]])
        assert sum(path.stat().st_size for path in files(tmp_path)) <= 2 * size + 8000
    with Engine(model, prefix_cache_directory=tmp_path, prefix_cache_disk_bytes=2 * size + 8000) as engine:
        assert ask(engine, [1, 604, *SYSTEM[2:]]).result.cached_tokens == len(SYSTEM) - 1
        assert ask(engine, [1, 600, *SYSTEM[2:]]).result.cached_tokens == 1
    with Engine(model, prefix_cache_directory=tmp_path / "small", prefix_cache_disk_bytes=10) as engine:
        ask(engine, SYSTEM)
    assert files(tmp_path / "small") == []
    assert (tmp_path / "notes.txt").read_text() == "not ours"


@pytest.mark.parametrize("damage", ["cut", "flipped", "other", "empty", "renamed", "folder", "link", "pipe"])
def test_files_that_cannot_be_used_are_named_and_ignored(
    model: Model, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, SYSTEM)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(data[:-10])
    elif damage == "flipped":
        place = len(data) // 2
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    elif damage == "other":
        path.write_bytes(b"something else" * 1000)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "renamed":
        path = path.with_name(path.name[:20] + "0" * 20 + path.name[40:])
        path.write_bytes(data)
    elif damage == "folder":
        path.mkdir()
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(data)
        path.symlink_to(tmp_path / "elsewhere")
    elif hasattr(os, "mkfifo"):
        os.mkfifo(path)
    with caplog.at_level(logging.WARNING, "llamacpu"), Engine(model, prefix_cache_directory=tmp_path) as engine:
        answer = ask(engine, SYSTEM)
        assert answer.result.cached_tokens == 0
        assert answer.content == alone(model, SYSTEM)
    if damage in ("cut", "flipped", "other", "empty", "renamed"):
        assert "prefix cache" in caplog.text
        assert path.name in caplog.text
    assert path.exists()


def test_files_of_another_model_and_another_kind_of_numbers_are_left_alone(model: Model, tmp_path: Path) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, SYSTEM)
    with Engine(model, prefix_cache_directory=tmp_path, kv_type="q8_0") as engine:
        assert ask(engine, SYSTEM).result.cached_tokens == 0
    assert len(files(tmp_path)) == 2
    other = Model(DEMO, overrides={"llama.rope.freq_base": 20000.0})
    with other, Engine(other, prefix_cache_directory=tmp_path) as engine:
        assert ask(engine, SYSTEM).result.cached_tokens == 0
    assert len(files(tmp_path)) == 3


def test_a_file_that_is_deleted_meanwhile_is_computed_again(model: Model, tmp_path: Path) -> None:
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        ask(engine, SYSTEM)
    with Engine(model, prefix_cache_directory=tmp_path) as engine:
        while engine.state == "loading":
            time.sleep(0.001)
        files(tmp_path)[0].unlink()
        assert ask(engine, SYSTEM).result.cached_tokens == 0


def test_a_folder_that_cannot_be_written_is_an_error(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    before = threading.active_count()
    with pytest.raises(OSError, match="file"):
        Engine(model, prefix_cache_directory=tmp_path / "file")
    assert threading.active_count() == before
