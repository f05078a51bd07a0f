"""The chat window of examples/, used like a person uses it, on a screen of its own (Xvfb)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from tiny_models import Shape

DRIVER = Path(__file__).with_name("desktop_driver.py")
SOURCE = Path(llamacpu.__file__).parents[1]
ENDLESS = Shape(context=1_000_000)


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """The name of a screen that nobody sees."""
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no tkinter")
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("there is no Xvfb to open a window on")
    process = subprocess.Popen(
        [server, "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        number = process.stdout.readline().strip()
        assert number.isdigit(), "Xvfb did not start"
        yield f":{number}"
        process.terminate()


def use(display: str, scene: str, model: object, *more: object) -> dict[str, Any]:
    """What a person sees in a scene of the driver."""
    paths = os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(DRIVER), scene, str(model), *map(str, more)],
        env={**os.environ, "PYTHONPATH": paths, "DISPLAY": display},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_conversation_streams_into_the_window(display: str) -> None:
    demo = Path(str(resources.files("llamacpu"))) / "data" / "demo.gguf"
    seen = use(display, "talk", demo)
    assert seen["roles"] == ["user", "assistant"] * 2
    assert all(answer and answer in seen["page"] for answer in seen["answers"])
    assert seen["page"].index("What can you do") < seen["page"].index("Tell me a short story")
    assert "Error" not in seen["page"]
    assert "tokens/s" in seen["status"]
    # The text grew while the window was looked at: it did not come as a whole.
    assert seen["stages"] > 4


def test_the_stop_button_ends_an_answer(display: str, tiny_model: Callable[..., Path]) -> None:
    seen = use(display, "stop", tiny_model(ENDLESS))
    assert "Stopped." in seen["page"]
    assert seen["roles"] == ["user", "assistant"]
    # The window did other things while the model was at work.
    assert seen["beats_in_answer"] > 0


def test_escape_ends_a_long_prompt(display: str, tiny_model: Callable[..., Path]) -> None:
    seen = use(display, "long", tiny_model(ENDLESS))
    done, total = (int(word) for word in seen["progress"].split() if word.isdigit())
    assert done < total
    # A message without an answer is forgotten, and the next one is answered.
    assert seen["roles_after"] == []
    assert seen["roles"] == ["user"]


def test_closing_the_window_in_the_middle_of_an_answer(display: str, tiny_model: Callable[..., Path]) -> None:
    assert use(display, "close", tiny_model(ENDLESS))["engine_alive"] is False


def test_closing_the_window_while_the_model_is_loaded(display: str, tiny_model: Callable[..., Path]) -> None:
    assert use(display, "early", tiny_model(ENDLESS))["engine_alive"] is False


def test_errors_are_shown_in_the_window(display: str, tmp_path: Path) -> None:
    page = use(display, "missing", tmp_path / "nothing.gguf")["page"]
    assert page.startswith("Error\n")
    assert "nothing.gguf" in page


def test_without_a_screen_it_says_so() -> None:
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    if sys.platform != "linux":
        pytest.skip("only X servers can be absent")
    example = DRIVER.parent.parent / "examples" / "desktop_chat.py"
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, str(example)],
        env={**environment, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no window can be opened")
