"""A program frozen by PyInstaller runs the demo model and chat templates with nothing beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llamacpu
from llamacpu._pyinstaller import hook_dirs

# What packages of this environment import, if they are there, and the program never does: analysing them takes minutes.
UNUSED = (
    *("PIL", "_pytest", "anyio", "attr", "cryptography", "h11", "httptools", "huggingface_hub", "hypothesis"),
    *("markdown_it", "numpy.f2py", "numpy.testing", "openai", "pandas", "prometheus_client", "prompt_toolkit"),
    *("pyarrow", "pydantic", "pygments", "pytest", "ray", "rich", "scipy", "setuptools", "sqlalchemy", "starlette"),
    *("unittest", "uvicorn", "uvloop", "watchfiles", "websockets", "werkzeug"),
)

APP = """
import sys
from importlib import resources
import llamacpu

for path, template in ((sys.argv[1], "llama-3"), (resources.files("llamacpu") / "data" / "demo.gguf", None)):
    with llamacpu.Llama(path, n_ctx=128, chat_format=template) as llm:
        prompt = [{"role": "user", "content": "What can you do?"}]
        for chunk in llm.create_chat_completion(prompt, max_tokens=40, temperature=0.0, stream=True):
            print(chunk["choices"][0]["delta"].get("content", ""), end="", flush=True)
        print("|", llm.tokenize("once")[1:] == llm.tokenize("once", add_bos=False))
"""


@pytest.mark.timeout(500)
def test_a_frozen_program_streams_text(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="pyinstaller is not installed")
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    source = str(Path(llamacpu.__file__).parents[1])
    plain = {**os.environ, "PYTHONPATH": os.pathsep.join((source, os.environ.get("PYTHONPATH", "")))}
    expected = _run([sys.executable, "app.py", str(tiny_model("gqa"))], tmp_path, plain)
    command = [
        sys.executable,
        "-m",
        "PyInstaller",
        "--onedir",
        "--log-level",
        "ERROR",
        "--noconfirm",
        "--paths",
        source,
    ]
    command += [word for name in UNUSED for word in ("--exclude-module", name)]
    _run([*command, "--additional-hooks-dir", hook_dirs()[0], "app.py"], tmp_path, plain)
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    found = _run([str(tmp_path / "dist" / "app" / "app"), str(tiny_model("gqa"))], tmp_path, bare)
    assert found == expected
    assert found.count("| True\n") == 2
    assert "llamacpu" in found.splitlines()[-1]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
