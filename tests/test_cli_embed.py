"""`llamacpu embed`: one vector a text, in the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from llamacpu.cli.group import command_line
from llamacpu.model import Model
from tiny_models import VARIANTS

TEXTS = ["once upon a time", "", "héllo ☺"]


def invoke(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(command_line, ["embed", *map(str, arguments)], input=stdin)


@pytest.fixture(scope="module")
def path(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("gqa")


@pytest.fixture(scope="module")
def expected(path: Path) -> Any:
    with Model(path, threads=1) as model:
        return model.embed(TEXTS, "mean")


def test_a_line_holds_the_numbers_of_a_vector(path: Path, expected: Any) -> None:
    result = invoke(path, *TEXTS)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    found = np.array([line.split(" ") for line in result.stdout.splitlines()], dtype=np.float32)
    assert np.array_equal(found, expected)


def test_a_document(path: Path, expected: Any) -> None:
    document = json.loads(invoke(path, *TEXTS, "--json", "--normalize", "--pooling", "mean").stdout)
    entries = document.pop("embeddings")
    assert document == {"model": str(path), "pooling": "mean", "normalized": True, "dimensions": expected.shape[1]}
    assert [(entry["index"], entry["truncated"]) for entry in entries] == [(0, False), (1, False), (2, False)]
    with Model(path, threads=1) as model:
        assert [entry["tokens"] for entry in entries] == [len(model.tokenizer.encode(text)) for text in TEXTS]
        unit = model.embed(TEXTS, "mean", normalize=True)
    assert np.array_equal(np.array([entry["embedding"] for entry in entries], dtype=np.float32), unit)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_stdin_are_texts(path: Path, expected: Any, end: str) -> None:
    stdin = "\ufeff" + end.join(TEXTS * 9) + end
    result = invoke(path, "--jsonl", stdin=stdin)
    assert result.exit_code == 0, result.output
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    assert [entry["index"] for entry in entries] == list(range(27))
    found = np.array([entry["embedding"] for entry in entries], dtype=np.float32)
    assert np.array_equal(found, np.concatenate([expected] * 9))
    assert invoke(path, "--json", stdin="").exit_code == 0


def test_without_pooling_an_empty_line_follows_every_text(path: Path) -> None:
    result = invoke(path, *TEXTS, "--pooling", "none")
    parts = [part.splitlines() for part in result.stdout.removesuffix("\n\n").split("\n\n")]
    with Model(path, threads=1) as model:
        for part, rows in zip(parts, model.embed(TEXTS, "none"), strict=True):
            assert np.array_equal(np.array([line.split(" ") for line in part], dtype=np.float32), rows)


def test_the_file_decides_the_pooling(tiny_model: Callable[..., Path]) -> None:
    file = tiny_model(replace(VARIANTS["mha"], extra={"pooling_type": 3}))
    assert invoke(file, "a").stdout == invoke(file, "a", "--pooling", "last").stdout
    assert invoke(file, "a").stdout != invoke(file, "a", "--pooling", "mean").stdout


def test_long_texts_are_cut_and_said_to_be(path: Path) -> None:
    result = invoke(path, "once upon a time there was", "--context", 4, "--json")
    entry = json.loads(result.stdout)["embeddings"][0]
    assert (entry["tokens"], entry["truncated"]) == (4, True)
    assert "Text 0 is cut from" in result.stderr
    refused = invoke(path, "once upon a time there was", "--context", 4, "--no-truncate")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: text 0 ")
    assert refused.stderr.count("\n") == 1


def test_wrong_usage_and_wrong_input(path: Path) -> None:
    assert invoke(path, "a", "--json", "--jsonl").exit_code == 2
    assert invoke(path, "a", "--pooling", "sum").exit_code == 2
    assert "no classifier" in invoke(path, "a", "--pooling", "rank").stderr
    assert invoke().exit_code == 2
    wrong = invoke(path, stdin=b"fine\n\xff\xfe\n")
    assert wrong.exit_code == 1
    assert "line 2 of stdin is not UTF-8" in wrong.stderr
