"""Training data: what is read, what is refused and in which words, and how samples are packed and divided."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from character_tokenizer import CharacterTokenizer, character_chat
from llamacpu.errors import TrainingError
from llamacpu.tools.train.order import permutation
from llamacpu.tools.train.packing import pack, packed_rows
from llamacpu.tools.train.prepared import prepare
from llamacpu.tools.train.records import Record, read_records
from llamacpu.tools.train.samples import Sample
from llamacpu.tools.train.settings import TrainingSettings

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello ☺"}]
CHATML = CharacterTokenizer(["<|im_start|>"], ["<|im_end|>"])


def test_every_kind_of_record(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"messages": TALK},
        {"prompt": "2+2=", "completion": "4"},
        {"text": "Once"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello ☺"}]},
        {"instruction": "Add", "input": "2 2", "output": "4"},
        {"prompt": TALK[:1], "completion": TALK[1:]},
        {"messages": TALK, "tools": [{"name": "f"}], "chat_template_kwargs": {"enable_thinking": False}},
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\n\n".join(json.dumps(line) for line in lines).encode() + b"\r\n")
    found = list(read_records(path))
    assert [record.place for record in found] == [f"a.jsonl, line {number}" for number in range(1, 14, 2)]
    assert found[0].messages == found[3].messages == TALK
    assert found[1][4:6] == ("2+2=", "4")
    assert found[2].text == "Once"
    assert found[4][4:6] == ("Add\n\n2 2", "4")
    assert [message["content"] for message in found[5].messages or []] == ["Hi", "Hello ☺"]
    assert found[6].tools == [{"name": "f"}]
    assert found[6].variables == {"enable_thinking": False}
    (tmp_path / "b.json").write_text(json.dumps(lines))
    assert [record[1:] for record in read_records(tmp_path / "b.json")] == [record[1:] for record in found]
    assert [record[1:] for record in read_records(lines)] == [record[1:] for record in found]


def test_a_text_file_is_one_text_and_files_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("One\r\ntwo ☺".encode())
    (tmp_path / "b.md").write_text("")
    (tmp_path / "c.ndjson").write_text('{"text": "three"}')
    found = list(read_records([tmp_path / "a.txt", tmp_path / "b.md", tmp_path / "c.ndjson", {"text": "four"}]))
    assert [record.text for record in found] == ["One\ntwo ☺", "three", "four"]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra [train] is not installed")
    from pyarrow import parquet

    rows = [{"messages": TALK}, {"messages": [*TALK, {"role": "assistant", "content": "x", "weight": 0}]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [record.messages for record in read_records(tmp_path / "a.parquet")] == [row["messages"] for row in rows]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TrainingError, match="not a readable Parquet file"):
        list(read_records(tmp_path / "b.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ImportError, match=r"a\.parquet.*pip install 'llamacpu\[train\]'"):
        list(read_records(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"text": "a"', "column 13"),
        (b'{"text": "\xff"}', r"not UTF-8 \(byte 10\)"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'"text"', "this is a str"),
        (b"{}", "the keys are none"),
        (b'{"txt": "a"}', "the keys are 'txt'"),
        (b'{"text": "a", "prompt": "b"}', "it has 'prompt' and 'text'"),
        (b'{"text": 5}', "'text' is a int"),
        (b'{"text": " "}', "'text' is empty"),
        (b'{"prompt": "a"}', "'completion' is missing"),
        (b'{"prompt": [], "completion": "a"}', "expected 'completion' to be one"),
        (b'{"messages": []}', "'messages' is empty"),
        (b'{"messages": "a"}', "'messages' is a str"),
        (b'{"messages": ["a"]}', "message 1: this is a str"),
        (b'{"messages": [{"role": "bot", "content": "a"}]}', "message 1: the role is 'bot'"),
        (b'{"messages": [{"role": "user", "content": "a"}]}', "no message has the role 'assistant'"),
        (b'{"messages": [{"role": "user"}]}', "message 1: it has no 'content'"),
        (b'{"messages": [{"role": "assistant", "content": ""}]}', "message 1: the answer is empty"),
        (b'{"messages": [{"role": "assistant", "content": "a", "weight": 0}]}', "every answer has the weight 0"),
        (b'{"messages": [{"role": "assistant", "content": "a"}], "tools": 1}', "'tools' is a int"),
        (b'{"messages": [{"role": "assistant", "content": "a"}], "tools": "[1"}', "'tools': not valid JSON"),
        (b'{"conversations": [{"from": "cat", "value": "a"}]}', "message 1: 'from' is 'cat'"),
        (b'{"messages": [{"role": "assistant", "content": {"type": "image"}}]}', "the chat template refuses it"),
    ],
)
def test_what_is_no_record_is_told_by_its_line(tmp_path: Path, line: bytes, told: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n' + line + b"\n")
    with pytest.raises(TrainingError, match=rf"^a\.jsonl, line 2.*{told}"):
        prepare(character_chat("chatml", CHATML), path, TrainingSettings())


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the suffix '\.docx'.*\.jsonl"):
        list(read_records(tmp_path / "a.docx"))
    with pytest.raises(FileNotFoundError):
        list(read_records(tmp_path / "a.jsonl"))


def sample(length: int, counted: int = 1) -> Sample:
    ids = np.arange(length, dtype=np.int32)
    return Sample(ids, np.where(ids >= length - counted, ids + 1, -1).astype(np.int32), "")


@given(st.lists(st.integers(1, 64), max_size=60), st.integers(64, 96), st.integers(0, 3))
def test_every_sample_is_in_one_row_and_no_row_is_too_long(lengths: list[int], capacity: int, seed: int) -> None:
    rows = pack(lengths, capacity, seed)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    used = [sum(lengths[index] for index in row) for row in rows]
    assert all(0 < length <= capacity for length in used)
    assert rows == pack(lengths, capacity, seed)
    # Best fit leaves at most one row half empty.
    assert sum(length <= capacity // 2 for length in used) <= 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=30))
def test_rows_hold_the_samples_and_their_borders(lengths: list[int]) -> None:
    samples = [sample(length) for length in lengths]
    rows = packed_rows(samples, 32, 0)
    found = []
    for row in rows:
        assert [array.dtype for array in row] == [np.int32] * 3
        assert row.segments[0] == 0
        assert row.segments[-1] == len(row.tokens) == len(row.targets)
        for start, end in zip(row.segments, row.segments[1:], strict=False):
            found.append((row.tokens[start:end].tolist(), row.targets[start:end].tolist()))
    assert sorted(found) == sorted((each.tokens.tolist(), each.targets.tolist()) for each in samples)
    assert sum(row.counted for row in rows) == len(samples)


def test_orders_are_the_same_everywhere() -> None:
    assert permutation(0, "rows", 0, 8).tolist() == [3, 4, 1, 6, 7, 2, 0, 5]
    assert sorted(permutation(5, "rows", 1, 1000).tolist()) == list(range(1000))
    others = {tuple(permutation(*what, 30).tolist()) for what in ((0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1))}
    assert len(others) == 4


@pytest.mark.parametrize(
    ("validation", "count", "held"), [(None, 199, 0), (None, 200, 10), (0.1, 50, 5), (7, 50, 7), (0, 500, 0)]
)
def test_a_share_of_the_records_is_kept_for_validation(validation: float | None, count: int, held: int) -> None:
    records = [{"text": f"text {number}"} for number in range(count)]
    chat = character_chat("chatml", CHATML)
    ready = prepare(chat, records, TrainingSettings(validation=validation))
    assert (ready.samples, ready.validation_samples) == (count - held, held)
    shown = {
        CHATML.decode(row.tokens[start:end])
        for rows in (ready.rows, ready.validation)
        for row in rows
        for start, end in zip(row.segments, row.segments[1:], strict=False)
    }
    assert shown == {record["text"] for record in records}
    again = prepare(chat, records, TrainingSettings(validation=validation))
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(ready.validation, again.validation, strict=True))


def test_a_file_for_validation(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text('{"text": "abc"}\n')
    ready = prepare(
        character_chat("chatml", CHATML), [{"text": "def"}], TrainingSettings(validation=tmp_path / "held.jsonl")
    )
    assert (ready.samples, ready.validation_samples) == (1, 1)


def test_nothing_to_learn_is_an_error() -> None:
    chat = character_chat("chatml", CHATML)
    with pytest.raises(TrainingError, match="nothing to learn"):
        prepare(chat, [], TrainingSettings())
    with pytest.raises(TrainingError, match="1 samples are longer than 8 tokens"):
        prepare(chat, [{"messages": TALK}], TrainingSettings(length=8))
    with pytest.raises(TrainingError, match="takes 1 of 1 records"):
        prepare(chat, [{"text": "abc"}], TrainingSettings(validation=1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"rank": 1.5},
        {"alpha": 0},
        {"learning_rate": float("nan")},
        {"beta1": 1.0},
        {"dropout": 0.1},
        {"epochs": 1, "steps": 1},
        {"schedule": "step"},
        {"validation": 1.5},
        {"validation": -0.1},
        {"matrices": []},
        {"seed": -1},
        {"length": 1},
        {"raw": "no"},
    ],
    ids=str,
)
def test_settings_that_are_not_possible_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        TrainingSettings(**wrong)


def test_a_record_is_no_file() -> None:
    assert Record("x", text="a").messages is None
    with pytest.raises(TypeError, match="record 1 is a int"):
        list(read_records([1]))  # type: ignore[list-item]
