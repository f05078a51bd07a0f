"""What a person sees of a conversation: a real terminal at 40, 80 and 200 columns."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("pty", reason="Windows has no pseudo-terminals of this kind")
pyte = pytest.importorskip("pyte")

from terminal_screen import TESTS, Screen  # noqa: E402

CHILD = TESTS / "chat_child.py"
Chat = Callable[..., Screen]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def chat(home: Path) -> Iterator[Chat]:
    """Start a conversation in a home of its own."""
    running: list[Screen] = []

    def start(*arguments: object, **options: object) -> Screen:
        folders = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "XDG_CONFIG_HOME": str(home)}
        screen = Screen(CHILD, *arguments, **{**folders, **options})  # type: ignore[arg-type]
        running.append(screen)
        screen.prompt()
        return screen

    yield start
    for screen in running:
        screen.__exit__()


def test_a_paste_of_several_lines_is_one_message_and_is_edited_across_lines(chat: Chat, home: Path) -> None:
    screen = chat()
    screen.paste("first\nsecond\nthird")
    screen.wait_for("... third")
    assert "You said" not in screen.text()
    screen.type("\x1b[A\x1b[AX")  # up, up: within the message
    screen.wait_for(lambda text: ">>> firstX" in text)
    screen.type("\r")
    screen.wait_for("You said 3 lines: 'firstX\\nsecond\\nthird'.")
    screen.prompt()
    screen.type("one \\\r")
    screen.wait_for("\n...")
    screen.type("two\x1b\rthree\r")
    screen.wait_for("3 lines: 'one \\ntwo\\nthree'.")
    screen.prompt()
    screen.type('"""\ra\rb"""\r')
    screen.wait_for("2 lines: 'a\\nb'.")
    screen.prompt()
    screen.type("\x04")
    assert screen.status() == 0
    file = home / "state" / "llamacpu" / "history.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert kept == ["firstX\nsecond\nthird", "one \ntwo\nthree", '"""\na\nb"""']


def test_history_outlives_the_conversation_and_is_searched(chat: Chat) -> None:
    screen = chat()
    for text in ("alpha one", "beta two", "gamma three"):
        screen.type(f"{text}\r")
        screen.wait_for(f"'{text}'.")
        screen.prompt()
    screen.type("\x04")
    assert screen.status() == 0
    later = chat()
    later.type("\x1b[A")
    later.wait_for(">>> gamma three")
    later.type("\x03")
    later.prompt()
    later.type("\x12alph")
    later.wait_for(lambda text: "reverse-i-search" in text and "alpha one" in text)
    later.type("\r")
    later.type("\r")
    later.wait_for("1 lines: 'alpha one'.")
    later.prompt()
    later.type("\x04")
    assert later.status() == 0


def test_a_damaged_history_costs_nothing(chat: Chat, home: Path) -> None:
    file = home / "state" / "llamacpu" / "history.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(b'\xff\x00\n[[[\n3\n"good"\n' + b"[" * 200_000)
    screen = chat()
    screen.type("\x1b[A")
    screen.wait_for(">>> good")
    screen.type("\x03")
    screen.prompt()
    screen.type("hello\r")
    screen.wait_for("'hello'.")
    screen.prompt()


def test_a_history_that_cannot_be_kept_is_told_once(chat: Chat, home: Path) -> None:
    (home / "state").write_text("no folder")
    screen = chat()
    screen.type("hello\r")
    screen.wait_for("'hello'.")
    screen.prompt()
    screen.type("more\r")
    screen.wait_for("'more'.")
    assert screen.prompt().count("is not kept for later") == 1


def test_ctrl_c_and_ctrl_d(chat: Chat) -> None:
    screen = chat()
    screen.type("half a message")
    screen.wait_for(">>> half a message")
    screen.type("\x03")
    screen.prompt()
    assert "ends the conversation" not in screen.text()
    screen.type("\x03")
    screen.wait_for("ends the conversation")
    screen.prompt()
    screen.type("endless\r")
    screen.wait_for("word word word word")
    screen.interrupt()
    screen.prompt()
    assert "Error" not in screen.text()
    screen.type("more\r")
    screen.wait_for("'more'.")
    screen.prompt()
    screen.type("x\x04\x01\x04\x04")  # deletes nothing behind the x, then the x; on an empty line it is the end
    assert screen.status() == 0


def test_commands_settings_and_files_are_completed(chat: Chat, home: Path) -> None:
    (home / "talk of today.session").write_text("x")
    (home / "talks").mkdir()
    screen = chat()
    screen.type("/cl\t")
    screen.wait_for(">>> /clear")
    screen.type("\x15/set tempe\t")
    screen.wait_for(">>> /set temperature")
    screen.type("0.5\r")
    screen.wait_for("temperature = 0.5")
    screen.prompt()
    screen.type("/set overflow sh\t")
    screen.wait_for("/set overflow shift")
    screen.type("\x15/load ~/talk\t")
    screen.wait_for(lambda text: "talk of today.session" in text and "talks/" in text)
    screen.type(" \t")
    screen.wait_for("/load ~/talk of today.session")
    screen.type("\r")
    screen.wait_for("Error: ~/talk of today.session is no JSON")
    screen.prompt()


def test_an_external_editor_writes_the_message(chat: Chat, home: Path) -> None:
    editor = home / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf " and\\nmore" >> "$1"\n')
    editor.chmod(0o700)
    screen = chat(EDITOR=str(editor))
    screen.type("begun\x18\x05")
    screen.wait_for("2 lines: 'begun and\\nmore'.")
    screen.prompt()
    screen.type("/edit text\r")
    screen.wait_for("3 lines: 'text\\n and\\nmore'.")
    screen.prompt()


DOCUMENT = {
    40: [
        "A title", "",
        "Some slanted, strong and coded words,", "which go over the edge of any narrow",
        "terminal that there is, and a link", "(https://example.org/).", "",
        "1. One", "   ◦ with a nested item that is long", "     enough to be wrapped at forty", "     columns",
        "2. Two", "",
        "▌ Quoted words that are long enough to", "▌ be wrapped at the edge, too.", "",
        "Name   Count", "────────────", "one        1", "many    1000", "",
        "```python", 'print("hello")  # code', "```",
        "日本語の文章は空白なしで書かれますから、", "行の端で折り返します。🎉",
    ],
    80: [
        "A title", "",
        "Some slanted, strong and coded words, which go over the edge of any narrow",
        "terminal that there is, and a link (https://example.org/).", "",
        "1. One", "   ◦ with a nested item that is long enough to be wrapped at forty columns", "2. Two", "",
        "▌ Quoted words that are long enough to be wrapped at the edge, too.", "",
        "Name   Count", "────────────", "one        1", "many    1000", "",
        "```python", 'print("hello")  # code', "```",
        "日本語の文章は空白なしで書かれますから、行の端で折り返します。🎉",
    ],
    200: [
        "A title", "",
        "Some slanted, strong and coded words, which go over the edge of any narrow terminal that there is, and a link "
        "(https://example.org/).", "",
        "1. One", "   ◦ with a nested item that is long enough to be wrapped at forty columns", "2. Two", "",
        "▌ Quoted words that are long enough to be wrapped at the edge, too.", "",
        "Name   Count", "────────────", "one        1", "many    1000", "",
        "```python", 'print("hello")  # code', "```",
        "日本語の文章は空白なしで書かれますから、行の端で折り返します。🎉",
    ],
}  # fmt: skip


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_an_answer_is_drawn_at_every_width(chat: Chat, columns: int) -> None:
    screen = chat(columns=columns, rows=50)
    greeting = len(screen.lines()) - 1
    screen.type("document\r")
    screen.wait_for("print")
    screen.prompt()
    assert screen.lines()[greeting:] == [">>> document", *DOCUMENT[columns], ">>>"]
    assert screen.style("A title").bold
    assert screen.style("slanted").italics
    assert screen.style("print").fg != "default"
    screen.type("/help\r")
    screen.wait_for("opens an editor")
    screen.prompt()
    assert all(len(line) <= columns for line in screen.lines())
    screen.type("日本語の長い文章を入力します。🎉" * 2)
    typed = "日本語の長い文章を入力します。🎉" * 2
    screen.wait_for(lambda text: "".join(text.split()).endswith(typed))


def test_the_window_is_resized_during_an_answer(chat: Chat) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    screen = chat(columns=80, rows=40, CHAT_GATE=str(reading), CHAT_HOLD="27")
    screen.type("prose\r")
    screen.wait_for("The quick brown fox")
    screen.resize(40, 40)
    os.write(writing, b"..")
    screen.wait_for("Second paragraph.")
    screen.prompt()
    answer = screen.lines()[2:-1]
    whole = (
        "The quick brown fox jumps over the lazy dog and then, after a while, comes back to run() once more to see "
        "whether anything at all has changed. Second paragraph."
    )
    assert " ".join(" ".join(answer).split()) == whole
    assert max(map(len, answer)) <= 40
    screen.type("more\r")
    screen.wait_for("'more'.")
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_text_of_a_model_never_commands_the_terminal(chat: Chat, environment: dict[str, str]) -> None:
    screen = chat(columns=60, **environment)
    before = len(screen.written)
    screen.type("hostile\r")
    screen.wait_for(lambda text: " end\n" in text.replace("end\n", " end\n"))
    screen.prompt()
    written = screen.written[before:]
    for sequence in (b"\x1b]0;", b"\x1b[2J", b"\x1b[5m", b"\x1b[1A`", b"\x07", b"\xc2\x9b", b"\x1b[6n **"):
        assert sequence not in written
    assert "␛]0;title␇" in screen.text()
    if environment.get("TERM") == "dumb":
        assert b"\x1b" not in screen.written
    plain = bool(environment)
    assert ("**␛[5mbold**" in screen.text().replace("\n", "")) is plain
    assert (b"\x1b[0m" in written.split(b"title")[1].split(b"end")[0]) is not plain


def without_terminal_extra(home: Path) -> dict[str, str]:
    """An environment in which neither prompt_toolkit nor rich is installed."""
    for name in ("prompt_toolkit", "rich", "markdown_it", "pygments"):
        (home / "none").mkdir(exist_ok=True)
        (home / "none" / f"{name}.py").write_text(f"raise ModuleNotFoundError('no {name}', name='{name}')\n")
    return {"PYTHONPATH": os.pathsep.join([str(home / "none"), str(TESTS.parent / "python"), str(TESTS)])}


def test_without_the_extra_a_conversation_is_plain_and_the_extra_is_recommended(chat: Chat, home: Path) -> None:
    screen = chat(columns=40, **without_terminal_extra(home))
    assert " ".join(screen.text().split()).count('pip install "llamacpu[terminal]"') == 1
    screen.type("prose\r")
    screen.wait_for("Second paragraph.")
    screen.prompt()
    assert "*brown fox*" in screen.text()
    screen.type("two \\\r")
    screen.wait_for("\n...")
    screen.type("lines\r")
    screen.wait_for("said 2 lines")
    screen.prompt()
    screen.type("\x04")
    assert screen.status() == 0
    kept = (home / "state" / "llamacpu" / "history.jsonl").read_text()
    assert [json.loads(line) for line in kept.splitlines()] == ["prose", "two \nlines"]


def test_answers_go_into_a_pipe_alone(home: Path) -> None:
    file = home / "answers.txt"
    code = (
        f"import os, sys; os.dup2(os.open({str(file)!r}, os.O_WRONLY | os.O_CREAT, 0o600), 1); "
        f"os.execv(sys.executable, [sys.executable, {str(CHILD)!r}])"
    )
    with Screen("-c", code, HOME=str(home), XDG_STATE_HOME=str(home)) as screen:
        screen.prompt()
        screen.type("prose\r")
        screen.wait_for(lambda text: text.count(">>>") == 2)
        screen.type("\x04")
        assert screen.status() == 0
    written = file.read_text()
    assert written.startswith("The quick *brown fox*")
    assert ">>>" not in written
    assert "\x1b" not in written


def test_the_model_is_read_while_a_message_is_typed(chat: Chat) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    screen = chat(columns=40, CHAT_LOAD=str(reading))
    screen.type("first message\r")
    screen.wait_for("Loading the model")
    bar = next(line for line in screen.lines() if "Loading" in line)
    assert len(bar) <= 40
    assert "3.2 GB/8.6 GB" in bar
    screen.interrupt()
    screen.prompt()
    assert "Loading" not in screen.text()
    screen.type("second message\r")
    screen.wait_for("Loading the model")
    os.write(writing, b".")
    screen.wait_for("'second message'.")
    assert "'first message'" not in screen.text()
    other = chat(columns=40, CHAT_LOAD=str(reading))
    os.read(reading, 1)
    other.type("/exit\r")
    assert other.status() == 0
    os.close(reading)
    os.close(writing)


def test_a_conversation_with_a_model_is_stopped_saved_and_goes_on(tiny_model: Chat, home: Path) -> None:
    from tiny_models import Shape

    model = tiny_model(Shape(context=1_000_000))
    words = ("-m", "llamacpu", "run", model, "--template", "chatml", "--ignore-end", "--plain", "--stats", "-t", "1")
    with Screen(*words, columns=60, HOME=str(home), XDG_STATE_HOME=str(home)) as screen:
        screen.prompt()
        screen.paste("hello\nthere")
        screen.type("\r")
        screen.wait_for(lambda text: len(text.partition("... there")[2]) > 80)
        screen.interrupt()
        screen.wait_for("ended by cancelled")
        screen.prompt()
        screen.type("/save ~/talk\r")
        screen.wait_for("with keys and values")
        screen.prompt()
        screen.type("/clear\r/set max_tokens 3\r/load ~/talk\r")
        screen.wait_for("Loaded 2 messages")
        screen.prompt()
        screen.type("more\r")
        screen.wait_for("already known")
        screen.prompt()
        screen.type("/quit\r")
        assert screen.status() == 0


def test_nothing_is_overwritten_without_a_yes(chat: Chat, home: Path) -> None:
    screen = chat()
    screen.type("hello\r")
    screen.wait_for("'hello'.")
    screen.prompt()
    screen.type("/save ~/talk.json\r")
    screen.wait_for("Saved 2 messages")
    screen.prompt()
    before = (home / "talk.json").read_bytes()
    screen.type("more\r")
    screen.wait_for("'more'.")
    screen.prompt()
    for answer, told in (("n\r", "Nothing was saved"), ("\x03", "Nothing was done"), ("y\r", "Saved 4 messages")):
        screen.type("/save ~/talk.json\r")
        screen.wait_for(lambda text: text.endswith("[y/N]:"))
        assert (home / "talk.json").read_bytes() == before
        if answer == "\x03":
            screen.press(answer, told)
        else:
            screen.type(answer)
        screen.wait_for(told)
        screen.prompt()
    assert (home / "talk.json").read_bytes() != before
    (home / "notes.txt").write_text("mine")
    screen.type("/save ~/notes.txt\r")
    screen.wait_for("something other than a saved conversation")
    screen.prompt()
    assert (home / "notes.txt").read_text() == "mine"


def test_history_can_be_turned_off(chat: Chat, home: Path) -> None:
    screen = chat("--no-history")
    screen.type("secret\r")
    screen.wait_for("'secret'.")
    screen.prompt()
    screen.type("\x1b[A")
    screen.wait_for(lambda text: text.endswith(">>> secret"))
    screen.type("\x03")
    screen.prompt()
    screen.resize(60, 20)
    screen.type("after a resize\r")
    screen.wait_for("'after a resize'.")
    screen.prompt()
    screen.type("\x04")
    assert screen.status() == 0
    assert not (home / "state").exists()


def test_what_is_typed_during_an_answer_waits_for_the_next_prompt(chat: Chat) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    screen = chat(CHAT_GATE=str(reading), CHAT_HOLD="8")
    screen.type("now\r")
    screen.wait_for("You said")
    screen.type("typed ahead")
    os.write(writing, b".")
    screen.wait_for(">>> typed ahead")
    assert screen.text().count("typed ahead") == 1
    screen.type("\x15slow\r")
    screen.wait_for(lambda text: text.endswith("You said"))
    screen.type("a whole message\r")
    os.write(writing, b"..")
    screen.wait_for("'a whole message'.")
    os.close(reading)
    os.close(writing)
