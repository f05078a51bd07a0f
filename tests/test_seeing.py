"""A model that sees says what is in a picture: from the command line, in Python, from the server and in the window."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from drawings import COLORS, SHAPES, Drawing
from llamacpu.cli.group import command_line
from llamacpu.model import Model
from test_desktop import display, use

__all__ = ["display"]

pytest.importorskip("PIL")
SEEING = Path(__file__).parent / "seeing" / "seeing.gguf"
GREEDY = llamacpu.Sampling(temperature=0)
STAR = Drawing("star", "yellow", "blue")
CIRCLE = Drawing("circle", "red", "white")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(SEEING) as model:
        yield model


def asked(drawing: Drawing, text: str) -> list[Any]:
    return [{"role": "user", "content": [{"type": "image", "image": drawing.png()}, {"type": "text", "text": text}]}]


def said(model: Model, messages: list[Any]) -> str:
    return str(model.chat(messages, sampling=GREEDY, max_tokens=24).content)


def test_drawings_are_described(model: Model) -> None:
    random = np.random.default_rng(7)
    drawings = [Drawing.by_chance(random) for _ in range(30)]
    right = [said(model, asked(drawing, "What is this?")) == drawing.sentence for drawing in drawings]
    assert sum(right) >= 27


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_colors_are_told_apart(model: Model, shape: str) -> None:
    names = list(COLORS)
    for color, background in zip(names, names[1:] + names[:1], strict=True):
        drawing = Drawing(shape, color, background)
        messages = asked(drawing, "What color is it?")
        assert said(model, messages) == f"It is {color}."
        messages += [{"role": "assistant", "content": f"It is {color}."}]
        messages += [{"role": "user", "content": "What color is the background?"}]
        assert said(model, messages) == f"It is {background}."


def test_the_command_line_says_what_it_sees(tmp_path: Path) -> None:
    path = tmp_path / "star.png"
    path.write_bytes(STAR.png())
    arguments = ["run", str(SEEING), "--image", str(path), "-p", "What is this?", "--temperature", "0"]
    found = CliRunner().invoke(command_line, arguments)
    assert found.stdout.strip() == STAR.sentence
    assert "9 tokens" in CliRunner().invoke(command_line, ["info", str(SEEING), "--image", str(path)]).stdout


def test_the_server_says_what_it_sees_and_looks_once() -> None:
    httpx = pytest.importorskip("httpx")
    pytest.importorskip("starlette", reason="the extra [server] is not installed")
    url = {"url": f"data:image/png;base64,{base64.b64encode(CIRCLE.png()).decode()}"}
    messages: list[Any] = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
    messages[0]["content"].append({"type": "text", "text": "What is this?"})
    with llamacpu.serve(SEEING) as address:
        counts = []
        for answer, question in ((CIRCLE.sentence, "What shape is it?"), ("It is a circle.", "")):
            body = {"messages": messages, "temperature": 0, "max_tokens": 24}
            found = httpx.post(f"{address}/v1/chat/completions", content=json.dumps(body), timeout=60).json()
            assert found["choices"][0]["message"]["content"] == answer
            counts.append(found["usage"])
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": question}]
    # The second question computes nothing of what the first one did.
    assert counts[1]["prompt_tokens_details"]["cached_tokens"] >= counts[0]["prompt_tokens"]


def test_the_window_says_what_it_sees(display: str, tmp_path: Path) -> None:
    (tmp_path / "circle.png").write_bytes(CIRCLE.png())
    seen = use(display, "drawing", SEEING, tmp_path / "window.png", tmp_path / "circle.png")
    assert CIRCLE.sentence in seen["page"]
    assert "It is white." in seen["page"]
    assert (tmp_path / "window.png").stat().st_size > 4000
