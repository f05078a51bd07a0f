"""Runs what stands in a Markdown page: its Python in this process, its commands as a shell would, with the demo model.

A page lives in an empty folder with the files that its examples speak of. Names of models are answered by a hub on this
machine. Blocks marked ``python`` and ``sh`` are run, in their order; a command that this file does not know is an
error, so that nothing on a page goes unseen.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from llamacpu.cli.group import command_line
from model_hub import ModelHub
from sample_text import sample_text

REPOSITORY = Path(__file__).resolve().parent.parent
DEMO = REPOSITORY / "python" / "llamacpu" / "data" / "demo.gguf"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
REGISTRY = ("llama3.2:latest", "llama3.2:1b", "llama3.1:8b", "qwen3:1.7b")
REPOSITORIES = {"bartowski/Llama-3.2-1B-Instruct-GGUF": "Llama-3.2-1B-Instruct-Q4_K_M.gguf"}
FILES = {
    "notes.txt": "The cat sat on the mat.\nThe dog ran home.\n",
    "notes/cats.txt": "Cats sleep for most of the day.\n",
    "notes/dogs.txt": "Dogs like long walks.\n",
    "text.txt": sample_text(200),
    "manual.txt": sample_text(120),
    "schema.json": '{"type": "object", "properties": {"n": {"type": "string", "maxLength": 8}}, "required": ["n"]}',
    "yes_or_no.gbnf": 'root ::= "yes" | "no"\n',
    "prompts.jsonl": '{"prompt": "Hello"}\n{"prompt": "Once upon a time"}\n',
    "questions.csv": "id,question\n1,Hello\n2,What can you do?\n",
}
QUICK = {
    "bench": ["--repeat", "1", "--prompt-tokens", "32", "--generate-tokens", "8"],
    "train": ["--steps", "2", "--length", "64"],
}
"""Options that a command gets besides, so that it measures less."""
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass
class Page:
    """A page that is being run in `folder`, with `server` the address of the demo model's server."""

    path: Path
    folder: Path
    server: str
    names: dict[str, Any] = field(default_factory=dict)

    def blocks(self) -> Iterator[tuple[int, str, str]]:
        """(line, language, text) of every block that has a language."""
        text = self.path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            yield text.count("\n", 0, match.start()) + 2, match[1], match[2]

    def run(self) -> int:
        """Run all of it; how many blocks that were."""
        count = 0
        for line, language, text in self.blocks():
            if language == "python":
                self.python(text, line)
            elif language == "sh":
                for command in text.replace("\\\n", " ").splitlines():
                    self.command(command)
            elif text.startswith("FROM "):
                (self.folder / "Modelfile").write_text(text, encoding="utf-8")
            else:
                assert language in ("text", "json", "toml", "jinja"), f"{self.path.name}:{line}: {language}"
                continue
            count += 1
        return count

    def python(self, text: str, line: int) -> None:
        """Run a block; those of a page share their names."""
        # Contexts and answers that a small model is quick with.
        text = re.sub(r"n_ctx=\d{4,}", "n_ctx=512", text)
        code = compile("\n" * (line - 1) + text, str(self.path), "exec")
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, self.names)

    def command(self, line: str) -> None:
        """Run one line: commands joined by pipes, with files for input and output."""
        words = shlex.shlex(line, posix=True, punctuation_chars="|<>")
        words.whitespace_split = True
        words.commenters = "#"
        parts: list[list[str]] = [[]]
        redirected: dict[str, str] = {}
        pending = ""
        for word in words:
            if word == "|":
                parts.append([])
            elif word in "<>":
                pending = word
            elif pending:
                redirected[pending], pending = word, ""
            else:
                parts[-1].append(word)
        if parts == [[]]:
            return
        given = (self.folder / redirected["<"]).read_text("utf-8") if "<" in redirected else "Hello\n"
        for part in parts:
            given = self._one(part, given)
        if ">" in redirected:
            (self.folder / redirected[">"]).write_text(given, encoding="utf-8")

    def _one(self, words: list[str], given: str) -> str:
        """Run one command with a text for its input; what it writes."""
        name, *arguments = words
        if name == "export":
            key, _, value = arguments[0].partition("=")
            os.environ[key] = value
        elif name == "pip":
            check_install(arguments)
        elif name == "llamacpu" and arguments[:1] == ["serve"]:
            serve_and_stop(arguments, self.folder)
        elif name == "llamacpu":
            result = CliRunner().invoke(command_line, arguments + QUICK.get(arguments[0], []), input=given)
            assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}{result.exception!r}"
            return result.stdout
        elif name == "curl":
            return self._process([word.replace("http://127.0.0.1:8080", self.server) for word in words], given)
        elif name in ("cat", "echo", "mkdir", "git"):
            return self._process(words, given)
        elif name == "python":
            return self._process([sys.executable, *arguments], given)
        else:
            raise AssertionError(f"{self.path.name}: nobody knows how to run {shlex.join(words)}")
        return ""

    def _process(self, words: list[str], given: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python")}
        done = subprocess.run(
            words,
            input=given,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=environment,
            check=False,
            timeout=90,
        )
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
        assert words[0] != "curl" or "error" not in json_of(done.stdout), done.stdout
        return done.stdout


def json_of(text: str) -> Any:
    """JSON, or nothing where it is a stream or a text."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def check_install(arguments: list[str]) -> None:
    """What is installed is this package, with extras that it has."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (wanted,) = [word for word in arguments if word not in ("install", "--upgrade")]
    match = re.fullmatch(r"llamacpu(?:\[([\w,]+)\])?", wanted)
    assert match is not None, wanted
    for extra in (match[1] or "").split(",") if match[1] else ():
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), f"there is no extra {extra}"


def serve_and_stop(arguments: list[str], folder: Path) -> None:
    """Start a server as the page says, wait until it listens, and end it as Ctrl-C does."""
    words = [word for i, word in enumerate(arguments) if word != "--port" and arguments[i - 1 : i] != ["--port"]]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python"), "OLLAMA_HOST": "127.0.0.1:0"}
    port = [] if "--ollama" in words else ["--port", "0"]
    command = [sys.executable, "-m", "llamacpu", *words, *port, "--json"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["url"].startswith("http://")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)
    finally:
        process.kill()
        process.communicate()


def furnish(folder: Path) -> None:
    """Put the files into a folder that the pages speak of."""
    for name in ("model.gguf", "original.gguf", "small.gguf", "embedding.gguf"):
        shutil.copy(DEMO, folder / name)
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    if (REPOSITORY / "examples").is_dir():
        shutil.copytree(REPOSITORY / "examples", folder / "examples")


def hub() -> ModelHub:
    """A registry and a hub that have the models of the pages, all of them the demo model."""
    server = ModelHub()
    data = DEMO.read_bytes()
    for name in REGISTRY:
        server.put_model(name, data, license=b"A licence")
    for name, file in REPOSITORIES.items():
        server.repositories[name] = {"README.md": b"# A model", file: data}
    return server
