"""The chat page in headless Chromium, used as a person uses it: type, stream, stop, retry, edit, keep, find, move."""

from __future__ import annotations

import json
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
    assert chat.api.gone.wait(10), "the server was not told"
    assert "stopped" in chat.page.inner_text(f"{LAST} .facts")
    assert chat.page.evaluate("document.activeElement.id") == "prompt"
    before = chat.answers()[-1]
    assert before.startswith("1 2 3 4")
    chat.reload()
    assert chat.answers() == [before]


def test_an_answer_is_stopped_before_its_first_word(chat: Chat) -> None:
    chat.type("wait")
    chat.page.wait_for_selector(".waiting:has-text('Reading the prompt… 2 s')")
    chat.page.keyboard.press("Escape")
    chat.done()
    assert chat.answers() == [""]
    # The next message does not leave two messages of one role behind each other.
    chat.say("Again")
    assert [m["role"] for m in chat.api.asked[-1]["messages"]] == ["user"]


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


def test_everything_is_there_after_a_reload(chat: Chat) -> None:
    chat.say("rich")
    chat.page.locator("#prompt").fill("not sent yet")
    before = chat.page.inner_html(f"{LAST} .text")
    chat.reload()
    assert chat.page.inner_html(f"{LAST} .text") == before
    assert chat.page.locator("#prompt").input_value() == "not sent yet"
    assert chat.titles() == ["rich"]
    assert chat.page.title() == "rich · llamacpu"


def test_a_reload_in_the_middle_of_an_answer_keeps_what_there_is(chat: Chat) -> None:
    chat.type("endless")
    chat.until(f"document.querySelector('{LAST} .text')?.innerText.length > 200")
    chat.reload()
    (kept,) = chat.answers()
    assert kept.startswith("1 2 3 4 5")
    assert "not finished" in chat.page.inner_text(".problem")
    assert chat.page.get_by_role("button", name="Continue").is_visible()


def test_conversations_are_listed_renamed_found_and_deleted(chat: Chat) -> None:
    for text in ("About llamas", "think about alpacas", "Nothing much"):
        chat.page.get_by_role("button", name="New conversation").click()
        chat.say(text)
    assert chat.titles() == ["Nothing much", "think about alpacas", "About llamas"]
    options = chat.page.get_by_role("button", name="Options of About llamas")
    options.click()
    chat.page.get_by_role("menuitem", name="Rename").click()
    chat.page.locator("#ask-text").fill("Wool")
    chat.page.locator("#ask-text").press("Enter")
    chat.until("[...document.querySelectorAll('#list .open')].some((item) => item.textContent === 'Wool')")

    search = chat.page.get_by_role("searchbox")
    for words, found in (("WOOL", ["Wool"]), ("there are three", ["think about alpacas"]), ("zebra", [])):
        search.fill(words)
        shown = "[...document.querySelectorAll('#list .open')].map((item) => item.textContent)"
        chat.until(f"JSON.stringify({shown}) === '{json.dumps(found)}'")
    assert "Nothing found" in chat.page.inner_text("#list")
    search.fill("")
    chat.until("document.querySelectorAll('#list .open').length === 3")

    chat.page.get_by_role("button", name="Options of Nothing much").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    chat.page.locator("#ask-yes").click()
    chat.until("document.querySelectorAll('#list .open').length === 2")
    chat.reload()
    assert sorted(chat.titles()) == ["Wool", "think about alpacas"]
    assert chat.messages() == []


def test_an_answer_goes_on_while_another_conversation_is_read(chat: Chat) -> None:
    chat.say("First")
    chat.page.get_by_role("button", name="New conversation").click()
    chat.type("endless")
    chat.until(f"document.querySelector('{LAST} .text')?.innerText.length > 40")
    chat.page.locator("#list .open", has_text="First").click()
    chat.settle(chat.answers, ["Answer number 1."])
    chat.settle(chat.page.locator("#list .pulse").count, 1)
    chat.page.locator("#list .open", has_text="endless").click()
    length = len(chat.answers()[0])
    chat.until(f"document.querySelector('{LAST} .text').innerText.length > {length + 40}")
    chat.page.keyboard.press("Escape")
    chat.done()


def test_back_and_forward_move_between_conversations(chat: Chat) -> None:
    chat.say("First")
    chat.page.get_by_role("button", name="New conversation").click()
    chat.say("Second")
    chat.page.go_back()
    chat.until("document.querySelectorAll('.message').length === 0")
    chat.page.go_back()
    chat.page.wait_for_selector(".message.user:has-text('First')")
    chat.page.go_forward()
    chat.page.go_forward()
    chat.page.wait_for_selector(".message.user:has-text('Second')")


def test_the_model_is_chosen_and_remembered(chat: Chat) -> None:
    chat.say("One")
    chat.page.get_by_label("Model").select_option("demo")
    chat.say("Two")
    assert [asked["model"] for asked in chat.api.asked] == ["llama-3.2-1b-q4_k_m", "demo"]
    chat.reload()
    chat.until("document.getElementById('model').value === 'demo'")


def test_settings_are_sent_and_kept(chat: Chat) -> None:
    values = {"temperature": "0.25", "top_p": "0.9", "top_k": "40", "min_p": "0.05", "max_tokens": "99", "seed": "7"}
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.get_by_label("System prompt").fill("Be brief.")
    for name, value in values.items():
        chat.page.locator(f"#setting-{name}").fill(value)
    chat.page.locator("#setting-stop").fill("END\n\nSTOP")
    chat.page.get_by_role("button", name="Save").click()
    chat.say("Hello")
    (asked,) = chat.api.asked
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    assert {name: asked[name] for name in values} == {name: float(value) for name, value in values.items()}
    assert asked["stop"] == ["END", "STOP"]
    assert "repeat_penalty" not in asked
    # A new conversation begins with the same, after a reload too; Reset leaves all to the server.
    chat.page.get_by_role("button", name="New conversation").click()
    chat.reload()
    chat.page.get_by_role("button", name="Settings").click()
    chat.settle(chat.page.locator("#setting-temperature").input_value, "0.25")
    chat.page.get_by_role("button", name="Reset").click()
    chat.page.get_by_role("button", name="Save").click()
    chat.say("Hello")
    assert set(chat.api.asked[-1]) == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", "9"), ("max_tokens", "0"), ("seed", "1.5"), ("top_p", "-1")]
)
def test_wrong_settings_are_refused_in_the_dialog(chat: Chat, name: str, value: str) -> None:
    chat.page.get_by_role("button", name="Settings").click()
    chat.page.locator(f"#setting-{name}").fill(value)
    chat.page.get_by_role("button", name="Save").click()
    assert chat.page.locator("#settings").is_visible()
    assert chat.eval(f"document.querySelector('#setting-{name}').validationMessage") != ""


def test_two_windows_with_one_conversation_lose_nothing(chat: Chat) -> None:
    chat.say("One")
    other = Chat(chat.context, chat.api, open_now=False)
    other.open(f"#{chat.page.url.split('#')[1]}")
    # What one has answered is shown in the other; both write at once.
    other.say("short")
    chat.until("document.querySelectorAll('.message').length === 4")
    chat.type("endless")
    other.until("document.querySelectorAll('.message .text')[5]?.textContent.length > 40")
    other.say("Three")
    chat.page.keyboard.press("Escape")
    chat.done()
    chat.reload()
    found = chat.eval("""async () => {
        const opened = indexedDB.open('llamacpu');
        await new Promise((resolve) => opened.onsuccess = resolve);
        const asked = opened.result.transaction('conversations').objectStore('conversations').getAll();
        await new Promise((resolve) => asked.onsuccess = resolve);
        return asked.result[0].messages.map(({content}) => content);
    }""")
    assert {"One", "short", "This is the beginning", "endless", "Three"} <= set(found)
    assert len(found) == 8
    other.check()


def test_a_conversation_that_another_window_deletes_is_left(chat: Chat) -> None:
    chat.say("One")
    other = Chat(chat.context, chat.api)
    other.page.get_by_role("button", name="Options of One").click()
    other.page.get_by_role("menuitem", name="Delete").click()
    other.page.locator("#ask-yes").click()
    chat.until("document.querySelectorAll('.message').length === 0")
    assert chat.page.locator("#list .open").count() == 0
    other.check()
