"""Every program in examples/ runs, with the demo model; the desktop window and Ray have tests of their own."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import llamacpu

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLES = REPOSITORY / "examples"
DEMO = REPOSITORY / "python" / "llamacpu" / "data" / "demo.gguf"


def run(name: str, *arguments: str, folder: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Start an example as its users do."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python"), "PYTHONUTF8": "1"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", cwd=folder, env=environment, check=False, timeout=100
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


def example(name: str) -> Any:
    """An example as a module."""
    found = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def test_every_example_has_a_test() -> None:
    tests = "".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    paths = list(EXAMPLES.glob("*.py"))
    assert paths
    for path in paths:
        assert f'"{path.name}"' in tests or f'example("{path.stem}")' in tests, f"nothing runs {path.name}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_its_first_line_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in text.split('"""')[1].split("\n\n")[0]


class TestAskFolder:
    @pytest.fixture
    def notes(self, tmp_path: Path) -> Path:
        folder = tmp_path / "notes"
        (folder / "deeper").mkdir(parents=True)
        (folder / "cats.txt").write_text("Cats sleep.\n\nThey also eat.\n", encoding="utf-8")
        (folder / "deeper" / "dogs.md").write_text("Dogs walk. " * 200, encoding="utf-8")
        (folder / "picture.png").write_bytes(b"\x89PNG")
        return folder

    def test_it_answers_and_names_its_sources(self, notes: Path, tmp_path: Path) -> None:
        for _ in range(2):  # the second time with the vectors that were kept
            done = run("ask_folder.py", "notes", "What sleeps?", "--characters", "400", folder=tmp_path)
            assert done.stdout.strip()
            assert done.stderr.startswith("Sources: ")
        assert (notes / ".passages.npz").exists()

    def test_passages_are_no_longer_than_asked_and_nothing_is_lost(self, notes: Path) -> None:
        passages = example("ask_folder").passages_of(notes, 400)
        assert {passage.source for passage in passages} == {"cats.txt", str(Path("deeper") / "dogs.md")}
        assert max(len(passage.text) for passage in passages) <= 400
        text = "".join(passage.text for passage in passages if "dogs" in passage.source)
        assert text.replace(" ", "") == "Dogswalk." * 200

    def test_the_vectors_follow_the_files(self, notes: Path) -> None:
        module = example("ask_folder")
        with llamacpu.Model(DEMO) as model:
            first = module.vectors_of(notes, module.passages_of(notes, 400), model)
            (notes / "cats.txt").write_text("Cows graze.", encoding="utf-8")
            passages = module.passages_of(notes, 400)
            second = module.vectors_of(notes, passages, model)
            assert len(first) == len(second) == len(passages)
            assert (first[0] != second[0]).any()
            scores = second @ model.embed(passages[0].text, normalize=True)
        assert module.closest(passages, scores, 1) == [passages[0]]

    def test_a_folder_without_texts_is_one_line(self, tmp_path: Path) -> None:
        assert run("ask_folder.py", ".", "?", folder=tmp_path, status=1).stderr.startswith("Error: no text in")


class TestExtractJson:
    def test_every_field_has_its_type(self, tmp_path: Path) -> None:
        pytest.importorskip("llguidance", reason="the extra [grammar] is not installed")
        module = example("extract_json")
        with llamacpu.Model(DEMO) as model:
            order = module.extract(model, module.Order, "Ada orders two lamps, express, by card.")
        assert isinstance(order, module.Order)
        assert isinstance(order.customer, str)
        assert all(isinstance(article, str) for article in order.articles)
        assert type(order.pieces) is int
        assert type(order.express) is bool
        assert order.payment in ("card", "invoice", "unknown")
        assert order.note is None or isinstance(order.note, str)

    def test_it_prints_json(self, tmp_path: Path) -> None:
        pytest.importorskip("llguidance", reason="the extra [grammar] is not installed")
        (tmp_path / "mail.txt").write_text("Ada orders two lamps.", encoding="utf-8")
        assert run("extract_json.py", "mail.txt", folder=tmp_path).stdout.startswith('{\n  "customer": ')

    def test_a_type_without_a_schema_is_said(self) -> None:
        with pytest.raises(TypeError, match="has no JSON schema here"):
            example("extract_json").schema_of(complex)


class TestToolAgent:
    def test_a_tool_is_called_and_the_conversation_goes_on(self, tmp_path: Path) -> None:
        pytest.importorskip("llguidance", reason="the extra [grammar] is not installed")
        done = run("tool_agent.py", "What is 12 * 34?", "--use-a-tool", folder=tmp_path)
        assert done.stdout.strip()
        assert done.stderr.startswith(("calculate({", "date_today({"))
        assert " -> " in done.stderr

    @pytest.mark.parametrize(
        ("expression", "value"), [("(2 + 3) * 4", "20"), ("-7 / 2", "-3.5"), ("1 - 2 - 3", "-4"), ("2", "2")]
    )
    def test_sums(self, expression: str, value: str) -> None:
        assert example("tool_agent").calculate(expression) == value

    @pytest.mark.parametrize("expression", ["__import__('os')", "2 ** 9", "x", "'a' * 9"])
    def test_nothing_else_is_computed(self, expression: str) -> None:
        with pytest.raises(ValueError, match="is no sum of numbers"):
            example("tool_agent").calculate(expression)


def test_fastapi_mount() -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    pytest.importorskip("prometheus_client", reason="the extra [server] is not installed")
    import asyncio

    import httpx

    with llamacpu.Model(DEMO) as model:
        api = example("fastapi_mount").application(model)

        async def ask() -> list[httpx.Response]:
            transport = httpx.ASGITransport(api)
            async with (
                api.router.lifespan_context(api),
                httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
            ):
                messages = [{"role": "user", "content": "Hello"}]
                return [
                    await client.post("/summary", json={"text": "A cat sat.", "max_tokens": 8}),
                    await client.post("/llm/v1/chat/completions", json={"messages": messages, "max_tokens": 8}),
                    await client.get("/llm/"),
                    await client.post("/summary", json={}),
                ]

        summary, chat, page, wrong = asyncio.run(ask())
    assert summary.json()["summary"]
    assert chat.json()["usage"]["completion_tokens"] > 0
    assert "<html" in page.text
    assert wrong.status_code == 422


class TestBatchCsv:
    @staticmethod
    def rows(path: Path) -> Sequence[dict[str, str]]:
        with path.open(encoding="utf-8", newline="") as lines:
            return list(csv.DictReader(lines))

    def test_every_row_once_also_after_a_stop(self, tmp_path: Path) -> None:
        (tmp_path / "in.csv").write_text('id,question\n1,Hello\n2,"What, now?"\n3,Grüße\n', encoding="utf-8")
        command = ("batch_csv.py", "in.csv", "out.csv", "--prompt", "{question}", "--max-tokens", "12")
        assert "3 of 3 rows" in run(*command, folder=tmp_path).stderr
        first = self.rows(tmp_path / "out.csv")
        assert [(row["id"], row["question"]) for row in first] == [("1", "Hello"), ("2", "What, now?"), ("3", "Grüße")]
        assert all(row["answer"] for row in first)
        lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / "out.csv").write_text("".join(lines[:2]), encoding="utf-8")
        run(*command, folder=tmp_path)
        second = self.rows(tmp_path / "out.csv")
        assert [row["id"] for row in second] == ["1", "2", "3"]
        assert second[0] == first[0]

    def test_a_column_that_is_not_there_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "in.csv").write_text("id\n1\n", encoding="utf-8")
        done = run("batch_csv.py", "in.csv", "out.csv", "--prompt", "{nosuch}", folder=tmp_path, status=1)
        assert done.stderr == "Error: the prompt speaks of a column 'nosuch'; in.csv has id\n"
        assert not (tmp_path / "out.csv").exists()


def test_training_data_are_records_of_facts_that_held_questions_ask_for_differently(tmp_path: Path) -> None:
    run("training_data.py", "facts.jsonl", "--facts", "10", "--held", "held.jsonl", folder=tmp_path)
    data, held = (
        [json.loads(line)["messages"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("facts.jsonl", "held.jsonl")
    )
    assert (len(data), len(held)) == (20, 10)
    questions = {question["content"] for question, _ in data}
    assert len(questions) == 20
    assert questions.isdisjoint(question["content"] for question, _ in held)
    assert {answer["content"] for _, answer in held} == {answer["content"] for _, answer in data}
