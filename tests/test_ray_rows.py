"""Batches of prompts without a cluster: rows and their answers, parts of files, and the folder that they go to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
import vision_files
from llamacpu.ray.answering import COLUMNS, Answering
from llamacpu.ray.inputs import files_in, parts_of, read_part
from llamacpu.ray.parts import Folder
from llamacpu.ray.rows import RowEngine

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def engine() -> Iterator[RowEngine]:
    found = RowEngine(DEMO, Answering(max_tokens=8, sampling=GREEDY), threads=1, parallel=3)
    yield found
    found.close()


@given(st.lists(st.one_of(st.just(""), st.text("ab\r ", max_size=3), st.integers().map(str))), st.integers(1, 5))
def test_every_row_is_in_one_part(tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    rows = [json.dumps({"prompt": line}) if line.strip() else line for line in lines]
    path.write_bytes("\n".join(rows).encode())
    parts, _ = parts_of([path], size, [])
    assert [part.number for part in parts] == list(range(len(parts)))
    found = []
    for part in parts:
        read = read_part(part)[0]
        assert len(read) == part.count <= size
        assert part.first == len(found)
        found += read
    assert found == [{"prompt": line} for line in lines if line.strip()]


def test_a_line_that_is_no_object_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"prompt": "a"}\nnot json\n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"prompt": "b"}')
    parts, _ = parts_of([path], 10, [])
    rows = read_part(parts[0])[0]
    assert len(rows) == 6
    assert all(None in row for row in rows[1:5])


def test_inputs_that_cannot_be_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "error": 1}\n')
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    (tmp_path / "c.csv").write_text("prompt\n")
    with pytest.raises(ValueError, match=r"row 1 has a column error.*column_prefix"):
        parts_of([tmp_path / "a.jsonl"], 4, COLUMNS)
    parts_of([tmp_path / "a.jsonl"], 4, Answering(column_prefix="llm_").columns)
    with pytest.raises(ValueError, match="one format"):
        files_in(tmp_path)
    with pytest.raises(ValueError, match=r"expected a \.jsonl"):
        files_in(tmp_path / "c.csv")
    with pytest.raises(FileNotFoundError, match="check the path"):
        files_in(tmp_path / "d.jsonl")
    with pytest.raises(ValueError, match="address"):
        files_in("s3://bucket/a.jsonl")
    with pytest.raises(ValueError, match="twice"):
        files_in([tmp_path / "a.jsonl", tmp_path / "a.jsonl"])


def test_a_folder_goes_on_with_the_same_run_only(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text("".join(f'{{"prompt": "{number}"}}\n' for number in range(5)))
    parts, digest = parts_of([source], 2, COLUMNS)
    folder = Folder(tmp_path / "out", "jsonl")
    folder.begin({"sha256": digest})
    assert folder.missing(parts) == parts
    rows, table = read_part(parts[1])
    folder.write(parts[1], rows, table, [dict(COLUMNS) for _ in rows])
    assert [json.loads(line)["prompt"] for line in folder.file(parts[1]).read_text().splitlines()] == ["2", "3"]
    # What a killed run leaves behind is no part.
    (folder.path / ".part-00000.jsonl.x.part").write_text('{"prompt"')
    again = Folder(tmp_path / "out", "jsonl")
    again.begin({"sha256": digest})
    assert again.missing(parts) == [parts[0], parts[2]]
    assert not list(folder.path.glob(".*"))
    with pytest.raises(ValueError, match=r"another run, which differs in: sha256"):
        again.begin({"sha256": "other"})
    with pytest.raises(ValueError, match=r"not empty \(it has a\.jsonl\)"):
        Folder(tmp_path, "jsonl").begin({})


def test_a_part_that_cannot_be_written_is_not_there(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_text('{"prompt": "a"}\n')
    parts, _ = parts_of([source], 2, COLUMNS)
    folder = Folder(tmp_path / "out", "jsonl")
    folder.begin({})
    rows, table = read_part(parts[0])
    with pytest.raises(TypeError):
        folder.write(parts[0], rows, table, [{"answer": object()}])
    assert folder.missing(parts) == parts
    assert not list(folder.path.glob(".part*"))


def test_rows_are_answered_in_order_as_alone(engine: RowEngine) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"The cat number {number}"} for number in range(10)]
    rows.insert(4, {"messages": [{"role": "user", "content": "What can you do?"}]})
    answers = list(engine.answers(rows))
    alone = [next(engine.answers([row])) for row in rows]
    assert [answer["answer"] for answer in answers] == [answer["answer"] for answer in alone]
    assert all(answer["error"] is None and 0 < answer["completion_tokens"] <= 8 for answer in answers)
    assert answers[4]["answer"].startswith("I can")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({}, "the column prompt holds nothing"),
        ({"prompt": 3}, "the column prompt holds int"),
        ({"messages": []}, "no conversation"),
        ({"messages": "[{]"}, "no JSON"),
        ({"messages": [{"content": "a"}]}, "message 0 has no role"),
        ({"prompt": "a" * 100_000}, "ContextOverflow"),
        ({"prompt": "\ud800"}, ""),
    ],
)
def test_a_wrong_row_says_so_and_others_are_answered(engine: RowEngine, row: dict[str, Any], words: str) -> None:
    before, wrong, after = engine.answers([{"prompt": "The cat"}, row, {"prompt": "The cat"}])
    assert before["answer"] == after["answer"]
    assert before["error"] is None
    assert wrong["answer"] is None
    assert words in wrong["error"]
    assert set(wrong) == set(COLUMNS)


def test_rows_with_pictures(tmp_path: Path, engine: RowEngine) -> None:
    pytest.importorskip("PIL")
    [asked] = vision_files.asked("What is this?", vision_files.url())
    row = {"messages": [asked]}
    assert "the model sees none" in next(engine.answers([row]))["error"]
    mmproj = vision_files.write_mmproj(tmp_path / "mmproj.gguf")
    seeing = RowEngine(DEMO, Answering(max_tokens=4, sampling=GREEDY), threads=1, parallel=2, mmproj=mmproj)
    plain, shown, again = seeing.answers([{"messages": [{"role": "user", "content": "What is this?"}]}, row, row])
    seeing.close()
    assert shown["error"] is None
    assert shown["prompt_tokens"] > plain["prompt_tokens"] + vision_files.TOKENS
    assert again["answer"] == shown["answer"]


def test_messages_as_json_text_are_the_same(engine: RowEngine) -> None:
    messages = [{"role": "user", "content": "What can you do?", "name": None}]
    first, second = engine.answers([{"messages": messages}, {"messages": json.dumps(messages)}])
    assert first["answer"] == second["answer"] is not None


def test_an_engine_that_has_ended_is_no_error_of_a_row() -> None:
    rows = RowEngine(DEMO, Answering(max_tokens=4), threads=1)
    rows.close()
    with pytest.raises(llamacpu.LlamaCpuError, match="the engine has ended"):
        list(rows.answers([{"prompt": "a"}]))


def test_settings_are_checked_before_anything_runs() -> None:
    for wrong in ({"max_tokens": 0}, {"timeout": 0}, {"sampling": {"top_p": 7}}, {"stop": "a"}):
        with pytest.raises((ValueError, TypeError)):
            Answering(**wrong)  # type: ignore[arg-type]
    for wrong in (["prompt"], ["colour"], "max_tokens"):
        with pytest.raises(ValueError, match=r"row_settings is .*expected some of adaptive_decay"):
            Answering(row_settings=wrong)


def test_rows_with_settings_of_their_own() -> None:
    own = ("max_tokens", "temperature", "seed", "stop", "response_format", "logit_bias", "system")
    said = Answering(max_tokens=6, sampling=GREEDY, row_settings=own)
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [True]}}}
    rows: list[dict[str, Any]] = [
        {"prompt": "The cat"},
        {"prompt": "The cat", "max_tokens": 2.0, "temperature": float("nan")},
        {"prompt": "The cat", "response_format": form, "max_tokens": 9},
        {"prompt": "The cat", "response_format": json.dumps(form), "max_tokens": 9},
        {"prompt": "The cat", "temperature": -1.0, "seed": 7, "stop": None},
        {"prompt": "The cat", "max_tokens": 0},
        {"prompt": "The cat", "temperature": "hot"},
        {"prompt": "The cat", "response_format": "{"},
        {"prompt": "The cat", "max_tokens": 2.5},
    ]
    engine = RowEngine(DEMO, said, threads=1, parallel=4)
    common, short, schema, text, same, *wrong = engine.answers(rows)
    engine.close()
    assert (common["completion_tokens"], short["completion_tokens"]) == (6, 2)
    assert common["answer"].startswith(short["answer"])
    assert schema["answer"] == text["answer"] == "true"
    assert same["answer"] == common["answer"]
    assert [row["answer"] for row in wrong] == [None] * 4
    for row, words in zip(
        wrong, ("max_tokens is 0", "temperature is 'hot'", "response_format holds text", "2.5"), strict=True
    ):
        assert words in row["error"]
    assert said.for_row({"stop": "a"}).stop == ("a",)
    assert said.for_row({"stop": '["a", "b"]'}).stop == ("a", "b")
    assert said.for_row({"logit_bias": '{"3": -1}'}).sampling["logit_bias"] == {3: -1}
    assert said.for_row({"timeout": 3, "other": 1}) is said


def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    first, second = Folder(tmp_path / "out", "jsonl"), Folder(tmp_path / "out", "jsonl")
    with first.locked():
        first.begin({"a": 1})
        with pytest.raises(ValueError, match=r"another run writes its answers into .*out now; wait"), second.locked():
            pass
    with second.locked():
        second.begin({"a": 1})
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["_llamacpu_answers"]
