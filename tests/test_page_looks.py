"""The chat page for everyone: dark and light, on a telephone, with the keyboard alone, with a screen reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from page_browser import Chat

WIDE = "rich " + "wide" * 100
OVERFLOW = "[document.documentElement.scrollWidth, document.getElementById('scroller').scrollWidth]"


def background(chat: Chat) -> str:
    return str(chat.eval("getComputedStyle(document.documentElement).backgroundColor"))


def test_dark_and_light_follow_the_system_and_the_switch(chat: Chat) -> None:
    chat.page.emulate_media(color_scheme="light")
    light = background(chat)
    chat.page.emulate_media(color_scheme="dark")
    dark = background(chat)
    assert light != dark
    switch = chat.page.get_by_role("button", name="Dark")
    chat.settle(lambda: switch.get_attribute("aria-pressed"), "true")
    switch.click()
    chat.settle(lambda: background(chat), light)
    assert switch.get_attribute("aria-pressed") == "false"
    chat.reload()
    assert background(chat) == light
    # Back to what the system says.
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_role("radio", name="System").check()
    chat.page.get_by_role("button", name="Save").click()
    chat.settle(lambda: background(chat), dark)


def test_the_chosen_theme_is_there_before_the_page_is_drawn(chat: Chat) -> None:
    chat.page.emulate_media(color_scheme="light")
    chat.page.get_by_role("button", name="Dark").click()
    chat.context.add_init_script("""
        new MutationObserver(() => document.body && (window.early ??= document.documentElement.dataset.theme ?? "none"))
          .observe(document, {childList: true, subtree: true});
    """)
    chat.reload()
    assert chat.eval("window.early") == "dark"


@pytest.mark.parametrize("width", [360, 320])
def test_a_telephone_never_scrolls_sideways(chat: Chat, width: int) -> None:
    chat.page.set_viewport_size({"width": width, "height": 700})
    widths = []

    def look() -> None:
        widths.append(chat.eval(OVERFLOW))

    look()
    for text in (WIDE, "hostile", "short", "busy", "think"):
        chat.say(text)
        look()
    chat.tool("user", "Edit").click()
    look()
    chat.page.keyboard.press("Escape")
    chat.page.get_by_role("button", name="Show conversations").click()
    look()
    assert chat.page.locator("#list .open").first.is_visible()
    chat.page.locator("#list .open").first.click()
    chat.page.locator("#sidebar").wait_for(state="hidden")
    for opens in ("Settings", "Conversation options"):
        chat.page.get_by_role("button", name=opens).click()
        box = chat.page.locator("dialog[open], #menu:popover-open").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        look()
        chat.page.keyboard.press("Escape")
    assert widths == [[width, width]] * len(widths)


def focused(chat: Chat) -> str:
    """The name of what has the focus."""
    return str(
        chat.eval("(({ariaLabel, textContent, id}) => ariaLabel || textContent.trim() || id)(document.activeElement)")
    )


def tab_to(chat: Chat, name: str, back: bool = False) -> None:
    """Press Tab until something has the focus."""
    seen = []
    for _ in range(60):
        seen.append(focused(chat))
        if seen[-1] == name:
            return
        chat.page.keyboard.press("Shift+Tab" if back else "Tab")
    pytest.fail(f"{name} is not reached; Tab leads to {seen}")


def test_the_keyboard_alone_is_enough(chat: Chat) -> None:
    keys = chat.page.keyboard
    keys.press("Escape")
    chat.settle(lambda: focused(chat), "Message")
    keys.type("One")
    keys.press("Shift+Enter")
    keys.type("more")
    keys.press("Enter")
    chat.page.wait_for_selector(".message.assistant .foot:not(:empty)")
    chat.done()
    assert chat.messages() == ["One\nmore", "Answer number 1."]
    # What is below a message is seen when it has the focus.
    tab_to(chat, "Retry", back=True)
    assert chat.eval("getComputedStyle(document.activeElement.closest('.tools')).opacity") == "1"
    outline = chat.eval(
        "(({outlineStyle, outlineWidth}) => [outlineStyle, outlineWidth])(getComputedStyle(document.activeElement))"
    )
    assert outline == ["solid", "2px"]
    keys.press("Enter")
    chat.until("document.querySelector('.versions')")
    chat.done()
    tab_to(chat, "Earlier version", back=True)
    keys.press("Enter")
    chat.until("document.querySelector('.message.assistant .text').textContent.startsWith('Answer number 1')")
    # The last message is edited from the empty field.
    keys.press("Escape")
    keys.press("ArrowUp")
    chat.settle(lambda: focused(chat), "Edit message")
    keys.press("Control+a")
    keys.type("Two")
    keys.press("Enter")
    chat.until("document.querySelector('.message.user .text').textContent === 'Two'")
    chat.done()
    # A menu, a dialog, and back to where one was.
    tab_to(chat, "Conversation options", back=True)
    keys.press("Enter")
    chat.settle(lambda: focused(chat), "Rename")
    keys.press("ArrowDown")
    chat.settle(lambda: focused(chat), "Export")
    keys.press("End")
    chat.settle(lambda: focused(chat), "Delete")
    keys.press("ArrowDown")
    chat.settle(lambda: focused(chat), "Rename")
    keys.press("Enter")
    keys.type("Numbers")
    keys.press("Enter")
    chat.until("document.getElementById('title').textContent === 'Numbers'")
    # Shortcuts.
    keys.press("Control+Shift+O")
    chat.settle(lambda: focused(chat), "Message")
    chat.settle(chat.messages, [])
    keys.press("Control+k")
    chat.settle(lambda: focused(chat), "Search conversations")
    tab_to(chat, "Numbers")
    keys.press("Enter")
    chat.page.wait_for_selector(".message")
    keys.press("Control+Shift+U")
    chat.until('document.activeElement.className.startsWith("message assistant")')
    keys.press("Control+b")
    chat.page.locator("#sidebar").wait_for(state="hidden")
    keys.press("Control+b")
    for shortcut, dialog in (("Control+,", "settings"), ("Control+/", "shortcuts")):
        keys.press(shortcut)
        chat.settle(chat.page.locator(f"#{dialog}").is_visible, True)
        # The focus does not leave an open dialog.
        for _ in range(30):
            keys.press("Tab")
            assert chat.eval(
                f"document.activeElement.closest('#{dialog}, body') !== document.activeElement.closest('main')"
            )
        keys.press("Escape")
        chat.settle(chat.page.locator(f"#{dialog}").is_visible, False)


def test_enter_belongs_to_a_word_that_is_being_composed(chat: Chat) -> None:
    chat.page.locator("#prompt").fill("に")
    chat.eval("""() => document.getElementById('prompt').dispatchEvent(
        new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))""")
    assert chat.messages() == []


def test_a_screen_reader_hears_what_happens(chat: Chat) -> None:
    chat.eval("""() => {
        window.heard = [];
        new MutationObserver(() => window.heard.push(document.getElementById('status').textContent))
          .observe(document.getElementById('status'), {childList: true});
    }""")
    chat.api.pause_after = 1
    chat.type("Hello")
    chat.until("window.heard.at(-1) === 'Answering'")
    chat.api.go.set()
    chat.done()
    chat.until("window.heard.at(-1) === 'Answer: Answer number 1.'")
    chat.say("busy")
    chat.until("window.heard.at(-1) === 'The queue is full. Try again in 7 seconds.'")
    # The growing text itself is not read piece by piece.
    assert chat.page.get_by_role("log").get_attribute("aria-live") == "off"
    headings = chat.page.get_by_role("log").get_by_role("heading", level=2).all_text_contents()
    assert headings == ["You", "llama-3.2-1b-q4_k_m"] * 2


@pytest.fixture(scope="module")
def axe() -> str:
    """axe-core, which finds what people with a screen reader, a keyboard or weak eyes stumble over."""
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [1180, 360])
def test_axe_finds_nothing(chat: Chat, axe: str, width: int) -> None:
    chat.page.set_viewport_size({"width": width, "height": 800})
    found: list[str] = []
    # The elements are the same in both schemes: rules that are not about colours run once.
    schemes: tuple[tuple[Any, dict[str, Any]], ...] = (
        ("light", {}),
        ("dark", {"runOnly": ["color-contrast", "link-in-text-block"]}),
    )

    def look(place: str) -> None:
        for scheme, options in schemes:
            chat.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            result = chat.eval(
                "async (options) => "
                "(await axe.run(options)).violations.map(({id, impact, nodes}) => [id, impact, nodes[0].html])",
                options,
            )
            found.extend(f"{place}, {scheme}: {rule} ({impact}) {html}" for rule, impact, html in result)

    chat.eval(f"() => {{ {axe} }}")
    look("empty")
    for text in ("rich", "think", "short", "busy"):
        chat.say(text)
    chat.page.locator(".reasoning summary").click()
    for message in chat.page.locator(".message").all():
        message.scroll_into_view_if_needed()
    look("conversation")
    chat.tool("user", "Edit").click()
    look("editor")
    chat.page.keyboard.press("Escape")
    for shortcut in ("Control+,", "Control+/"):
        chat.page.keyboard.press(shortcut)
        look(shortcut)
        chat.page.keyboard.press("Escape")
    chat.page.get_by_role("button", name="Conversation options").click()
    look("menu")
    chat.page.keyboard.press("Escape")
    chat.page.keyboard.press("Control+k")
    look("list")
    assert found == []
