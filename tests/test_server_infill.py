"""Filling in the middle over HTTP, with a file whose vocabulary has the tokens for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.text.infill import infill_prompt

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
TOKENS = {"pre": 2000, "suf": 2001, "mid": 2002}
OF_FILES = {"rep": 2003, "sep": 2004}
EXTRA = [{"filename": "a.py", "text": "import os\n"}, {"text": "x = 1"}]
FILES = [("a.py", "import os\n"), ("file2", "x = 1")]


def filling(**tokens: int) -> llamacpu.Model:
    return llamacpu.Model(DEMO, overrides={f"tokenizer.ggml.fim_{name}_token_id": id for name, id in tokens.items()})


@pytest.fixture(scope="module")
def model() -> Iterator[llamacpu.Model]:
    with filling(**TOKENS, **OF_FILES) as found:
        yield found


@pytest.fixture(scope="module")
def url(model: llamacpu.Model) -> Iterator[str]:
    with llamacpu.serve({"fim": model, "plain": DEMO}) as found:
        yield found


def expected(model: llamacpu.Model, ids: list[int]) -> str:
    return model.generate(ids, max_tokens=12, sampling=llamacpu.Sampling(temperature=0)).read().text


def infill(url: str, **body: Any) -> Any:
    return httpx.post(f"{url}/infill", json={"model": "fim", "n_predict": 12, "temperature": 0, **body}, timeout=60)


@pytest.mark.parametrize("files", [(), FILES])
def test_what_belongs_between_is_written(url: str, model: llamacpu.Model, files: Any) -> None:
    ids = infill_prompt(model.tokenizer, "def one():\n    return ", "\n", files=files)
    body = {"input_prefix": "def one():\n", "prompt": "    return ", "input_suffix": "\n"}
    body |= {"input_extra": EXTRA} if files else {}
    found = infill(url, **body).json()
    assert found["content"] == expected(model, ids)
    assert found["tokens_evaluated"] == len(ids)
    streamed = infill(url, **body, stream=True)
    pieces = [json.loads(line[6:]) for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert "".join(piece["content"] for piece in pieces) == found["content"]
    assert pieces[-1]["stop"]


def test_the_prompt_is_made_of_the_tokens(model: llamacpu.Model) -> None:
    tokenizer = model.tokenizer

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special=False)

    start = [tokenizer.bos]
    assert infill_prompt(tokenizer, "a", "b") == [*start, 2000, *ids("a"), 2001, *ids("b"), 2002]
    assert infill_prompt(tokenizer, "a", "b", True) == [*start, 2000, 2001, *ids("b"), 2002, *ids("a")]
    others = [2003, *ids("project\n"), 2004, *ids("a.py\n"), *ids("import os\n"), 2004, *ids("file2\n"), *ids("x = 1")]
    assert infill_prompt(tokenizer, "a", "", files=FILES) == [
        *start, *others, 2004, *ids("file\n"), 2000, *ids("a"), 2001, 2002,
    ]  # fmt: skip
    with filling(**TOKENS) as plain:
        assert infill_prompt(plain.tokenizer, "a", "", files=FILES) == [
            *start, *ids("import os\n\n"), *ids("x = 1\n"), 2000, *ids("a"), 2001, 2002,
        ]  # fmt: skip


def test_other_apis_fill_in_too(url: str, model: llamacpu.Model) -> None:
    text = expected(model, infill_prompt(model.tokenizer, "one ", " three"))
    body = {"model": "fim", "prompt": "one ", "suffix": " three", "max_tokens": 12, "temperature": 0}
    found = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
    assert found["choices"][0]["text"] == text
    body = {"model": "fim", "prompt": "one ", "suffix": " three", "stream": False}
    body["options"] = {"num_predict": 12, "temperature": 0}
    assert httpx.post(f"{url}/api/generate", json=body, timeout=60).json()["response"] == text
    assert "insert" in httpx.post(f"{url}/api/show", json={"model": "fim"}, timeout=60).json()["capabilities"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"model": "plain", "input_prefix": "a"}, "not trained"),
        ({"input_extra": [{"filename": "a"}] * 101}, "input_extra"),
        ({"input_extra": [{"text": 1}]}, "input_extra"),
        ({"input_prefix": ["a"]}, "input_prefix"),
        ({"input_suffix": "a " * 5000}, "context"),
    ],
)
def test_what_cannot_be_filled_in_is_told(url: str, body: dict[str, Any], word: str) -> None:
    found = infill(url, **body)
    assert found.status_code == 400
    assert word in found.json()["error"]["message"]
