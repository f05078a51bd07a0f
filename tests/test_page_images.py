"""Images on the chat page: chosen, pasted, dropped, sent and shown in the conversation."""

from __future__ import annotations

import base64
from typing import Any

import pytest

pytest.importorskip("PIL")

import vision_files
from page_browser import Chat

# Hands a file to the page as a paste or a drop does.
HAND = """([kind, data, place]) => {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "a.png", { type: "image/png" }));
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.querySelector(place).dispatchEvent(event);
}"""


def attach(chat: Chat, way: str, size: tuple[int, int] = (20, 30)) -> None:
    data = vision_files.png(size)
    before = chat.page.locator("#attached img").count()
    if way == "choose":
        chat.page.set_input_files("#image-files", {"name": "a.png", "mimeType": "image/png", "buffer": data})
    else:
        place = "#prompt" if way == "paste" else "#transcript"
        chat.page.evaluate(HAND, [way, base64.b64encode(data).decode(), place])
    chat.until(f"document.querySelectorAll('#attached img').length === {before + 1}")


def sent(chat: Chat) -> list[Any]:
    content = chat.api.asked[-1]["messages"][-1]["content"]
    assert isinstance(content, list)
    return content


@pytest.mark.parametrize("way", ["choose", "paste", "drop"])
def test_an_image_goes_with_the_message(chat: Chat, way: str) -> None:
    attach(chat, way)
    chat.say("What is this?")
    image, text = sent(chat)
    assert text == {"type": "text", "text": "What is this?"}
    assert image["type"] == "image_url"
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert chat.page.locator("#attached img").count() == 0
    assert chat.page.locator(".message.user .pictures img").count() == 1
    assert chat.page.evaluate("document.querySelector('.message.user .pictures img').naturalWidth") == 30
    chat.say("And?")
    first = chat.api.asked[-1]["messages"][0]["content"]
    assert first == [image, text]
    chat.page.reload()
    chat.until("document.querySelector('.message.user .pictures img')?.naturalWidth === 30")


def test_images_are_taken_away_and_large_ones_made_smaller(chat: Chat) -> None:
    attach(chat, "choose")
    attach(chat, "choose", (3, 4000))
    chat.page.get_by_label("Remove image 1").click()
    assert chat.page.locator("#attached img").count() == 1
    chat.until("document.querySelector('#attached img').naturalWidth === 2048")
    # An image alone is a message.
    chat.page.locator("#prompt").press("Enter")
    chat.done()
    (image,) = sent(chat)
    assert image["type"] == "image_url"


def test_what_is_no_image_is_said_to_be_none(chat: Chat) -> None:
    chat.page.set_input_files("#image-files", {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"})
    chat.until("document.getElementById('notice').textContent.includes('a.png cannot be read')")
    assert chat.page.locator("#attached img").count() == 0
