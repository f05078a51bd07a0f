"""The chat page keeps its conversations and settings: after a reload, in two windows, in the list beside them."""

from __future__ import annotations

import json

from page_browser import Chat

LAST = ".message.assistant.last"


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
    assert set(chat.api.asked[-1]) == {"model", "messages", "stream", "stream_options", "return_progress"}


def test_wrong_settings_are_refused_in_the_dialog(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Settings").click()
    for name, value in (("temperature", "9"), ("max_tokens", "0"), ("seed", "1.5"), ("top_p", "-1")):
        field = chat.page.locator(f"#setting-{name}")
        field.fill(value)
        chat.page.get_by_role("button", name="Save").click()
        assert chat.page.locator("#settings").is_visible()
        assert chat.eval(f"document.querySelector('#setting-{name}').validationMessage") != "", name
        field.fill("")
    chat.page.get_by_role("button", name="Save").click()
    chat.settle(chat.page.locator("#settings").is_visible, False)


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
