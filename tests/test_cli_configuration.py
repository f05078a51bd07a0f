"""The configuration file, completion in shells, and what hostile values of any option become."""

import importlib
import json
import os
from importlib import resources
from pathlib import Path

import click
import pytest

from llamacpu.cli import bench, configuration
from llamacpu.cli.download_bar import DownloadBar
from llamacpu.cli.group import _shortened
from llamacpu.cli.terminal import LoadBar, PromptBar
from test_cli import invoke
from thorough import THOROUGH

DEMO = str(resources.files("llamacpu") / "data" / "demo.gguf")


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration file is; there is none yet."""
    monkeypatch.setenv(configuration.PLACE, str(tmp_path / "folder" / "config.toml"))
    return tmp_path / "folder" / "config.toml"


def write(place: Path, text: str) -> None:
    place.parent.mkdir(exist_ok=True)
    place.write_text(text, encoding="utf-8")


def test_the_file_sets_defaults_and_the_command_line_goes_first(written: Path) -> None:
    write(written, f'[defaults]\nkv-type = "q8_0"\nno_such = 1\n[run]\nmodel = {DEMO!r}\nmax_tokens = 2\nstop = "zz"\n')
    done = invoke("run", "-p", "Hello", "--json", "--ignore-end")
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)["tokens"]) == 2
    assert done.stderr == f"No model named: using {DEMO}, as the configuration file says.\n"
    done = invoke("run", DEMO, "Hello", "--json", "-n", "3", "--ignore-end")
    assert len(json.loads(done.stdout)["tokens"]) == 3
    assert json.loads(invoke("info", DEMO, "--json").stdout)["memory"]["kv_type"] == "q8_0"


def test_a_system_prompt_of_the_file_is_used(written: Path) -> None:
    plain = json.loads(invoke("run", DEMO, "Hello", "--json", "-n", "1").stdout)["prompt_tokens"]
    write(written, '[run]\nsystem = "Be brief."\n')
    assert json.loads(invoke("run", DEMO, "Hello", "--json", "-n", "1").stdout)["prompt_tokens"] > plain


def test_config_shows_writes_and_names_the_file(written: Path) -> None:
    assert invoke("config", "--path").stdout == f"{written}\n"
    assert "not there" in invoke("config").stdout
    assert invoke("config", "--init").exit_code == 0
    assert json.loads(invoke("config", "--json").stdout) == {
        "path": str(written), "exists": True, "settings": {"defaults": {}, "run": {}},
    }  # fmt: skip
    again = invoke("config", "--init")
    assert again.exit_code == 1
    assert "is there already" in again.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[run]\ntemprature = 1\n", "did you mean 'temperature'"),
        ("[rnu]\n", "did you mean 'run'"),
        ("threads = 4\n", "expected it below"),
        ("run = 4\n", "expected it below"),
        ('[run]\ntemperature = "hot"\n', "'hot' is not a valid float"),
        ("[run]\nthreads = 0\n", "1<=x<=1024"),
        ("[run]\nplain = 1\n", "expected true or false"),
        ("[run]\nstop = [[1]]\n", "expected a list of texts"),
        ("[run]\nsystem = true\n", "expected a text or a number"),
        ("[run\n", "is no TOML"),
        ("x = " + "[" * 100_000, "config.toml"),
        ("\udcff", "is not UTF-8"),
    ],
)
def test_a_wrong_file_is_one_line_and_help_still_works(written: Path, text: str, told: str) -> None:
    written.parent.mkdir()
    written.write_bytes(text.encode("utf-8", "surrogateescape"))
    for command in (["run", DEMO, "hi"], ["config"]):
        if command == ["config"] and "0<" in told:
            continue
        done = invoke(*command)
        assert done.exit_code == 1, done.output
        assert done.stderr.count("\n") == 1
        assert told in done.stderr
    assert invoke("run", "--help").exit_code == 0


def test_completion_scripts_for_each_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "BASH_COMPLETION_USER_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for shell in ("bash", "zsh", "fish"):
        script = invoke("--show-completion", shell).stdout
        assert "_LLAMACPU_COMPLETE" in script
        monkeypatch.setenv("SHELL", f"/bin/{shell}")
        done = invoke("--install-completion", "auto")
        assert done.exit_code == 0
        assert Path(done.stderr.split()[1].rstrip(".")).read_text(encoding="utf-8") == script or shell == "fish"
    assert invoke("--install-completion", "cmd.exe").exit_code == 2


def test_a_completion_script_replaces_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "fish" / "completions" / "llamacpu.fish"
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    refused = invoke("--install-completion", "fish")
    assert (refused.exit_code, place.read_text()) == (1, "mine")
    assert refused.stderr.startswith(f"Error: {place}: the file holds something other than")
    place.write_text("_LLAMACPU_COMPLETE of an older version")
    assert invoke("--install-completion", "fish").exit_code == 0
    assert place.read_text() != "_LLAMACPU_COMPLETE of an older version"
    assert [file.name for file in place.parent.iterdir()] == [place.name]


def test_options_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "llamacpu run --sys")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("_LLAMACPU_COMPLETE", "bash_complete")
    assert "plain,--system" in invoke().stdout


HOSTILE = (
    "", "0", "-1", "100000000000", "9" * 400, "nan", "-inf", "1e308", "abc", "\x00", "\udc80", "\n", "{", "/", ".",
    "[" * 20_000, '{"a":' * 5_000,
)  # fmt: skip
BASE = {
    "run": [DEMO, "-p", "hi", "-n", "2"],
    "info": [DEMO],
    "tokenize": [DEMO, "hi"],
    "embed": [DEMO, "hi"],
    "moderate": [DEMO, "hi"],
    "bench": [DEMO, "--prompt-tokens", "2", "--generate-tokens", "2", "--repeat", "1"],
    "doctor": ["--no-bandwidth"],
    "config": [],
}


@pytest.mark.parametrize("name", BASE)
def test_hostile_values_of_every_option_are_answered_in_words(name: str) -> None:
    """Status 0, 1 or 2; an error is one short line (with the usage before it, where that is wrong) and foreseen."""
    command = importlib.import_module(f"llamacpu.cli.{name}").command
    for number, parameter in enumerate(command.params):
        if isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count):
            continue
        # Every third one, other ones for the next option.
        for value in HOSTILE if THOROUGH else HOSTILE[number % 3 :: 3]:
            if parameter.name == "repeat" and value.startswith(("1", "9")):
                continue  # a wish that is granted
            if isinstance(parameter, click.Option):
                arguments = [*BASE[name], parameter.opts[-1], value]
            else:
                arguments = [value, *BASE[name][1:]] if parameter.name == "model" else [BASE[name][0], value]
            done = invoke(name, *arguments, stdin="")
            told = (name, parameter.name, value[:40], done.stderr[:500])
            assert done.exit_code in (0, 1, 2), told
            assert "something went wrong" not in done.stderr, told
            assert "Traceback" not in done.stderr, told
            if done.exit_code:
                assert len(done.stderr) < 1500, told
                lines = [line for line in done.stderr.splitlines() if not line.startswith(("Usage: ", "Try "))]
                assert len([line for line in lines if line and not line.startswith("No model")]) == 1, told


def test_the_middle_of_long_errors_is_left_out() -> None:
    assert _shortened("x" * 400) == "x" * 400
    shown = _shortened("begin" + "x" * 10_000 + "end")
    assert shown.startswith("begin")
    assert shown.endswith("end")
    assert len(shown) < 410


def test_vv_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(bench.command, "callback", fail)
    monkeypatch.delenv("LLAMACPU_DEBUG", raising=False)
    assert invoke("bench", "x.gguf", "-v").stderr.count("\n") == 1
    shown = invoke("bench", "x.gguf", "-vv").stderr
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("Error: something went wrong")


def test_what_fails_before_a_command_begins_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("surprise")

    monkeypatch.setattr(click.Group, "make_context", fail)
    done = invoke("bench", "x.gguf")
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert "RuntimeError: surprise" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.parametrize("columns", [5, 20, 40, 80, 200])
def test_bars_fit_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl
    import pty
    import struct
    import termios

    monkeypatch.setattr(PromptBar, "_PATIENCE", 0.0)
    monkeypatch.setattr(LoadBar, "_PATIENCE", 0.0)
    reading, writing = pty.openpty()
    try:
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with open(writing, "w", closefd=False) as stream:
            PromptBar(stream)(70_000, 100_000)
            LoadBar(stream)(70_000_000_000, 100_000_000_000)
            DownloadBar(stream)(70_000_000_000, 100_000_000_000)
        shown = os.read(reading, 4096).decode()
    finally:
        os.close(reading)
        os.close(writing)
    for line in shown.replace("\x1b[K", "").split("\r"):
        assert len(line) < columns
    assert ("[" in shown.replace("\x1b[", "")) == (columns >= 80) or columns == 40


def test_bench_shows_each_row_when_it_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("stopped here")

    monkeypatch.setattr(bench, "_generate_speed", fail)
    done = invoke("bench", DEMO, "--prompt-tokens", "2", "--repeat", "1")
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1].startswith("prompt  ")


def test_doctor_shows_the_threads_that_it_measures_with() -> None:
    facts = json.loads(invoke("doctor", "-t", "3", "--no-bandwidth", "--json").stdout)
    assert (facts["threads"], facts["threads_reason"]) == (3, "as asked for by --threads")
