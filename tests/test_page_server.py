"""The chat page as `llamacpu serve` serves it, with the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llamacpu
from page_browser import Chat
from page_server import Api

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"


class Address(Api):
    """In the place of the server of the other tests: the address of a real one."""

    def __init__(self, url: str) -> None:
        self.address = url.rstrip("/") + "/"

    @property
    def url(self) -> str:
        return self.address


def test_a_conversation_with_the_demo_model(browser: Any, demo_url: str) -> None:
    chat = Chat(browser.new_context(), Address(demo_url))
    chat.until("document.getElementById('model').value === 'demo'")
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.locator("#setting-temperature").fill("0")
    chat.page.locator("#setting-max_tokens").fill("8")
    chat.page.get_by_role("button", name="Save").click()
    begun = chat.say("What can you do?")
    facts = chat.page.inner_text(".message.assistant.last .facts")
    assert "token limit reached · 8 tokens · " in facts
    assert facts.endswith(" tokens/s")
    assert " of " in chat.page.inner_text("#context")
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.locator("#setting-max_tokens").fill("64")
    chat.page.get_by_role("button", name="Save").click()
    chat.page.get_by_role("button", name="Continue").click()
    chat.until("document.querySelector('.tools')")
    chat.done()
    whole = chat.answers()[0]
    assert whole.startswith(begun)
    assert len(whole) > len(begun)
    # As if it had never stopped.
    chat.tool("assistant", "Retry").click()
    chat.until("document.querySelector('.versions')")
    chat.done()
    assert chat.answers() == [whole]
    chat.check()
    chat.context.close()


def test_the_server_sends_the_policy_with_the_page(demo_url: str) -> None:
    httpx = pytest.importorskip("httpx")
    page = httpx.get(f"{demo_url}/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in ("app.js", "vendor/purify.es.mjs", "page.css", "icon.svg"):
        answer = httpx.get(f"{demo_url}/{path}")
        assert answer.status_code == 200
        kind = {"js": "text/javascript", "mjs": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
        assert answer.headers["content-type"].startswith(kind[path.rpartition(".")[2]])
    assert urlsplit(demo_url).netloc not in page.text, "the page works under any address"


def test_an_api_key_does_not_hide_the_page(browser: Any) -> None:
    pytest.importorskip("starlette", reason="the extra [server] is not installed")
    with llamacpu.serve(DEMO, api_keys=("secret",)) as url:
        chat = Chat(browser.new_context(), Address(url))
        chat.page.get_by_role("button", name="Enter the key").click()
        chat.page.get_by_label("API key").fill("secret")
        chat.page.get_by_role("button", name="Save").click()
        chat.until("document.getElementById('model').value === 'demo'")
        assert chat.say("What can you do?")
        chat.check()
        chat.context.close()
