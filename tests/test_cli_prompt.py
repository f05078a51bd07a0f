"""What `run` answers: words, files and pipes; models without a chat template; answers that are cut."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llamacpu.chat import is_base_model
from test_cli import PYTHON, invoke


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("mha")


def tokens(model: Path, *arguments: object, stdin: str | None = None) -> int:
    done = invoke("run", model, *arguments, "--raw", "--json", "-n", "1", stdin=stdin)
    assert done.exit_code == 0, done.stderr
    return int(json.loads(done.stdout)["prompt_tokens"])


def test_words_files_and_a_pipe_are_joined_in_this_order(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("one", encoding="utf-8")
    second.write_text("two", encoding="utf-8")
    expected = tokens(model, "-p", "say it\n\nplease\n\none\n\ntwo\n\nthree")
    given = ("say", "it", "-p", "please", "-f", first, "-f", second)
    assert tokens(model, *given, stdin="three") == expected
    assert tokens(model, *given, "-f", "-", stdin="three") == expected


def test_a_dash_reads_stdin(model: Path) -> None:
    expected = tokens(model, "-p", "three words here")
    assert tokens(model, "-", stdin="three words here") == expected
    done = invoke("run", "-", "-n", "2", "--json", stdin="three words here")
    assert done.exit_code == 0, done.stderr
    assert "demo model" in done.stderr


@pytest.mark.parametrize("text", [None, "and more"])
def test_a_prompt_without_a_model_is_told_from_a_model(text: str | None) -> None:
    result = invoke("run", "What can you do?", stdin=text)
    assert result.exit_code == 2
    assert (
        "'What can you do?' is no model; put the model before the prompt, or give the prompt with -p" in result.stderr
    )


def test_a_file_may_be_called_like_a_sentence(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "my very own model.gguf"
    path.write_bytes(model.read_bytes())
    result = invoke("run", path, "Hello", "-n", "2")
    assert result.exit_code == 0, result.stderr


def test_an_empty_pipe_adds_nothing(model: Path) -> None:
    assert tokens(model, "-p", "hello", stdin="") == tokens(model, "-p", "hello", stdin=" \n")


def test_a_device_is_not_read_beside_a_prompt(model: Path) -> None:
    command = [sys.executable, "-m", "llamacpu", "run", str(model), "--raw", "-p", "hello", "-n", "1", "--json"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={"PYTHONPATH": PYTHON}, check=True
    )
    assert json.loads(done.stdout)["prompt_tokens"] == tokens(model, "-p", "hello")


def test_a_model_without_template_continues_the_text_and_says_so(model: Path) -> None:
    without = ("--override", "tokenizer.chat_template=")
    arguments = (*without, "-p", "Once upon", "-n", "3", "--seed", "1", "--ignore-end", "--json")
    plain, raw = invoke("run", model, *arguments), invoke("run", model, "--raw", *arguments)
    assert json.loads(plain.stdout)["tokens"] == json.loads(raw.stdout)["tokens"]
    assert plain.stderr.count("\n") == 1
    assert "no chat template" in plain.stderr
    assert raw.stderr == ""
    refused = invoke("run", model, "-s", "be brief", *arguments)
    assert refused.exit_code == 2
    assert "--template" in refused.stderr
    assert invoke("run", model, "--template", "chatml", *arguments).stderr == ""


@pytest.mark.parametrize(
    ("metadata", "file_name", "base"),
    [
        ({}, "model.gguf", True),
        ({"general.name": "Meta-Llama-3-8B"}, "", True),
        ({"general.name": "Meta Llama 3 8B Instruct"}, "", False),
        ({"general.basename": "gemma", "general.finetune": "it"}, "", False),
        ({"general.name": "llama-2"}, "llama-2-7b-chat.Q4_0.gguf", False),
        ({"general.name": "Mistral-7B-v0.1"}, "digits.gguf", True),
        ({"tokenizer.chat_template": "{{ messages }}"}, "", False),
    ],
)
def test_names_tell_chat_models(metadata: dict[str, str], file_name: str, base: bool) -> None:
    assert is_base_model(metadata, file_name) == base


def test_an_answer_cut_short_of_its_schema_is_an_error(model: Path) -> None:
    schema = '{"type": "string", "minLength": 50}'
    done = invoke("run", model, "-p", "x", "--template", "chatml", "--json-schema", schema, "-n", "3", "--seed", "1")
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: the answer was cut by --max-tokens 3 before the JSON was complete")
    whole = invoke("run", model, "-p", "x", "--template", "chatml", "--json-schema", '{"const": 1}', "-n", "9")
    assert (whole.exit_code, whole.stdout, whole.stderr) == (0, "1\n", "")
