"""The conversation at the terminal: what is drawn, what the commands do, and a real terminal."""

import builtins
import io
import json
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamacpu.chat import Chat
from llamacpu.cli.chat.commands import COMMANDS, act
from llamacpu.cli.chat.completion import completions
from llamacpu.cli.chat.conversation import Conversation
from llamacpu.cli.chat.lines import Lines, complete, read_message
from llamacpu.cli.chat.loop import take_turn
from llamacpu.model import Model
from llamacpu.sampling import Sampling


def type_lines(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    typed = iter(lines)
    monkeypatch.setattr(builtins, "input", lambda _prompt: next(typed))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "hello"),
        (["one \\", "two"], "one \ntwo"),
        (['"""first', "second", 'third"""'], "first\nsecond\nthird"),
        (['"""', "inside", '"""'], "inside"),
        (['"""short"""'], "short"),
    ],
)
def test_messages_may_have_many_lines(monkeypatch: pytest.MonkeyPatch, lines: list[str], message: str) -> None:
    type_lines(monkeypatch, *lines)
    assert read_message() == message


@pytest.fixture
def conversation(tiny_model: Callable[..., Path]) -> Iterator[Conversation]:
    with Model(tiny_model("mha"), threads=1) as model:
        settings = {
            "max_tokens": 5,
            "sampling": Sampling(temperature=0),
            "stop": (),
            "ignore_end": True,
            "grammar": None,
        }
        yield Conversation(
            model.session(), settings, {}, "Be brief.", Chat.of(model, "chatml"), stats=False, drawn=False
        )


def test_answers_are_remembered(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    conversation.answer("Hello")
    said = capsys.readouterr().out
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert said == conversation.messages[1]["content"] + "\n"
    known = conversation.session.position
    conversation.answer("More")
    assert conversation.result is not None
    assert conversation.result.cached_tokens >= known - 1
    assert len(conversation.messages) == 4


def test_retry_gives_the_last_message_another_answer(conversation: Conversation) -> None:
    conversation.answer("Hello")
    before = list(conversation.messages)
    act(conversation, "/retry")
    assert conversation.messages == before


def test_a_conversation_is_saved_and_loaded(conversation: Conversation, tmp_path: Path) -> None:
    conversation.answer("Hello")
    file = tmp_path / "talk.json"
    act(conversation, f"/save {file}")
    messages = list(conversation.messages)
    act(conversation, "/clear")
    assert conversation.messages == []
    assert conversation.session.position == 0
    act(conversation, "/system Be long.")
    act(conversation, f"/load {file}")
    assert conversation.messages == messages
    assert conversation.system == "Be brief."


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '{"messages": 3}',
        '{"messages": [{"role": 1}]}',
        '{"messages": [5]}',
        "[" * 200000,
        "\0",
        "1e999",
    ],
)
def test_a_file_that_is_no_conversation_is_refused(
    conversation: Conversation, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "talk.json"
    file.write_text(text, encoding="utf-8")
    act(conversation, f"/load {file}")
    told = capsys.readouterr().err
    assert told.startswith("Error: ")
    assert told.count("\n") == 1
    assert conversation.messages == []
    conversation.answer("Hello")
    act(conversation, f"/save {file}")
    assert "something other than a saved conversation" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == text


def test_a_conversation_is_saved_over_an_older_one_and_through_a_link(
    conversation: Conversation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    act(conversation, "/save ~/talk.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "talk.json")
    before = (tmp_path / "talk.json").read_bytes()
    conversation.answer("Hello")
    for said in ("n\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(said))
        act(conversation, "/save ~/link.json")
        assert (tmp_path / "talk.json").read_bytes() == before
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    act(conversation, "/save ~/link.json")
    messages = list(conversation.messages)
    act(conversation, "/clear")
    act(conversation, "/load ~/talk.json")
    assert conversation.messages == messages
    assert (tmp_path / "link.json").is_symlink()


def test_settings_are_changed_and_checked(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    act(conversation, "/set temperature 0.5")
    act(conversation, "/set repeat-last-n 10")
    act(conversation, "/set max_tokens -1")
    act(conversation, "/set seed 7")
    sampling = conversation.settings["sampling"]
    assert (sampling.temperature, sampling.penalty_last_n, sampling.seed) == (0.5, 10, 7)
    assert conversation.settings["max_tokens"] is None
    capsys.readouterr()
    for line in ("/set top_p 3", "/set top_p much", "/set nothing 3", "/set max_tokens -5", "/save", "/stats"):
        act(conversation, line)
        told = capsys.readouterr().err
        assert told.startswith("Error: "), line
        assert "convert" not in told, "Python's own words"
    assert conversation.settings["sampling"].top_p == 0.95


def test_help_names_every_command(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    act(conversation, "/help")
    text = capsys.readouterr().err
    assert all(name in text for name in COMMANDS)
    assert act(conversation, "/exit") is True


def test_a_mistyped_command_is_no_message(
    conversation: Conversation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_lines(monkeypatch, "/sav talk.json")
    assert take_turn(conversation, Lines()) is True
    assert capsys.readouterr().err.startswith("Error: there is no command /sav")
    assert conversation.messages == []
    type_lines(monkeypatch, "/etc/hosts is a file", " /sav")
    for _ in range(2):
        assert take_turn(conversation, Lines()) is True
    assert [m["content"] for m in conversation.messages if m["role"] == "user"] == ["/etc/hosts is a file", " /sav"]


def test_the_tab_key_completes_commands_and_settings() -> None:
    assert [complete("/s", number) for number in range(5)] == ["/set ", "/system ", "/save ", "/stats", None]
    assert completions("/set temp") == [("temp", "temperature ")]
    assert completions("/set overflow t") == [("t", "truncate")]
    assert complete("", 0) is None
    assert complete("word", 0) is None


def test_a_message_that_does_not_fit_is_forgotten(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.answer("word " * 2000)
    assert "the context holds" in capsys.readouterr().err
    assert conversation.messages == []


def test_text_that_cannot_be_encoded_does_not_end_the_conversation(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.answer("a\ud800")
    assert capsys.readouterr().err.startswith("Error: ")
    assert conversation.messages == []
    conversation.answer("a")
    assert len(conversation.messages) == 2


class Terminal:
    """The command in a process with a terminal of its own."""

    def __init__(self, *arguments: object) -> None:
        import pty

        environment = {"PYTHONPATH": str(Path(__file__).resolve().parent.parent / "python"), "TERM": "dumb"}
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            command = [sys.executable, "-m", "llamacpu", *map(str, arguments)]
            os.execve(command[0], command, {**os.environ, **environment})
        self.text = ""

    def wait_for(self, pattern: str) -> None:
        end = time.monotonic() + 60
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            if not select.select([self.terminal], [], [], 1)[0]:
                continue
            try:
                self.text += os.read(self.terminal, 4096).decode(errors="replace")
            except OSError:
                assert re.search(pattern, self.text), self.text

    def type(self, text: str) -> None:
        self.text = ""
        os.write(self.terminal, text.encode())

    def press(self, key: str, pattern: str) -> None:
        """Press a key until it shows: Python misses a signal between the prompt and the wait for input, until a key."""
        self.type(key)
        end = time.monotonic() + 60
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            if select.select([self.terminal], [], [], 2)[0]:
                self.text += os.read(self.terminal, 4096).decode(errors="replace")
            else:
                os.write(self.terminal, key.encode())

    def status(self) -> int:
        try:
            while os.read(self.terminal, 4096):
                pass
        except OSError:
            pass
        os.close(self.terminal)
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
def test_a_conversation_at_a_real_terminal(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    model = tiny_model("mha")
    terminal = Terminal("run", model, "--template", "chatml", "-n", "4", "--ignore-end", "--stats", "-t", "1")
    terminal.wait_for(r">>> ")
    terminal.type("hello there\n")
    terminal.wait_for(r"ended by max tokens\s+.*>>> ")
    terminal.type("/set max_tokens -1\n")
    terminal.wait_for(r"max_tokens = -1\s+.*>>> ")
    terminal.type(f"/save {file}\n")
    terminal.wait_for(r"(?s)Saved 2 messages.*>>> ")
    terminal.press("\x03", r"ends the conversation")
    terminal.type("/exit\n")
    assert terminal.status() == 0
    assert [message["role"] for message in json.loads(file.read_text(encoding="utf-8"))["messages"]] == [
        "user",
        "assistant",
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
def test_interrupting_an_answer_keeps_the_conversation(tiny_model: Callable[..., Path]) -> None:
    from tiny_models import Shape

    model = tiny_model(Shape(context=1_000_000))
    terminal = Terminal("run", model, "--template", "chatml", "--ignore-end", "--plain", "--stats", "-t", "1")
    terminal.wait_for(r">>> ")
    terminal.type("hello\n")
    terminal.wait_for(r"(?s)hello\s.{40}")
    os.kill(terminal.process, signal.SIGINT)
    terminal.wait_for(r"ended by cancelled\s+.*>>> ")
    terminal.type("\x04")
    assert terminal.status() == 0


def test_a_full_context_drops_the_oldest_turns_and_says_so(
    tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with Model(tiny_model("mha"), threads=1) as model:
        settings = {
            "max_tokens": 4, "sampling": Sampling(temperature=0), "stop": (), "ignore_end": True, "grammar": None,
        }  # fmt: skip
        small = Conversation(model.session(160), settings, {}, None, Chat.of(model), stats=False, drawn=False)
        for number in range(6):
            small.answer(f"message {number} of several words")
        told = capsys.readouterr().err
        assert "The context is full: the oldest 3 turns are dropped." in told
        assert "Error" not in told
        assert small.messages[0]["role"] == "user"
        assert small.messages[-2]["content"].startswith("message 5")
        kept = list(small.messages)
        small.answer("word " * 200)
        assert capsys.readouterr().err.startswith("Error: the prompt has")
        assert small.messages == kept, "a message that is too long alone costs nothing"


def test_an_answer_that_fills_the_context_goes_on_without_the_oldest_turns(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    act(conversation, "/set context 500")
    conversation.answer("one message of several words")
    conversation.answer("another message of several words")
    act(conversation, "/set max_tokens -1")
    capsys.readouterr()
    conversation.answer("go on")
    out, told = capsys.readouterr()
    assert "the oldest 2 turns are dropped, and the answer went on" in told
    assert told.splitlines()[-1].startswith("The context is full: the answer ends here")
    assert [message["content"] for message in conversation.messages] == ["go on", out.removesuffix("\n")]
    act(conversation, "/set max_tokens 3")
    conversation.answer("more")
    assert "Error" not in capsys.readouterr().err
    assert conversation.messages[-2]["content"] == "more"


def test_a_saved_conversation_goes_on_without_computing_it_again(
    conversation: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.answer("Hello")
    act(conversation, f"/save {tmp_path / 'a talk'}")
    assert "keys and values" in capsys.readouterr().err
    assert (tmp_path / "a talk").stat().st_mode & 0o077 == 0
    messages, known = list(conversation.messages), conversation.session.position
    conversation.answer("More")
    second = conversation.messages[-1]
    act(conversation, "/clear")
    act(conversation, "/system Be long.")
    act(conversation, f"/load {tmp_path / 'a talk'}")
    assert (conversation.messages, conversation.system) == (messages, "Be brief.")
    assert conversation.session.position == known
    conversation.answer("More")
    assert conversation.result is not None
    assert conversation.result.cached_tokens >= known - 1
    assert conversation.messages[-1] == second


def test_damaged_sessions_and_those_of_other_models_are_one_line(
    conversation: Conversation, tiny_model: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.answer("Hello")
    good = tmp_path / "good.session"
    act(conversation, f"/save {good}")
    data = good.read_bytes()
    conversation.session.save(tmp_path / "bare.session")
    (tmp_path / "short.session").write_bytes(data[:-50])
    (tmp_path / "flipped.session").write_bytes(data[:-50] + bytes([data[-50] ^ 1]) + data[-49:])
    (tmp_path / "header.session").write_bytes(data[:16] + bytes(32) + data[48:])
    (tmp_path / "binary.json").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "number.json").write_text('{"messages": ' + "9" * 5000 + "}")
    (tmp_path / "role.json").write_text('{"messages": [{"role": "root", "content": "x"}]}')
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.session")
    messages = list(conversation.messages)
    capsys.readouterr()
    for name in ("bare", "short", "flipped", "header", "pipe", "nosuch"):
        assert not act(conversation, f"/load {tmp_path / name}.session")
    for name in ("binary", "number", "role", ""):
        assert not act(conversation, f"/load {tmp_path / name}.json")
    assert not act(conversation, f"/load {tmp_path}")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 11
    assert all(line.startswith("Error: ") for line in told), told
    assert conversation.messages == messages
    with Model(tiny_model("gqa"), threads=1) as other:
        settings = {**conversation.settings}
        stranger = Conversation(other.session(), settings, {}, None, Chat.of(other, "chatml"), stats=False, drawn=False)
        act(stranger, f"/load {good}")
        assert "of another model" in capsys.readouterr().err
        assert stranger.messages == messages
        stranger.answer("More")
        assert len(stranger.messages) == 4


def test_context_and_overflow_are_settings_and_wrong_values_are_one_sentence(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    conversation.answer("Hello")
    act(conversation, "/set context 300")
    act(conversation, "/set overflow shift")
    assert (conversation.session.context, conversation.how["overflow"]) == (300, "shift")
    conversation.answer("More")
    assert len(conversation.messages) == 4
    act(conversation, "/set overflow")
    assert capsys.readouterr().err.endswith("overflow = shift\n")
    act(conversation, "/set top_k " + "9" * 30)
    act(conversation, "/set overflow error")
    conversation.answer("And with that?")
    assert "Traceback" not in capsys.readouterr().err
    act(conversation, "/set overflow shift")
    capsys.readouterr()
    for wrong in ("repeat_last_n -5", "context 0", "context 99999999999999", "context many", "overflow never",
                  "overflo shift", "temperature hot", "top_k 1.5", "mirostat 9", "seed 1e999",
                  "max_tokens 3.5"):  # fmt: skip
        act(conversation, f"/set {wrong}")
        told = capsys.readouterr().err
        assert told.startswith("Error: "), told
        assert told.count("\n") == 1, told
        assert wrong.split()[0] in told
    assert (conversation.session.context, conversation.how["overflow"]) == (300, "shift")


def test_the_system_prompt_is_cleared(conversation: Conversation) -> None:
    act(conversation, "/system -")
    assert conversation.system is None
    assert act(conversation, "/quit") is True
