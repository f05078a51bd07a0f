"""Type checkers find the mistakes in a user's file, and nothing else."""

import asyncio
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import llamacpu

REPOSITORY = Path(__file__).resolve().parent.parent
USES = REPOSITORY / "tests" / "typing" / "uses.py"
WRONG = {
    number for number, line in enumerate(USES.read_text(encoding="utf-8").splitlines(), 1) if line.endswith("# wrong")
}


def test_there_are_forty_of_each() -> None:
    assert len(WRONG) == USES.read_text(encoding="utf-8").count("    lambda: ") - 40 == 40


@pytest.mark.timeout(600)
def test_mypy_finds_the_wrong_uses_and_no_others() -> None:
    pytest.importorskip("mypy")
    # With the options of the project, whose cache has the package if it has been checked before.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(USES)]
    environment = {**os.environ, "MYPYPATH": str(REPOSITORY / "python")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=REPOSITORY, check=False)
    lines = [line for line in done.stdout.splitlines() if "uses.py:" in line and ": error: " in line]
    assert {int(line.split("uses.py:")[1].split(":")[0]) for line in lines} == WRONG, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_pyright_finds_the_wrong_uses_and_no_others(tmp_path: Path) -> None:
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    settings = {
        "include": ["uses.py"], "extraPaths": [str(REPOSITORY / "python")], "typeCheckingMode": "standard",
        "pythonPlatform": "Linux",
    }  # fmt: skip
    shutil.copy(USES, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [pyright, "--outputjson", "--pythonpath", sys.executable, "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        pytest.skip(f"pyright does not run here: {done.stderr[-300:]}")
    errors = [entry for entry in found if entry["severity"] == "error"]
    assert {entry["range"]["start"]["line"] + 1 for entry in errors} == WRONG, [entry["message"] for entry in errors]


@pytest.mark.timeout(600)
def test_every_public_name_has_a_known_type() -> None:
    pyright = shutil.which("pyright", path=str(Path(sys.executable).parent))
    if pyright is None:
        pytest.skip("pyright is not installed")
    options = ["--outputjson", "--ignoreexternal", "--verifytypes", "llamacpu"]
    # It looks for packages with the first Python of the path, whatever --pythonpath says.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "python"), "PATH": path}
    done = subprocess.run([pyright, *options], capture_output=True, text=True, env=environment, check=False)
    try:
        found = json.loads(done.stdout)["typeCompleteness"]
    except ValueError:
        pytest.skip(f"pyright does not run here: {done.stderr[-300:]}")
    # Classes of these modules are built on those of a package, which is not always installed.
    bases = {
        "llamacpu.integrations.langchain": "langchain_core",
        "llamacpu.integrations.langchain_embeddings": "langchain_core",
        "llamacpu.integrations.llm_plugin": "llm",
        "llamacpu.ray.router": "ray",
    }
    unknown = tuple(name + "." for name, package in bases.items() if importlib.util.find_spec(package) is None)
    exported = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    assert len(exported) > 4000
    incomplete = [symbol["name"] for symbol in exported if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    wrong = [name for name in incomplete if not name.startswith(unknown or ("-",))]
    assert wrong == [], "declare their types, as in self.name: int = 1 where the value is a call or an argument"


def test_chat_completions_stream_under_async_for() -> None:
    messages: Any = [{"role": "user", "content": "What can you do?"}]
    demo = str(resources.files("llamacpu") / "data" / "demo.gguf")

    def text(chunk: Any) -> str:
        return str(chunk["choices"][0]["delta"].get("content") or "")

    with llamacpu.Llama(demo, n_ctx=256, n_threads=1) as llama:
        plain = llama.create_chat_completion(messages, temperature=0, max_tokens=20, stream=True)
        expected = "".join(text(chunk) for chunk in plain)

        async def streamed() -> str:
            chunks = llama.create_chat_completion(messages, temperature=0, max_tokens=20, stream=True)
            return "".join([text(chunk) async for chunk in chunks])

        async def left_early() -> None:
            chunks = llama.create_chat_completion(messages, temperature=0, stream=True)
            async for _ in chunks:
                break
            chunks.close()

        assert asyncio.run(streamed()) == expected != ""
        asyncio.run(left_early())
        assert llama.last_result is not None
        assert llama.last_result.ended_by == "cancelled"
        assert asyncio.run(streamed()) == expected
