"""Makes the pictures of the chat page that the documents show: python tests/page_pictures.py [FOLDER]"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from page_browser import Chat, chromium
from page_server import Api

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
EARLIER = ("Plan a week in Lisbon", "Translate a letter", "Review of the scheduler")


def talk(chat: Chat) -> None:
    """Conversations that a person may have had."""
    for title in EARLIER:
        chat.page.get_by_role("button", name="New conversation").click()
        chat.say(title)
    chat.page.get_by_role("button", name="New conversation").click()
    chat.say("Count the letter r in strawberry")
    chat.say("How does a paged cache share memory between sessions?")
    chat.page.mouse.move(5, 5)
    chat.page.wait_for_timeout(300)


def picture(browser: Any, api: Api, path: Path, width: int, height: int, scheme: str, scale: float) -> None:
    """One picture of the page after a conversation."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=scale,
        has_touch=width < 600,
    )
    chat = Chat(context, api)
    talk(chat)
    chat.page.screenshot(path=path)
    context.close()


def main() -> None:
    """Make them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    api = Api()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        picture(browser, api, folder / "page-light.png", 1180, 900, "light", 1)
        picture(browser, api, folder / "page-dark.png", 1180, 900, "dark", 1)
        picture(browser, api, folder / "page-phone.png", 360, 760, "light", 2)
        browser.close()
    api.stop()


if __name__ == "__main__":
    main()
