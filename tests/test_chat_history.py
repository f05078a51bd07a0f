"""The file of what was typed in conversations."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamacpu.cli.chat import history

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(text, max_size=5))
def test_what_is_typed_comes_back_line_ends_and_all(tmp_path: Path, typed: list[str]) -> None:
    place = tmp_path / "state" / "history.jsonl"
    place.unlink(missing_ok=True)
    for entry in typed:
        history.append(place, entry)
    assert history.read(place) == typed


def test_lone_surrogates_and_lines_of_other_kinds_are_harmless(tmp_path: Path) -> None:
    place = tmp_path / "history.jsonl"
    place.write_bytes(b'"\\ud800"\n{"a": 1}\n\n"good"\n\xff\n' + b"9" * 5000 + b"\n" + b"[" * 200_000)
    assert history.read(place) == ["?", "good"]
    history.append(place, "after a line without an end")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    place = tmp_path / "state" / "llamacpu" / "history.jsonl"
    history.append(place, "secret")
    assert place.stat().st_mode & 0o777 == 0o600
    place.chmod(0o644)
    history.append(place, "more")
    assert place.stat().st_mode & 0o777 == 0o600
    place.write_text('"old"\n' * 300_000)
    assert len(history.read(place)) == 1000
    assert place.stat().st_size == 6000
    assert place.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in place.parent.iterdir()] == ["history.jsonl"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no named pipes of this kind")
def test_pipes_and_folders_in_its_place_are_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path):
        with pytest.raises(OSError, match=r"\S"):
            history.read(place)
        with pytest.raises(OSError, match=r"\S"):
            history.append(place, "x")
    assert history.read(tmp_path / "nosuch" / "file") == []


def test_a_text_without_measure_is_not_kept(tmp_path: Path) -> None:
    history.append(tmp_path / "history.jsonl", "x" * (1 << 17))
    assert not (tmp_path / "history.jsonl").exists()
    history.append(tmp_path / "history.jsonl", "é" * 100)
    assert json.loads((tmp_path / "history.jsonl").read_text()) == "é" * 100
