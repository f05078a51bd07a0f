"""What a model writes cannot do anything on the chat page, whatever it is and however it is cut into pieces."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from page_browser import Chat
from page_server import HOSTILE, PAGE, RICH

LAST = ".message.assistant.last"


def test_a_hostile_answer_does_nothing(chat: Chat) -> None:
    chat.say("hostile")
    for link in chat.page.locator(f"{LAST} .text a").all():
        if link.get_attribute("href") is None:
            link.click()
    chat.page.wait_for_timeout(200)
    assert chat.eval("window.harmed") is None
    text = chat.page.locator(f"{LAST} .text")
    assert (
        text.locator("script, img, svg, iframe, style, form, input, math, object, embed, [onerror], [onclick]").count()
        == 0
    )
    # The page's own button for copying is the only kind there is.
    assert set(text.locator("button").evaluate_all("all => all.map((one) => one.className)")) == {"copy-code"}
    links = text.locator("a[href]").evaluate_all("all => all.map(({href, rel, target}) => [href, rel, target])")
    safe = ["noopener noreferrer nofollow", "_blank"]
    assert links == [["https://example.org/spy.png", *safe], ["https://example.org/", *safe]]
    # HTML is shown as it was written; what Markdown lacks is allowed without attributes.
    assert '<script>window.harmed = "script"</script>' in text.inner_text()
    assert text.locator("sub").inner_text() == "2"


def test_a_hostile_message_and_title_are_text(chat: Chat) -> None:
    attack = "<img src=x onerror=\"window.harmed='own'\">"
    chat.say(f"rich {attack}")
    chat.page.keyboard.press("Control+k")
    chat.settle(chat.titles, [f"rich {attack}"])
    chat.page.get_by_role("button", name="Options of rich").click()
    chat.page.get_by_role("menuitem", name="Delete").click()
    chat.settle(lambda: attack in chat.page.inner_text("#ask-words"), True)
    assert chat.eval("window.harmed") is None


def test_a_hostile_list_of_models_is_text(chat: Chat) -> None:
    chat.api.models = ["<img src=x onerror=window.harmed=1>", "javascript:alert(1)"]
    chat.reload()
    chat.until("document.getElementById('model').options.length === 2")
    chat.say("Hello")
    assert chat.page.inner_text(f"{LAST} .facts").startswith("<img src=x")
    assert chat.eval("window.harmed") is None


def test_the_policy_stops_what_would_get_past_everything_else(chat: Chat) -> None:
    attempts = {
        "inline script": "add('script', {text: 'window.harmed = 1'})",
        "eval": "window.eval('window.harmed = 2')",
        "HTML": "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')",
        "handler": "document.body.setAttribute('onclick', 'window.harmed = 3')",
        "style": "add('style', {textContent: 'body { display: none }'})",
        "request": "fetch('https://example.org/?secret').catch(() => {})",
        "image": "new Image().src = 'https://example.org/x.png'",
        "frame": "add('iframe', {src: 'https://example.org'})",
    }
    chat.eval("""() => {
        window.add = (tag, more) => document.body.append(Object.assign(document.createElement(tag), more));
    }""")
    for code in attempts.values():
        before = len(chat.violations())
        # Later, because what the test itself evaluates is above the policy.
        chat.eval(f"() => {{ setTimeout(() => {code}); }}")
        chat.until(f"window.violations.length > {before}")
    chat.page.mouse.click(300, 300)
    assert chat.eval("window.harmed") is None
    # They were meant.
    chat.page.wait_for_timeout(300)
    chat.hosts.clear()
    chat.eval("() => { window.violations = []; }")
    chat.errors.clear()


SAME = """async ([text, cuts]) => {
    const { Markdown } = await import("./markdown.js");
    const [slow, quick] = [new Markdown(document.createElement("div")), new Markdown(document.createElement("div"))];
    for (const cut of cuts) slow.show(text.slice(0, cut), true);
    slow.show(text);
    quick.show(text);
    return [slow.element.innerHTML, quick.element.innerHTML];
}"""


def test_a_growing_answer_ends_as_if_it_had_come_at_once(chat: Chat) -> None:
    links = "See [one] and [two].\n\n" + RICH + "\n\n[one]: https://example.org/1\n[two]: https://example.org/2\n"
    lists = "1. a\n2. b\n\n   ```js\n   let x = 1;\n   ```\n- [x] done\n- [ ] open\n\n"
    lists += "| a |\n|---|\n| `x` |\n\n***\n~~a~~ **x"
    code = "```python\n" + "def f(x):\n    return 'a' + x  # add\n" * 200
    codes = "```python\nprint(1)\n```\n\n```python\nprint(2)\n```\n"
    for text in (RICH, HOSTILE, links, lists, codes, code, code + "```\n\nThe end."):
        for step in (1, 7) if len(text) < 4000 else (97, 1001):
            slow, quick = chat.eval(SAME, [text, list(range(0, len(text), step))])
            assert slow == quick


def test_markdown_becomes_what_it_says(chat: Chat) -> None:
    text = """# Head

Some *em*, **strong**, ~~del~~, `a<b`, H<sub>2</sub>O<br>next <kbd>Esc</kbd>, https://example.org/x

3. three
4. four
   - inner

| l | r | c |
|:--|--:|:-:|
| 1 | 2 | 3 |

- [x] done
- [ ] open

> quoted

---

    indented code

```rust
fn main() {}
```

<div>shown</div>

1 < 2 &amp; &copy;
"""
    found = chat.eval(
        """async (text) => {
        const { Markdown } = await import("./markdown.js");
        const element = document.createElement("div");
        new Markdown(element).show(text);
        const list = (selector) => [...element.querySelectorAll(selector)].map((one) => one.textContent.trim());
        const cells = [...element.querySelectorAll("td")].map((cell) => cell.align);
        const tags = "h1 em strong del :not(pre)>code sub kbd a blockquote pre".split(" ");
        const start = element.querySelector("ol").start;
        const tasks = list("ul").at(-1);
        return [Object.fromEntries(tags.map((tag) => [tag, list(tag)])), cells, start, tasks, element.textContent,
          element.querySelectorAll("hr, br").length, list(".hljs-keyword"), list(".code-head span")];
    }""",
        text,
    )
    tags, cells, start, tasks, whole, rules, keywords, languages = found
    assert tags == {
        "h1": ["Head"], "em": ["em"], "strong": ["strong"], "del": ["del"], ":not(pre)>code": ["a<b"], "sub": ["2"],
        "kbd": ["Esc"], "a": ["https://example.org/x"], "blockquote": ["quoted"],
        "pre": ["indented code", "fn main() {}"],
    }  # fmt: skip
    assert cells == ["left", "right", "center"]
    assert start == 3
    assert tasks.split() == ["☑", "done", "☐", "open"]
    assert "<div>shown</div>" in whole
    assert "1 < 2 & ©" in whole
    assert (rules, keywords, languages) == (2, ["fn"], ["text", "rust"])


def test_events_are_read_however_they_are_cut(chat: Chat) -> None:
    wanted = ["one", "zwei €", "a\nb", '{"x": "日本"}', "last", "[DONE]"]
    stream = (
        "data: one\n\n: a comment\ndata:zwei €\r\n\r\nevent: x\nid: 7\ndata: a\ndata: b\n\nretry: 1\n\n"
        'data: {"x": "日本"}\r\rdata: last\n\ndata: [DONE]\n\n'
    )
    found = chat.eval(
        """async (stream) => {
        const { events } = await import("./api.js");
        const bytes = new TextEncoder().encode(stream);
        const all = [];
        for (let size = 1; size < 40; size++) {
            const body = new ReadableStream({start(controller) {
                for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
                controller.close();
            }});
            const read = [];
            for await (const data of events(body)) read.push(data);
            all.push(read);
        }
        return all;
    }""",
        stream,
    )
    assert found == [wanted] * 39


TREE = """async (seed) => {
    const tree = await import("./conversation.js");
    const { written, read } = await import("./transfer.js");
    let state = seed;
    const random = (limit) => (state = (state * 1103515245 + 12345) % 2147483648) % limit;
    const conversation = tree.newConversation();
    for (let step = 0; step < 120; step++) {
        const { messages } = conversation;
        const some = messages[random(messages.length || 1)];
        const kind = random(10);
        if (kind < 7 || !some) {
            const parent = random(8) === 0 ? null : some?.id ?? null;
            tree.addMessage(conversation, {parent, role: random(2) ? "user" : "assistant", content: `text ${step}`});
        } else if (kind < 9) tree.choose(conversation, some.id);
        else tree.removeMessage(conversation, some.id);
        const places = new Map(conversation.messages.map(({id}, index) => [id, index]));
        conversation.messages.forEach(({parent}, index) => {
            if (parent !== null && !(places.get(parent) < index)) throw new Error("a child stands before its parent");
        });
        const { leaf } = conversation;
        if (leaf === null ? conversation.messages.some(({parent}) => parent === null) : !places.has(leaf))
            throw new Error("the shown branch does not exist");
    }
    const [again] = read(written([conversation]));
    const texts = (one) => tree.branch(one).map(({content}) => content);
    const clone = structuredClone(conversation);
    tree.addMessage(conversation, {parent: conversation.leaf, role: "user", content: "here"});
    tree.addMessage(clone, {parent: clone.leaf, role: "user", content: "there"});
    const both = tree.merged(clone, conversation);
    const lengths = [both.messages.length, clone.messages.length + 1];
    return [texts(again), texts(clone).slice(0, -1), ...lengths, texts(both).at(-1)];
}"""


def test_random_trees_stay_whole_and_survive_a_file(chat: Chat) -> None:
    for seed in range(1, 40):
        again, before, joined, expected, last = chat.eval(TREE, seed)
        assert again == before
        assert joined == expected
        assert last == "here"


def sources() -> dict[str, str]:
    names = (".js", ".html", ".css", ".svg")
    return {path.name: path.read_text(encoding="utf-8") for path in PAGE.iterdir() if path.suffix in names}


def test_nothing_comes_from_another_host_or_assigns_html() -> None:
    for name, text in sources().items():
        text = text.replace("http://www.w3.org/", "")
        assert not re.search(r"https?://", text), name
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b", text), name
        assert not re.search(r"<[^>]+ (?:on\w+|style)=", text) or name != "index.html"


def test_every_file_that_is_named_is_there() -> None:
    texts: dict[str, Any] = sources()
    for name, text in texts.items():
        for found in re.findall(r'(?:from|import) "(\./[^"]+)"|(?:href|src)="([\w./]+\.\w+)"', text):
            assert (PAGE / next(filter(None, found))).is_file(), f"{name} names {found}"
    symbols = set(re.findall(r'id="icon-(\w+)"', texts["index.html"]))
    used = set(re.findall(r'#icon-(\w+)"', texts["index.html"]))
    for text in texts.values():
        used |= set(re.findall(r'\bicon(?:Button)?\("(\w+)"', text))
    assert used <= symbols


def test_the_libraries_are_named_with_their_versions_and_licences() -> None:
    folder = PAGE / "vendor"
    rows = re.findall(
        r"\| `(\S+)` \| [^|]+ \| ([\d.]+) \| .*?`(LICENSE\S+)`", (folder / "README.md").read_text(encoding="utf-8")
    )
    named = {file for file, _, licence in rows for file in (file, licence)}
    assert named == {path.name for path in folder.iterdir()} - {"README.md"}
    for file, version, licence in rows:
        assert f"v{version}" in (start := (folder / file).read_text(encoding="utf-8")[:300]) or f" {version} " in start
        assert (folder / licence).stat().st_size > 1000


def test_the_page_is_in_the_package() -> None:
    assert Path(PAGE, "index.html").is_file()
    import llamacpu.server

    assert Path(llamacpu.server.__file__).parent / "page" == PAGE
