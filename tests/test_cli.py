"""The command line: what it prints where, and the status that it ends with."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llamacpu.cli.bench_load import fair_share, waiting_load
from llamacpu.cli.group import COMMANDS, command_line
from llamacpu.cli.terminal import PictureBar, PromptBar
from llamacpu.families.memory import amount
from tiny_models import Shape

PYTHON = str(Path(__file__).resolve().parent.parent / "python")


def invoke(*arguments: object, stdin: str | None = None) -> Result:
    """The command in this process; stdin is no terminal."""
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments], input=stdin)


def start(*arguments: object) -> "subprocess.Popen[str]":
    """The command in its own process, with Ctrl-C as a terminal gives it."""
    environment = {**os.environ, "PYTHONPATH": PYTHON}
    restore = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-m", "llamacpu", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        preexec_fn=restore,
    )


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("mha")


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys; sys.argv = ['llamacpu', '--help']\n"
        "from llamacpu.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(code, *sorted(name for name in sys.modules if name.startswith(('llamacpu', 'numpy'))))"
    )
    environment = {**os.environ, "PYTHONPATH": PYTHON}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    for name, text in COMMANDS.items():
        assert name in done.stdout
        assert text in done.stdout
    assert done.stdout.splitlines()[-1] == "0 llamacpu llamacpu.cli llamacpu.cli.group llamacpu.cli.streams"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: llamacpu {name} ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["run", "--no-such-flag"],
        ["run", "m.gguf", "-p", "x", "--raw", "-s", "be brief"],
        ["run", "m.gguf", "-p", "x", "--special"],
        ["run", "m.gguf", "-p", "x", "-n", "-2"],
        ["run", "m.gguf", "-p", "x", "--threads", "0"],
        ["run", "m.gguf", "-p", "x", "--json-schema", "{}", "--grammar", "g"],
        ["tokenize", "m.gguf", "a", "--file", "b"],
        ["tokenize", "m.gguf", "a", "--ids", "--json"],
        ["bench"],
        ["info"],
    ],
)
def test_wrong_usage_has_status_2(arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: llamacpu" in result.stderr


def test_a_setting_out_of_range_is_wrong_usage(model: Path) -> None:
    result = invoke("run", model, "-p", "x", "--top-p", "7")
    assert result.exit_code == 2
    assert "top_p is 7.0; expected 0 to 1" in result.stderr


@pytest.mark.parametrize("command", [["run", "-p", "x"], ["info"], ["tokenize", "-p", "x"], ["bench"]])
def test_an_error_is_one_line_and_status_1(command: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\0\0\0 and then nothing that makes sense")
    for path in (broken, tmp_path / "absent.gguf", tmp_path):
        result = invoke(command[0], path, *command[1:])
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1


def test_raw_output_is_the_text_and_nothing_else(model: Path) -> None:
    arguments = ["run", model, "--raw", "-p", "Hello", "-n", "12", "--temperature", "0"]
    plain = invoke(*arguments)
    document = json.loads(invoke(*arguments, "--json").stdout)
    assert plain.exit_code == 0
    assert plain.stdout == document["text"]
    assert plain.stderr == ""
    assert document["generated_tokens"] == len(document["tokens"]) <= 12
    assert document["finish_reason"] in ("length", "stop")
    assert document["prompt_tokens"] > 0
    assert document["timings"]["prompt_tokens_per_second"] > 0
    assert len(document["timings"]["token_seconds"]) == document["generated_tokens"]


def test_a_chat_answer_ends_with_a_line_end(model: Path) -> None:
    arguments = ["run", model, "-p", "Hello", "-n", "6", "--seed", "1", "--template", "chatml"]
    plain = invoke(*arguments)
    assert plain.exit_code == 0, plain.output
    text = json.loads(invoke(*arguments, "--json").stdout)["text"]
    assert plain.stdout == (text if text.endswith("\n") else text + "\n")


def test_the_prompt_may_come_from_stdin_or_a_file(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("Once upon a time", encoding="utf-8")
    common = ["run", model, "--raw", "-n", "8", "--temperature", "0"]
    expected = invoke(*common, "-p", "Once upon a time").stdout
    assert expected
    assert invoke(*common, stdin="Once upon a time").stdout == expected
    assert invoke(*common, "--file", file).stdout == expected
    assert invoke(*common, "--file", "-", stdin="Once upon a time").stdout == expected
    joined = invoke(*common, "-p", "Read:", "--file", file).stdout
    assert joined == invoke(*common, "-p", "Read:\n\nOnce upon a time").stdout


def test_bytes_that_are_no_text_are_an_error(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(b"ab\xff\xfe")
    result = invoke("run", model, "--raw", "--file", file)
    assert result.exit_code == 1
    assert "is not UTF-8 text (byte 2)" in result.stderr


@pytest.mark.parametrize("option", ["-p", "--system", "--stop", "--template", "--json-schema"])
def test_arguments_that_are_no_text_are_wrong_usage(model: Path, option: str) -> None:
    result = invoke("run", model, "-p", "x", option, "a\udcff")
    assert result.exit_code == 2
    assert "not UTF-8 text" in result.stderr


def test_a_file_that_is_not_there_is_named(model: Path) -> None:
    result = invoke("run", model, "--raw", "--file", "no-such-file.txt")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: no-such-file.txt: No such file or directory; check the path\n",
    )


def test_the_seed_decides(model: Path) -> None:
    arguments = ["run", model, "--raw", "-p", "Hello", "-n", "20", "--temperature", "1.5", "--top-k", "0"]
    first, again, other = (invoke(*arguments, "--seed", seed).stdout for seed in (5, 5, 6))
    assert first == again != other


def test_a_stop_string_ends_the_answer(model: Path) -> None:
    arguments = ["run", model, "--raw", "-p", "Hello", "-n", "40", "--temperature", "0", "--ignore-end"]
    text = invoke(*arguments).stdout
    stop = text[8:10]
    assert invoke(*arguments, "--stop", stop).stdout == text[: text.index(stop)]


def test_answers_keep_to_a_schema_or_a_grammar(model: Path, tmp_path: Path) -> None:
    pytest.importorskip("llguidance", reason="grammars need the extra [grammar]")
    yes = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    schema = json.dumps({**yes, "additionalProperties": False})
    file = tmp_path / "schema.json"
    file.write_text(schema, encoding="utf-8")
    common = ["run", model, "--raw", "-p", "Hello", "-n", "60", "--temperature", "1.2", "--seed", "2"]
    for given in (schema, file):
        answer = json.loads(invoke(*common, "--json-schema", given).stdout)
        assert isinstance(answer["yes"], bool)
    grammar = tmp_path / "answer.gbnf"
    grammar.write_text('root ::= "yes" | "no"', encoding="utf-8")
    assert invoke(*common, "--grammar", grammar).stdout in ("yes", "no")
    refused = invoke(*common, "--json-schema", '{"type": "nonsense"}')
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("Error: ")


def test_a_prompt_longer_than_the_context_is_an_error(model: Path) -> None:
    result = invoke("run", model, "--raw", "-c", "4", "-p", "one two three four five six seven")
    assert result.exit_code == 1
    assert "and the context holds 4" in result.stderr
    cut = invoke("run", model, "--raw", "-c", "8", "-n", "2", "--overflow", "truncate", "-p", "word " * 40, "--json")
    assert json.loads(cut.stdout)["dropped_tokens"] > 0


def test_statistics_go_to_stderr(model: Path) -> None:
    result = invoke("run", model, "--raw", "-p", "Hello", "-n", "5", "--stats")
    assert "prompt " in result.stderr
    assert "tokens/s" in result.stderr
    assert "tokens/s" not in result.stdout


def test_info_in_text_and_json(model: Path) -> None:
    text = invoke("info", model)
    assert text.exit_code == 0
    assert "architecture" in text.stdout
    facts = json.loads(invoke("info", model, "--json", "--tensors", "--context", "100", "--kv-type", "q8_0").stdout)
    assert facts["architecture"] == "llama"
    assert facts["runs"] is True
    assert facts["parameters"] > 0
    assert facts["weight_bytes"] == sum(tensor["bytes"] for tensor in facts["tensors"])
    assert facts["memory"]["context"] == 100
    # 2 layers of 4 heads, 16 numbers for keys and 16 for values, 34 bytes for 32 numbers
    assert facts["memory"]["kv_bytes"] == 2 * 4 * 32 * 34 // 32 * 100


def test_info_says_why_a_model_does_not_run(tmp_path: Path) -> None:
    import gguf

    path = tmp_path / "other.gguf"
    writer = gguf.GGUFWriter(path, "martian")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    facts = json.loads(invoke("info", path, "--json").stdout)
    assert facts["runs"] is False
    assert "martian" in facts["problem"]


def test_tokenize_in_every_form(model: Path) -> None:
    document = json.loads(invoke("tokenize", model, "Hello world", "--json").stdout)
    assert document["count"] == len(document["ids"]) == len(document["pieces"])
    ids = " ".join(map(str, document["ids"]))
    assert invoke("tokenize", model, "Hello world", "--ids").stdout == ids + "\n"
    assert invoke("tokenize", model, "--ids", stdin="Hello world").stdout == ids + "\n"
    assert invoke("tokenize", model, "--ids", "-p", "Hello world").stdout == ids + "\n"
    assert invoke("tokenize", model, "Hello world", "--count").stdout == f"{document['count']}\n"
    lines = invoke("tokenize", model, "Hello world").stdout.splitlines()
    assert [int(line.split("\t")[0]) for line in lines] == document["ids"]
    assert [json.loads(line.split("\t")[1]) for line in lines] == document["pieces"]
    bare = json.loads(invoke("tokenize", model, "Hello world", "--json", "--no-bos").stdout)
    assert bare["ids"] == document["ids"][1:]
    meant = json.loads(invoke("tokenize", model, "<s>", "--json", "--no-bos", "--special").stdout)
    assert meant["ids"] == document["ids"][:1]
    assert len(json.loads(invoke("tokenize", model, "<s>", "--json", "--no-bos").stdout)["ids"]) > 1


def test_bench_beside_a_load(model: Path) -> None:
    few = ["bench", model, "--prompt-tokens", "0", "--generate-tokens", "2", "--repeat", "1", "--threads", "1"]
    document = json.loads(invoke(*few, "--load", "1", "--duty", "90", "--json").stdout)
    found = document["beside_load"]
    assert found["processes_per_processor"] == 1
    assert found["tokens_per_second"] > 0
    assert found["of_fair_share"] == found["share"] / found["fair_share"]
    assert document["duty_percent"] == 90
    assert "a fair share is" in invoke(*few, "--load", "1").stdout
    refused = invoke(*few, "--load", "1", "--generate-tokens", "0")
    assert (refused.exit_code, "--load measures generation" in refused.stderr) == (2, True)


def test_a_fair_share_beside_busy_processes() -> None:
    # As many threads as processors, or fewer: each gets one of the 1 + 5 shares of a processor, or a little more.
    assert fair_share(2, 5, 2) == pytest.approx(1 / 6)
    assert fair_share(1, 5, 2) == pytest.approx(2 / 11)
    assert fair_share(4, 1, 2) == pytest.approx((2 / 6) / (2 / 4))
    assert fair_share(3, 0, 4) == 1


def test_a_load_ends_with_the_block_and_with_its_parent() -> None:
    with waiting_load(1) as load:
        (first, *_) = running = load._running
        assert all(process.poll() is None for process in running)
        load.start()
        # What happens when the parent dies: its end of the pipe is closed.
        assert first.stdin is not None
        first.stdin.close()
        assert first.wait(60) == 0
    assert all(process.poll() is not None for process in running)


@pytest.mark.parametrize("percent", ["0", "101", "half"])
def test_duty_is_a_percentage(model: Path, percent: str) -> None:
    refused = invoke("run", model, "-p", "x", "--duty", percent)
    assert (refused.exit_code, "--duty" in refused.stderr) == (2, True)


def test_the_greedy_story_character_for_character(golden: Path) -> None:
    expected = json.loads((golden / "stories" / "greedy.json").read_text(encoding="utf-8"))
    result = invoke(
        "run",
        golden / "stories" / "stories260K.gguf",
        "--raw",
        "--temperature",
        "0",
        "-n",
        len(expected["greedy_ids"]),
        "-p",
        expected["prompt"],
    )
    assert result.stdout == expected["text"]


def test_python_m_runs_the_command(model: Path) -> None:
    with start("tokenize", model, "Hello", "--count") as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert int(out) > 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupting_a_long_prompt_has_status_130_and_no_traceback(
    tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    path = tiny_model(Shape(width=256, feed_forward=1024, layers=6, context=200_000))
    text = tmp_path / "prompt.txt"
    text.write_text("word and word " * 20_000, encoding="utf-8")
    with start("run", path, "--raw", "-v", "-n", "1", "--file", text) as process:
        assert process.stderr is not None
        seen = ""
        for line in process.stderr:
            seen += line
            if "reading a prompt" in line:
                break
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in seen + error


@pytest.mark.skipif(os.name == "nt", reason="Windows has no broken pipes of this kind")
def test_a_reader_that_goes_away_is_no_complaint(model: Path) -> None:
    # Without an end of its own, however fast the machine writes.
    with start("run", model, "--raw", "-p", "x", "-n", "-1", "--ignore-end", "--overflow", "shift") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


class FakeTerminal:
    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.encoding = "utf-8"
        self.text = ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_shows_on_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeTerminal(terminal)
    monkeypatch.setattr(PromptBar, "_PATIENCE", 0.0)
    bar = PromptBar(stream)  # type: ignore[arg-type]
    bar(0, 100)
    bar(50, 100)
    assert ("50/100" in stream.text) == terminal
    bar(100, 100)
    assert stream.text.endswith("\r\x1b[K") == terminal


def test_the_bar_of_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = FakeTerminal(True)
    monkeypatch.setattr(PictureBar, "_PATIENCE", 0.0)
    bar = PictureBar(stream)  # type: ignore[arg-type]
    for done in (0.0, 0.5, 1.0, 1.5):
        bar(done, 2)
    lines = stream.text.split("\r")[1:]
    assert ["picture 1 of 2" in line for line in lines] == [True, True, False, False]
    assert [line.split("]")[-1].split("%")[0].strip() for line in lines] == ["0", "25", "50", "75"]
    bar(2.0, 2)
    assert stream.text.endswith("\r\x1b[K")
    alone = FakeTerminal(True)
    PictureBar(alone)(0.25, 1)  # type: ignore[arg-type]
    assert re.search(r"Looking at the picture \[.*\] 25 %", alone.text)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (3 * 10**12, "3.0 TB")]
)
def test_amounts_for_readers(size: int, text: str) -> None:
    assert amount(size) == text


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("ls", "; did you mean 'list'?"), ("chat x.gguf", "; did you mean 'run'?"),
        ("download", "; did you mean 'pull'?"),
        ("delete x", "; did you mean 'rm'?"), ("lst", "; did you mean 'list'?"), ("serv", "; did you mean 'serve'?"),
        ("version", "; did you mean '--version'?"), ("model.gguf", "; for a conversation: llamacpu run model.gguf"),
        ("llama3.2:1b Hello", "; for a conversation: llamacpu run llama3.2:1b"), ("qqqq", ""),
    ],
)  # fmt: skip
def test_a_command_that_is_not_there_is_guessed(words: str, hint: str) -> None:
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert result.stderr.endswith(f"Error: there is no command {words.split()[0]!r}{hint}\n")
