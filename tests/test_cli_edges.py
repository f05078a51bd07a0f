"""The command line at its edges: closed streams, senseless numbers, files that are not what they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from llamacpu.cli import bench, group
from llamacpu.cli.group import command_line
from llamacpu.errors import ModelError

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell closes the streams")


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("gqa")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments])


def shell(arguments: str, model: Path) -> subprocess.CompletedProcess[str]:
    """What a shell makes of `python -m llamacpu ARGUMENTS`; $MODEL is the model."""
    command = f'"$PYTHON" -m llamacpu {arguments}'
    environment = {**os.environ, "PYTHON": sys.executable, "MODEL": str(model)}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@POSIX
def test_closed_stderr_changes_nothing(model: Path) -> None:
    arguments = 'run "$MODEL" --raw -p Hello -n 4 --seed 1'
    open_, closed = (shell(f"{arguments} {ending}", model) for ending in ("", "2>&-"))
    assert (closed.returncode, closed.stdout) == (0, open_.stdout)
    assert closed.stdout
    assert shell('run "$MODEL" --stats --raw -p Hello -n 4 2>&- <&-', model).returncode == 0
    assert shell("info /nowhere 2>&-", model).returncode == 1


@POSIX
@pytest.mark.parametrize(
    "command",
    ['run "$MODEL" --raw -p Hello -n 4', 'info "$MODEL"', "doctor --no-bandwidth", "--help", "--version", "run --help"],
)
def test_closed_stdout_is_one_line(model: Path, command: str) -> None:
    done = shell(f"{command} >&-", model)
    assert done.returncode == 1
    assert done.stderr == "Error: stdout is closed; leave it open, or send it to a file\n"
    assert shell(f"{command} >&- 2>&- <&-", model).returncode == 1


@POSIX
def test_closed_stdin_is_an_empty_one(model: Path) -> None:
    assert shell('run "$MODEL" --raw -p Hello -n 4 <&-', model).returncode == 0
    for command in ('run "$MODEL"', 'embed "$MODEL"', 'tokenize "$MODEL"'):
        closed, empty = shell(f"{command} <&-", model), shell(f"{command} </dev/null", model)
        assert (closed.returncode, closed.stdout, closed.stderr) == (empty.returncode, empty.stdout, empty.stderr)
        assert "Traceback" not in closed.stderr


@POSIX
@pytest.mark.parametrize("name", ["", ".", "/", "./none.gguf", "/dev/null", __file__])
def test_a_wrong_model_is_named_before_the_prompt_is_missed(name: str, model: Path) -> None:
    nothing, prompt = shell(f"run '{name}' </dev/null", model), shell(f"run '{name}' Hi", model)
    assert nothing.returncode == prompt.returncode == 1
    assert nothing.stderr == prompt.stderr
    assert ("empty" if not name else Path(name).name) in nothing.stderr


@POSIX
def test_an_empty_name_is_not_the_folder_one_is_in(model: Path) -> None:
    done = shell("serve '' --port 0", model)
    assert (done.returncode, done.stderr.count("the path of the model is empty")) == (1, 1)


@POSIX
def test_no_file_becomes_a_standard_stream() -> None:
    code = (
        "import os, sys; sys.stdin = sys.stderr = None; os.close(0); os.close(2)\n"
        "from llamacpu.cli.streams import open_standard_streams\n"
        "open_standard_streams()\n"
        "print(os.open(sys.executable, os.O_RDONLY) > 2, sys.stdin.read() == '', sys.stderr.write('x'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True True 1\n"


def test_lines_are_answered_when_the_input_pauses(model: Path) -> None:
    command = [sys.executable, "-m", "llamacpu", "embed", str(model), "--jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for index in range(3):
            process.stdin.write("Hello\n")
            process.stdin.flush()
            # Without an answer before the next line, this waits until the test's time is over.
            assert json.loads(process.stdout.readline())["index"] == index
        process.stdin.close()
        assert process.stdout.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "MODEL", "-p", "x", "--stop", ""], "is empty"),
        (["run", "MODEL", "-p", "x", "-c", "1073741825"], "1<=x<=1073741824"),
        (["run", "MODEL", "-p", "x", "-c", "100000000000"], "1<=x<=1073741824"),
        (["run", "MODEL", "-p", "x", "-t", 10**23], "1<=x<=1024"),
        (["embed", "MODEL", "x", "-c", 10**23], "1<=x<=1073741824"),
        (["embed", "MODEL", "x", "-t", 10**23], "1<=x<=1024"),
        (["info", "MODEL", "-c", 10**30], "1<=x<=1073741824"),
        (["doctor", "-t", 10**23], "1<=x<=1024"),
        (["bench", "MODEL", "--prompt-tokens", 100000000000], "0<=x<=16777216"),
        (["run", "MODEL", "-p", "x", "--seed", 10**30], "seed"),
        (["run", "MODEL", "-p", "x", "--mirostat", 10**30], "mirostat"),
        (["run", "MODEL", "-p", "x", "--temperature", "nan"], "temperature"),
        (["run", "MODEL", "-p", "x", "--samplers", "nonsense,"], "samplers"),
    ],
)
def test_senseless_values_are_wrong_usage(model: Path, arguments: list[object], told: str) -> None:
    result = invoke(*(model if argument == "MODEL" else argument for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert told in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("value", ["--top-k", "--repeat-last-n", "-n"])
def test_huge_counts_are_no_limit(model: Path, value: str) -> None:
    result = invoke("run", model, "--raw", "-p", "x", "--stop", "e", "--seed", "1", "-c", "20", value, 10**30)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", ["", ".", "..", "/", "nowhere.gguf"])
def test_what_is_no_model_is_named(name: str) -> None:
    result = invoke("run", name, "-p", "x")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: " + (f"{name}: " if name else "the path of the model is empty"))
    assert result.stderr.count("\n") == 1


def test_a_missing_part_is_counted(tmp_path: Path, model: Path) -> None:
    from gguf import GGUFWriter

    path = tmp_path / "m-00001-of-00003.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint16("split.no", 0)
    writer.add_uint16("split.count", 3)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    result = invoke("info", path)
    assert result.exit_code == 1
    assert "part 2 of 3 is missing" in result.stderr
    assert "m-00002-of-00003.gguf" in result.stderr


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("wrong\nvalue"), "Error: wrong value\n"),
        (ModelError("no model"), "Error: no model\n"),
        (OverflowError("too large"), "Error: too large\n"),
        (MemoryError(), "Error: not enough memory; use a smaller model or a smaller --context\n"),
        (IsADirectoryError(21, "Is a directory", "here"), "Error: here: Is a directory; check the path\n"),
        (OSError(28, "No space left on device"), "Error: No space left on device\n"),
        (ImportError("no such package; pip install it"), "Error: no such package; pip install it\n"),
    ],
)
def test_expected_errors_are_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception, told: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(bench.command, "callback", fail)
    result = invoke("bench", "x.gguf")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", told)


def test_an_unforeseen_error_is_one_line_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(bench.command, "callback", fail)
    monkeypatch.delenv(group.DEBUG, raising=False)
    result = invoke("bench", "x.gguf")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "KeyError: 'surprise'" in result.stderr
    monkeypatch.setenv(group.DEBUG, "1")
    shown = invoke("bench", "x.gguf").stderr
    assert "Traceback" in shown
    assert shown.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("given", ["tokenizer.ggml.add_bos_token=false", "tokenizer.ggml.add_bos_token=bool:false"])
def test_metadata_is_overridden(model: Path, given: str) -> None:
    plain = invoke("tokenize", model, "Hello", "--ids").stdout.split()
    assert invoke("tokenize", model, "Hello", "--ids", "--override", given).stdout.split() == plain[1:]
    changed = invoke("info", model, "--json", "--override", ".context_length=7", "--override", "general.name=int:5")
    facts = json.loads(changed.stdout)
    assert facts["context_length"] == 7
    assert facts["metadata"]["general.name"] == 5
    run = invoke("run", model, "--raw", "-p", "Hello", "-n", "2", "--json", "--override", given)
    assert json.loads(run.stdout)["prompt_tokens"] == len(plain) - 1


@pytest.mark.parametrize("given", ["nothing", "=5", "a=int:x", "a=bool:maybe", "a=float:"])
def test_a_wrong_override_is_wrong_usage(model: Path, given: str) -> None:
    result = invoke("info", model, "--override", given)
    assert result.exit_code == 2
    assert repr(given) in result.stderr


def test_info_says_whether_it_fits(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = json.loads(invoke("info", model, "--json").stdout)["memory"]
    assert memory["fits"] is True
    for free, told in (
        (memory["total_bytes"], "yes: "),
        (memory["total_bytes"] - 1, "no: "),
        (memory["weight_bytes"] - 1, "less than the weights take"),
        (None, "unknown"),
    ):
        monkeypatch.setattr("llamacpu.engine.machine.available_memory", lambda free=free: free)
        line = next(line for line in invoke("info", model).stdout.splitlines() if line.startswith("fits"))
        assert told in line
    monkeypatch.setattr("llamacpu.engine.machine.available_memory", lambda: memory["total_bytes"] - 1)
    offered = json.loads(invoke("info", model, "--json").stdout)["memory"]["longest_context"]
    for kv_type, context in offered.items():
        smaller = json.loads(invoke("info", model, "--json", "-c", context, "--kv-type", kv_type).stdout)["memory"]
        assert smaller["fits"], kv_type
