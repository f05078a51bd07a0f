"""What goes wrong around the chat page is said in words, and nothing is lost: servers, connections, storage."""

from __future__ import annotations

import threading

import pytest

from page_browser import Chat
from page_server import Api

LAST = ".message.assistant.last"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("busy", "The queue is full. Try again in 7 seconds."),
        ("refuse", "messages: the prompt has 5000 tokens, the context 4096."),
        ("page", "The server answered with status 502."),
    ],
)
def test_what_the_server_refuses_is_shown(chat: Chat, message: str, words: str) -> None:
    chat.say(message)
    assert chat.page.inner_text(f"{LAST} .problem p") == words
    asked = len(chat.api.asked)
    chat.page.get_by_role("button", name="Retry").click()
    chat.until(f"document.querySelector('{LAST} .problem')")
    chat.done()
    assert len(chat.api.asked) == asked + 1
    # The message can be edited to one that works.
    chat.tool("user", "Edit").click()
    chat.page.get_by_label("Edit message").fill("Hello")
    chat.page.get_by_label("Edit message").press("Enter")
    chat.until(f"document.querySelector('{LAST} .text').innerText.startsWith('Answer number')")


@pytest.mark.parametrize(
    ("message", "words"),
    [("cut", "The connection to the server was lost."), ("fault", "the model file was changed while it was used.")],
)
def test_an_answer_that_breaks_off_is_kept_and_goes_on(chat: Chat, message: str, words: str) -> None:
    chat.say(message)
    assert chat.answers() == ["This is the beginning"]
    assert chat.page.inner_text(f"{LAST} .problem p") == f"{words} What had been written is kept."
    chat.page.get_by_role("button", name="Continue").click()
    if message == "cut":
        chat.until(f"document.querySelector('{LAST} .text').innerText.endsWith('the rest.')")
        assert chat.page.locator(".problem").count() == 0
        chat.done()


def test_a_server_that_is_gone_and_comes_back(chat: Chat) -> None:
    chat.say("One")
    port = chat.api.server_address[1]
    chat.api.stop()
    chat.say("Two")
    assert chat.page.inner_text(".problem p") == "The server cannot be reached. Is it still running?"
    again = Api(port)
    threading.Thread(target=again.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        chat.page.get_by_role("button", name="Retry").last.click()
        chat.until(f"document.querySelector('{LAST} .text').innerText === 'Answer number 1.'")
        assert [m["content"] for m in again.asked[0]["messages"]] == ["One", "Answer number 1.", "Two"]
        chat.done()
    finally:
        again.stop()


def test_a_server_that_is_not_there_yet(chat: Chat) -> None:
    chat.page.route("**/v1/models", lambda route: route.abort())
    chat.reload()
    chat.page.wait_for_selector("#notice:has-text('cannot be reached')")
    chat.type("Hello")
    assert chat.page.locator("#prompt").input_value() == "Hello", "a message that was not sent is not lost"
    chat.page.unroute("**/v1/models")
    chat.page.get_by_role("button", name="Try again").click()
    chat.until("document.getElementById('model').value !== ''")
    assert chat.page.locator("#notice p").count() == 0
    chat.page.locator("#prompt").press("Enter")
    chat.until("document.querySelectorAll('.message').length === 2")
    chat.done()


def test_the_api_key_is_asked_for_and_kept_for_the_window_only(chat: Chat) -> None:
    chat.api.key = "sk-secret"
    chat.reload()
    chat.page.wait_for_selector("#notice:has-text('The server wants an API key.')")
    chat.page.get_by_role("button", name="Enter the key").click()
    chat.settle(lambda: chat.eval("document.activeElement.id"), "key")
    chat.page.get_by_label("API key").fill("sk-wrong")
    chat.page.get_by_role("button", name="Save").click()
    chat.page.wait_for_selector("#notice:has-text('does not accept this API key')")
    chat.page.get_by_role("button", name="Enter the key").click()
    chat.page.get_by_label("API key").fill("sk-secret")
    chat.page.get_by_role("button", name="Save").click()
    chat.until("document.getElementById('model').value !== ''")
    assert chat.say("Hello") == "Answer number 1."
    chat.reload()
    assert chat.say("Hello again") == "Answer number 2."
    kept = chat.eval("""async () => {
        const opened = indexedDB.open('llamacpu');
        await new Promise((resolve) => opened.onsuccess = resolve);
        const asked = opened.result.transaction('conversations').objectStore('conversations').getAll();
        await new Promise((resolve) => asked.onsuccess = resolve);
        return JSON.stringify([asked.result, {...localStorage}, document.cookie, document.documentElement.outerHTML]);
    }""")
    assert "sk-secret" not in kept
    other = Chat(chat.context, chat.api)
    other.page.wait_for_selector("#notice:has-text('wants an API key')")
    other.check()


def test_a_browser_without_storage_says_so_and_works(chat: Chat) -> None:
    chat.context.add_init_script("""
        const refuse = () => { throw new DOMException("denied", "SecurityError"); };
        indexedDB.open = refuse;
        Object.defineProperty(window, "localStorage", {get: refuse});
        Object.defineProperty(window, "sessionStorage", {get: refuse});
    """)
    chat.reload()
    assert "store nothing" in chat.page.inner_text("#notice")
    chat.say("One")
    chat.page.get_by_role("button", name="New conversation").click()
    chat.say("Two")
    chat.page.locator("#list .open", has_text="One").click()
    chat.page.wait_for_selector(".message.user:has-text('One')")
    assert chat.titles() == ["Two", "One"]


@pytest.mark.parametrize(("name", "words"), [("QuotaExceededError", "no room left"), ("DataError", "could not store")])
def test_a_full_browser_is_said_in_words(chat: Chat, name: str, words: str) -> None:
    chat.eval(f"() => {{ IDBObjectStore.prototype.put = () => {{ throw new DOMException('full', '{name}'); }}; }}")
    assert chat.say("One") == "Answer number 1."
    assert words in chat.page.inner_text("#notice")
    with chat.page.expect_download():
        chat.page.get_by_role("button", name="Export it").click()
    assert chat.say("Two") == "Answer number 2."


def test_a_long_conversation_shows_its_end_and_the_rest_on_demand(chat: Chat) -> None:
    made = chat.eval("""async () => {
        const { newConversation, addMessage } = await import("./conversation.js");
        const { openStore } = await import("./store.js");
        const long = newConversation();
        let parent = null;
        for (let number = 0; number < 1000; number++) {
            const role = number % 2 ? "assistant" : "user";
            parent = addMessage(long, {parent, role, content: `Message **${number}**`, status: "done"}).id;
        }
        await (await openStore(() => {})).add([long]);
        return long.id;
    }""")
    chat.open(f"#{made}")
    chat.reload()
    assert chat.page.locator(".message").count() == 40
    assert chat.messages()[-1] == "Message 999"
    box = chat.eval("(({scrollHeight, scrollTop, clientHeight}) => [scrollHeight, scrollTop, clientHeight])(scroller)")
    assert box[0] - box[1] - box[2] < 80
    chat.page.get_by_role("button", name="Show earlier messages").click()
    chat.until("document.querySelectorAll('.message').length === 80")
    assert chat.messages()[0] == "Message **920**"
    chat.say("One more")
    assert len(chat.api.asked[-1]["messages"]) == 1001


def test_who_reads_further_up_is_left_there(chat: Chat) -> None:
    chat.say("long")
    chat.api.pause_after = 150
    chat.type("long")
    chat.page.wait_for_selector(f"{LAST} h3")
    chat.page.locator("#scroller").hover()
    chat.page.mouse.wheel(0, -3000)
    chat.page.wait_for_selector("#latest:not([hidden])")
    place = chat.eval("document.getElementById('scroller').scrollTop")
    height = chat.eval("document.getElementById('scroller').scrollHeight")
    chat.api.go.set()
    chat.until(f"document.getElementById('scroller').scrollHeight > {height + 1000}")
    assert chat.eval("document.getElementById('scroller').scrollTop") == pytest.approx(place, abs=400)
    chat.page.get_by_role("button", name="Latest").click()
    chat.done()
    assert chat.page.locator(f"{LAST} h3").last.is_visible()
