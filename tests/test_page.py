"""The chat page in headless Chromium, used as a person uses it: type, stream, stop, retry, edit, continue."""

from __future__ import annotations

import re

import pytest

from page_browser import Chat
from page_server import RICH

LAST = ".message.assistant.last"


def test_an_answer_streams_into_the_page(chat: Chat) -> None:
    chat.api.pause_after = 5
    chat.type("rich, please")
    chat.until("document.querySelector('.message.assistant .text')?.innerText.length > 0")
    part = chat.answers()[-1]
    chat.api.go.set()
    chat.done()
    answer = chat.answers()[-1]
    assert answer.startswith("A paged cache keeps keys and values")
    assert 0 < len(part) < len(answer)
    assert chat.page.locator(f"{LAST} table td").all_inner_texts() == ["keys", "16384", "values", "16384"]
    assert chat.page.locator(f"{LAST} .hljs-keyword").all_inner_texts() == ["def", "for", "in", "return"]
    assert re.fullmatch(r"llama-3.2-1b-q4_k_m · \d+ tokens · 41.7 tokens/s", chat.page.inner_text(f"{LAST} .facts"))
    assert re.fullmatch(r"\d+ of 4,096 tokens of context", chat.page.inner_text("#context"))
    (asked,) = chat.api.asked
    assert asked == {
        "model": "llama-3.2-1b-q4_k_m",
        "messages": [{"role": "user", "content": "rich, please"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }


def test_a_conversation_is_sent_as_a_whole(chat: Chat) -> None:
    chat.say("One")
    chat.say("Two\n\n  with lines")
    assert chat.messages() == ["One", "Answer number 1.", "Two\n\n  with lines", "Answer number 2."]
    assert [m["content"] for m in chat.api.asked[1]["messages"]] == ["One", "Answer number 1.", "Two\n\n  with lines"]


def test_code_is_copied_and_so_are_messages(chat: Chat) -> None:
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    chat.say("rich")
    chat.page.locator(".copy-code").click()
    chat.until("document.querySelector('.copy-code').textContent === 'Copied'")
    code = RICH.split("```")[1].removeprefix("python\n").removesuffix("\n")
    assert chat.eval("navigator.clipboard.readText()") == code
    chat.tool("assistant", "Copy").click()
    chat.until("document.getElementById('status').textContent === 'Copied'")
    assert chat.eval("navigator.clipboard.readText()") == RICH


def test_without_a_clipboard_it_is_copied_the_old_way(chat: Chat) -> None:
    chat.context.grant_permissions(["clipboard-read", "clipboard-write"])
    # On plain HTTP from another machine browsers have no clipboard.
    chat.eval("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    chat.say("Hello")
    chat.tool("assistant", "Copy").click()
    chat.until("document.getElementById('status').textContent === 'Copied'")
    assert chat.eval("navigator.clipboard.readText()") == "Answer number 1."


@pytest.mark.parametrize("way", ["button", "escape"])
def test_an_answer_is_stopped(chat: Chat, way: str) -> None:
    chat.type("endless")
    chat.until(f"document.querySelector('{LAST} .text')?.innerText.length > 40")
    if way == "button":
        chat.page.get_by_role("button", name="Stop").click()
    else:
        chat.page.keyboard.press("Escape")
    chat.done()
    assert chat.api.gone.wait(60), "the server was not told"
    assert "stopped" in chat.page.inner_text(f"{LAST} .facts")
    assert chat.page.evaluate("document.activeElement.id") == "prompt"
    before = chat.answers()[-1]
    assert before.startswith("1 2 3 4")
    chat.reload()
    assert chat.answers() == [before]


def test_an_answer_is_stopped_before_its_first_word(chat: Chat) -> None:
    chat.type("wait")
    # A crowded machine may leave out a second.
    chat.until("/Reading the prompt… [0-9]+ s/.test(document.querySelector('.waiting')?.textContent)")
    chat.page.keyboard.press("Escape")
    chat.done()
    assert chat.answers() == [""]
    # The next message does not leave two messages of one role behind each other.
    chat.say("Again")
    assert [m["role"] for m in chat.api.asked[-1]["messages"]] == ["user"]


def test_how_much_of_the_prompt_is_read_is_shown(chat: Chat) -> None:
    chat.type("progress")
    for words in ("Reading the prompt… 2 %", "Looking at picture 2 of 2…", "Reading the prompt… 97 %"):
        chat.until(f"document.querySelector('.waiting')?.textContent.startsWith('{words}')")
        chat.api.go.set()
    chat.done()
    assert chat.api.asked[-1]["return_progress"] is True
    assert chat.page.locator(".waiting").count() == 0


def test_retry_makes_another_version(chat: Chat) -> None:
    chat.say("Hello")
    chat.tool("assistant", "Retry").click()
    chat.until("document.querySelector('.versions')?.innerText.includes('2 / 2')")
    chat.done()
    assert chat.answers() == ["Answer number 2."]
    chat.page.get_by_role("button", name="Earlier version").click()
    chat.settle(chat.answers, ["Answer number 1."])
    chat.reload()
    assert chat.answers() == ["Answer number 1."]
    chat.page.get_by_role("button", name="Later version").click()
    chat.settle(chat.answers, ["Answer number 2."])


def test_editing_a_message_begins_a_branch(chat: Chat) -> None:
    chat.say("One")
    chat.say("Two")
    chat.tool("user", "Edit", 0).click()
    editor = chat.page.get_by_label("Edit message")
    assert editor.input_value() == "One"
    editor.fill("Uno")
    editor.press("Enter")
    chat.until("document.querySelectorAll('.message').length === 2")
    chat.done()
    assert chat.messages() == ["Uno", "Answer number 3."]
    assert chat.api.asked[-1]["messages"] == [{"role": "user", "content": "Uno"}]
    chat.page.get_by_role("button", name="Earlier version").click()
    chat.settle(chat.messages, ["One", "Answer number 1.", "Two", "Answer number 2."])


def test_leaving_the_editor_changes_nothing(chat: Chat) -> None:
    chat.say("One")
    chat.tool("user", "Edit").click()
    chat.page.get_by_label("Edit message").fill("Else")
    chat.page.get_by_label("Edit message").press("Escape")
    chat.settle(chat.messages, ["One", "Answer number 1."])
    assert len(chat.api.asked) == 1


def test_an_answer_is_edited(chat: Chat) -> None:
    chat.say("One")
    chat.tool("assistant", "Edit").click()
    chat.page.get_by_label("Edit answer").fill("My **own** words")
    chat.page.get_by_role("button", name="Save", exact=True).and_(chat.page.locator(".editor button")).click()
    chat.until("document.querySelector('.versions')")
    assert chat.answers() == ["My own words"]
    chat.say("Two")
    assert chat.api.asked[-1]["messages"][1] == {"role": "assistant", "content": "My **own** words"}


def test_continue_goes_on_where_the_limit_was(chat: Chat) -> None:
    assert chat.say("short") == "This is the beginning"
    assert "token limit reached" in chat.page.inner_text(f"{LAST} .facts")
    chat.page.get_by_role("button", name="Continue").click()
    chat.until(f"document.querySelector('{LAST} .text').innerText.endsWith('rest.')")
    chat.done()
    assert chat.answers() == ["This is the beginning and this is the rest."]
    asked = chat.api.asked[-1]
    assert asked["messages"][-1] == {"role": "assistant", "content": "This is the beginning"}
    assert (asked["continue_final_message"], asked["add_generation_prompt"]) == (True, False)


def test_a_message_is_deleted_with_what_follows(chat: Chat) -> None:
    chat.say("One")
    chat.say("Two")
    chat.tool("user", "Delete").click()
    chat.page.get_by_role("button", name="Delete", exact=True).and_(chat.page.locator("#ask-yes")).click()
    chat.until("document.querySelectorAll('.message').length === 2")
    chat.reload()
    assert chat.messages() == ["One", "Answer number 1."]


def test_reasoning_is_folded_away(chat: Chat) -> None:
    chat.type("think")
    chat.page.wait_for_selector("summary:has-text('Thinking…')")
    chat.done()
    assert chat.answers() == ["There are three."]
    summary = chat.page.locator(".reasoning summary")
    assert summary.inner_text() == "Thought for 1 second"
    assert not chat.page.locator(".reasoning .markdown").is_visible()
    summary.click()
    chat.page.wait_for_selector(".reasoning strong:has-text('I')")
    # It is not part of what was said.
    chat.say("More")
    assert chat.api.asked[-1]["messages"][1] == {"role": "assistant", "content": "There are three."}
