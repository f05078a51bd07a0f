"""Conversations of the chat page go to files and come from files, which are read with distrust."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from page_browser import Chat


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
