"""The chat window, and the small one of examples/, used like a person uses it, on a screen of its own (Xvfb)."""

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


def test_an_image_goes_with_a_message_and_is_shown(display: str, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    import vision_files

    demo = Path(str(resources.files("llamacpu"))) / "data" / "demo.gguf"
    model = tmp_path / "demo.gguf"
    model.write_bytes(demo.read_bytes())
    vision_files.write_mmproj(tmp_path / "demo-mmproj.gguf")
    (tmp_path / "a.png").write_bytes(vision_files.png((40, 60)))
    seen = use(display, "image", model, tmp_path / "a.png")
    assert seen["roles"] == ["user", "assistant"]
    assert seen["kinds"] == ["image", "text"]
    assert seen["images"] == 1
    assert "is not an image" in seen["told"]
    assert "With the message: a.png." in seen["told"]
    assert "Error" not in seen["page"]


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


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `llamacpu window` where there is no screen."""
    plain = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "PYTHONPATH")}
    paths = os.pathsep.join(filter(None, [environment.pop("first", ""), str(SOURCE)]))
    return subprocess.run(
        [sys.executable, "-m", "llamacpu", "window", *arguments],
        env={**plain, "PYTHONPATH": paths, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_without_a_screen_it_says_so() -> None:
    pytest.importorskip("tkinter", reason="this Python has no tkinter")
    if sys.platform != "linux":
        pytest.skip("only X servers can be absent")
    done = command()
    assert done.returncode == 1
    assert done.stderr.startswith("Error: no window can be opened")
    assert done.stderr.count("\n") == 1


def test_without_tk_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tkinter.py").write_text("raise ModuleNotFoundError(\"No module named '_tkinter'\")\n", "utf-8")
    done = command(first=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("Error: a window needs tkinter")
    assert "apt install python3-tk" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_that_is_not_there_is_said_before_a_window_opens(display: str, tmp_path: Path) -> None:
    done = command(str(tmp_path / "missing.gguf"), DISPLAY=display)
    assert done.returncode == 1
    assert "missing.gguf" in done.stderr


CHILD = """
import importlib.util, sys, time, tkinter
import llamacpu
spec = importlib.util.spec_from_file_location("desktop_chat", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["desktop_chat"] = module
spec.loader.exec_module(module)
root = tkinter.Tk()
with llamacpu.Model(module.DEMO) as model:
    chat = module.Chat(root, model)
    for question in ("What can you do?", "Tell me a short story"):
        chat.field.insert(0, question)
        chat.ask()
        while chat.cancel is not None:
            root.update()
            time.sleep(0.001)
    print(chat.text.get("1.0", "end"))
    print(*(message["role"] for message in chat.messages))
"""


def test_the_small_window_of_the_examples(display: str) -> None:
    example = DRIVER.parent.parent / "examples" / "desktop_chat.py"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(example)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "DISPLAY": display},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("You: What can you do?\nModel: ")
    assert "\n\nYou: Tell me a short story\nModel: " in done.stdout
    assert done.stdout.endswith("user assistant user assistant\n")
