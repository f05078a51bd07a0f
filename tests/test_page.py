"""The chat page in headless Chromium, used as a person uses it: type, stream, stop, retry, edit, keep, find, move."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from page_browser import Chat
from page_server import RICH

LAST = ".message.assistant.last"


def test_an_answer_streams_into_the_page(chat: Chat) -> None:
    chat.api.delay = 0.01
    chat.eval("""() => {
        window.lengths = new Set();
        const length = () => document.querySelector('.message.assistant .text')?.innerText.length ?? 0;
        new MutationObserver(() => window.lengths.add(length()))
          .observe(document.getElementById('transcript'), {childList: true, subtree: true, characterData: true});
    }""")
    answer = chat.say("rich, please")
    assert answer.startswith("A paged cache keeps keys and values")
    lengths = chat.eval("[...window.lengths]")
    assert len(lengths) > 4
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
    assert chat.answers() == ["Answer number 1."]
    chat.reload()
    assert chat.answers() == ["Answer number 1."]
    chat.page.get_by_role("button", name="Later version").click()
    assert chat.answers() == ["Answer number 2."]


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
    assert chat.messages() == ["One", "Answer number 1.", "Two", "Answer number 2."]


def test_leaving_the_editor_changes_nothing(chat: Chat) -> None:
    chat.say("One")
    chat.tool("user", "Edit").click()
    chat.page.get_by_label("Edit message").fill("Else")
    chat.page.get_by_label("Edit message").press("Escape")
    assert chat.messages() == ["One", "Answer number 1."]
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
    assert chat.answers() == ["Answer number 1."]
    assert chat.page.locator("#list .pulse").count() == 1
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
    assert chat.page.locator("#setting-temperature").input_value() == "0.25"
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


def test_export_and_import_bring_everything_back(chat: Chat, tmp_path: Path) -> None:
    chat.say("rich")
    chat.tool("assistant", "Retry").click()
    chat.until("document.querySelector('.versions')")
    chat.done()
    chat.say("think")
    before = chat.messages()
    chat.page.get_by_role("button", name="Conversation options").click()
    with chat.page.expect_download() as download:
        chat.page.get_by_role("menuitem", name="Export").click()
    assert download.value.suggested_filename == "rich.json"
    file = tmp_path / "rich.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8"))["format"] == "llamacpu-conversations"
    chat.page.get_by_role("button", name="Options of rich").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    chat.page.locator("#ask-yes").click()
    chat.until("document.querySelectorAll('#list .open').length === 0")
    chat.page.set_input_files("#file", file)
    chat.page.wait_for_selector(".message")
    assert chat.messages() == before
    assert chat.page.locator(".versions").count() == 1
    chat.reload()
    assert chat.messages() == before


def test_all_conversations_are_exported_and_deleted(chat: Chat, tmp_path: Path) -> None:
    for text in ("One", "Two"):
        chat.page.get_by_role("button", name="New conversation").click()
        chat.say(text)
    chat.page.get_by_role("button", name="Settings").click()
    with chat.page.expect_download() as download:
        chat.page.get_by_role("button", name="Export all conversations").click()
    file = tmp_path / "all.json"
    download.value.save_as(file)
    chat.page.get_by_role("button", name="Delete all conversations").click()
    chat.page.locator("#ask-yes").click()
    chat.until("document.querySelectorAll('#list .open').length === 0")
    chat.page.set_input_files("#file", file)
    chat.until("document.querySelectorAll('#list .open').length === 2")


def conversation(**changes: Any) -> dict[str, Any]:
    message = {"id": "a", "parent": None, "role": "user", "content": "Hello", "created": 1}
    whole = {"title": "T", "created": "2026-01-01T00:00:00Z", "updated": 5, "messages": [message]}
    for path, value in changes.items():
        if path.startswith("message_"):
            message[path.removeprefix("message_")] = value
        else:
            whole[path] = value
    return {"format": "llamacpu-conversations", "version": 1, "conversations": [whole]}


HOSTILE_FILES = {
    "no JSON": ("<html>", "is not JSON"),
    "nothing": ("", "is not JSON"),
    "another kind": ('{"a": 1}', "not a file of conversations"),
    "a list": ("[]", "not a file of conversations"),
    "null": ("null", "not a file of conversations"),
    "newer": ('{"format": "llamacpu-conversations", "version": 99}', "version 99"),
    "no list": ('{"format": "llamacpu-conversations", "version": 1, "conversations": {}}', "should be a list"),
    "empty": ('{"format": "llamacpu-conversations", "version": 1, "conversations": []}', "no conversations"),
    "deep": ("[" * 200_000, "is not JSON"),
    "null conversation": (conversation(messages=None), "messages should be a list"),
    "role": (conversation(message_role="system"), 'role should be "user" or "assistant"'),
    "content": (conversation(message_content={"toString": 1}), "content should be a text"),
    "parent": (conversation(message_parent="later"), "parent should be null or the id of an earlier message"),
    "own parent": (conversation(message_parent="a"), "parent should be null or the id of an earlier message"),
    "id": (conversation(message_id=7), "id should be a text"),
    "twice": (conversation(messages=[conversation()["conversations"][0]["messages"][0]] * 2), "id of an earlier"),
    "shown": (conversation(shown="nobody"), "shown is the id of no message"),
    "date": (conversation(created="yesterday"), "created should be a date"),
    "title": (conversation(title=["x"]), "title should be a text"),
    "settings": (conversation(settings={"temperature": "hot"}), "settings.temperature should be a number"),
    "usage": (conversation(message_role="assistant", message_usage={"prompt": -1}), "usage.prompt should be a number"),
    "long title": (conversation(title="x" * 20_000), "more than 10000"),
    "too many": (conversation(messages=[{}] * 20_001), "more than 20000"),
}  # fmt: skip


def test_hostile_files_are_refused_in_words(chat: Chat, tmp_path: Path) -> None:
    for number, (content, words) in enumerate(HOSTILE_FILES.values()):
        file = tmp_path / f"file{number}.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        chat.page.set_input_files("#file", file)
        notice = chat.page.wait_for_selector(f"#notice p:has-text('{file.name} was not imported.')").inner_text()
        assert words in notice
        assert chat.page.locator("#list .open").count() == 0


def test_a_file_that_is_too_large_is_not_read(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    with file.open("wb") as writer:
        writer.truncate(33 * 1024 * 1024)
    chat.page.set_input_files("#file", file)
    assert "more than 32 MiB" in chat.page.wait_for_selector("#notice p").inner_text()


def test_unknown_fields_of_a_file_are_left_out(chat: Chat, tmp_path: Path) -> None:
    hostile = conversation(message_onclick="x", message_status="writing", title="<img src=x onerror=1>")
    text = json.dumps(hostile).replace('"title"', '"__proto__": {"polluted": 1}, "constructor": 1, "title"')
    file = tmp_path / "file.json"
    file.write_text(text, encoding="utf-8")
    chat.page.set_input_files("#file", file)
    chat.page.wait_for_selector(".message")
    assert chat.titles() == ["<img src=x onerror=1>"]
    assert chat.eval("({}).polluted") is None
    assert chat.messages() == ["Hello"]
