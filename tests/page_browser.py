"""A browser for the tests of the chat page, and what a person does with the page in it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from page_server import Api

# Breaches of the page's security policy are put where `Chat` finds them.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sample}`));
"""


def chromium() -> str:
    """The path of a Chromium, or the test is skipped."""
    # The shell has no window and takes half of the processor time.
    names = (
        "chromium-headless-shell",
        "chrome-headless-shell",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "chrome",
    )
    found = os.environ.get("LLAMACPU_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("there is no Chromium; LLAMACPU_CHROMIUM can name one")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless browser for the tests of a module."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        # The sandbox of Chromium cannot be had by root, which is who runs in containers.
        options = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=path, args=options)
        yield started
        started.close()


@pytest.fixture
def api() -> Iterator[Api]:
    """The server that the page talks to."""
    server = Api()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.stop()


@pytest.fixture
def chat(browser: Any, api: Api) -> Iterator[Chat]:
    """The page in a fresh browser profile; afterwards it is seen that nothing went wrong unseen."""
    window = Chat(browser.new_context(viewport={"width": 1180, "height": 820}), api)
    yield window
    window.check()
    window.context.close()


class Chat:
    """A window with the page, and what a person does with it."""

    def __init__(self, context: Any, api: Api, *, open_now: bool = True) -> None:
        self.context = context
        self.api = api
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        context.set_default_timeout(60_000)
        context.add_init_script(WATCH)
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        self.page.on("console", self._console)
        self.page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        if open_now:
            self.open()

    def _console(self, message: Any) -> None:
        # The browser itself reports answers with a status of an error, which tests ask for.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.errors.append(f"console: {message.text}")

    def open(self, address: str = "") -> None:
        self.page.goto(self.api.url + address)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector("html[data-ready]")

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def type(self, text: str) -> None:
        """Type a message and press Enter."""
        self.page.locator("#prompt").fill(text)
        self.page.locator("#prompt").press("Enter")

    def say(self, text: str) -> str:
        """Send a message and read the whole answer."""
        self.type(text)
        last = ".message.assistant.last"
        self.page.wait_for_selector(f'{last}[aria-busy="true"], {last} .foot:not(:empty)')
        self.done()
        return self.answers()[-1]

    def done(self) -> None:
        """Wait until nothing is written any more."""
        self.page.wait_for_selector('#send[aria-label="Send"]')

    def answers(self) -> list[str]:
        return [text.rstrip("\n") for text in self.page.locator(".message.assistant .text").all_text_contents()]

    def messages(self) -> list[str]:
        return [text.rstrip("\n") for text in self.page.locator(".message .text").all_text_contents()]

    def titles(self) -> list[str]:
        return list(self.page.locator("#list .open").all_inner_texts())

    def tool(self, role: str, words: str, nth: int = -1) -> Any:
        """A button below a message: the last one of a role, unless told otherwise."""
        message = self.page.locator(f".message.{role}").nth(nth)
        message.hover()
        return message.get_by_role("button", name=words, exact=True)

    def eval(self, code: str, argument: Any = None) -> Any:
        return self.page.evaluate(code, argument)

    def until(self, code: str) -> None:
        """Wait until a JavaScript expression is true: Playwright's own way is eval, which the policy forbids."""
        end = time.monotonic() + 60
        while not self.page.evaluate(f"() => Boolean({code})"):
            assert time.monotonic() < end, f"never true: {code}"
            self.page.wait_for_timeout(20)

    def settle(self, read: Callable[[], Any], wanted: Any) -> None:
        """`read()` is `wanted`, at once or when the page has done what it was told: its handlers are asynchronous."""
        end = time.monotonic() + 60
        while (found := read()) != wanted and time.monotonic() < end:
            self.page.wait_for_timeout(20)
        assert found == wanted

    def violations(self) -> list[str]:
        return list(self.eval("window.violations"))

    def check(self) -> None:
        """No error in the console, no breach of the policy, no word to another host."""
        assert self.errors == []
        assert self.violations() == []
        assert self.hosts <= {urlsplit(self.api.url).netloc, ""}
