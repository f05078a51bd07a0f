"""Makes the screenshots of conversations about a picture that the documents show: terminal, window and page.

    python tests/picture_screens.py [FOLDER]

The answers are those of the tiny model in tests/seeing/. Needs Chromium, Xvfb, tkinter, playwright and pyte.
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

import llamacpu
from drawings import Drawing
from page_browser import Chat, chromium
from terminal_screen import Screen

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS.parent / "docs" / "images"
SEEING = TESTS / "seeing" / "seeing.gguf"
DRAWINGS = {"star.png": ("star", "yellow", "blue"), "circle.png": ("circle", "red", "white")}
MORE = ("What shape is it?", "What color is the background?")
SIDE = 144
COLUMNS, ROWS = 76, 20
# The colors of a terminal's text on a dark ground.
SHADES = {"red": "#ef6b73", "green": "#7ec699", "brown": "#e2c08d", "blue": "#79b8ff", "cyan": "#6cc7d1"}


def in_terminal(folder: Path, browser: Any, path: Path) -> None:
    """A picture is dragged into the conversation."""
    os.chdir(folder)
    command = ("-m", "llamacpu", "run", SEEING, "--temperature", "0")
    with Screen(*command, columns=COLUMNS, rows=ROWS, HOME=str(folder), XDG_STATE_HOME=str(folder)) as screen:
        screen.prompt()
        for place, text in enumerate(("star.png What is this?", *MORE), 2):
            screen.type(f"{text}\r")
            screen.wait_for(lambda shown, place=place: shown.count(">>>") == place and shown.endswith(">>>"))
        rows = [row for row in screen.cells() if any(cell.data.strip() for cell in row)]
    text = "\n".join(map(drawn_row, rows))
    page = browser.new_page(device_scale_factor=1.5)
    page.set_content(
        "<body style='margin:0;display:inline-block'><pre id='t' style='margin:0;padding:14px 16px;background:#1e1e24;"
        f"color:#e6e6e6;font:14px/1.4 DejaVu Sans Mono,monospace'>{text}</pre>"
    )
    page.locator("#t").screenshot(path=path)


def drawn_row(row: list[Any]) -> str:
    """A row of the terminal as HTML."""
    found = ""
    for cell in row:
        style = f"color:{SHADES.get(cell.fg, '#e6e6e6')};" if cell.fg != "default" else ""
        style += "font-weight:bold;" if cell.bold else ""
        text = html.escape(cell.data)
        found += f"<span style='{style}'>{text}</span>" if style else text
    return found.rstrip()


def in_window(folder: Path, path: Path) -> None:
    """The chat window, on a screen of its own."""
    server = shutil.which("Xvfb") or sys.exit("there is no Xvfb")
    command = [server, "-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as screen:
        assert screen.stdout is not None
        paths = os.pathsep.join([str(TESTS.parent / "python"), str(TESTS)])
        environment = os.environ | {"DISPLAY": f":{screen.stdout.readline().strip()}", "PYTHONPATH": paths}
        driver = [sys.executable, str(TESTS / "desktop_driver.py"), "drawing", str(SEEING), str(path)]
        try:
            subprocess.run([*driver, str(folder / "circle.png")], env=environment, check=True)
        finally:
            screen.terminate()


def on_page(folder: Path, browser: Any, path: Path) -> None:
    """The page of a server."""
    with llamacpu.serve(SEEING) as url:
        context = browser.new_context(viewport={"width": 900, "height": 680})
        chat = Chat(context, Served(url))
        chat.page.set_input_files("#image-files", str(folder / "star.png"))
        chat.until("document.querySelectorAll('#attached img').length === 1")
        for text in ("What is this?", MORE[1]):
            chat.say(text)
        chat.page.mouse.move(5, 5)
        chat.page.wait_for_timeout(300)
        chat.page.screenshot(path=path)
        context.close()


class Served:
    """A server with a model, for `Chat`."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/"


def main() -> None:
    """Make them."""
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="drawings-") as name, sync_playwright() as playwright:
        drawings = Path(name)
        for file, about in DRAWINGS.items():
            Drawing(*about).image(SIDE).save(drawings / file)
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        in_terminal(drawings, browser, folder / "picture-terminal.png")
        on_page(drawings, browser, folder / "picture-page.png")
        browser.close()
        in_window(drawings, folder / "picture-window.png")


if __name__ == "__main__":
    main()
