"""The documents are true: the README's Python runs, its commands exist, and the list of public names is honest."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "python" / "llamacpu" / "data" / "demo.gguf"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_python_of_the_readme_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DEMO, tmp_path / "model.gguf")
    shutil.copy(DEMO, tmp_path / "small.gguf")
    monkeypatch.chdir(tmp_path)
    exec(compile(code.replace("n_ctx=4096", "n_ctx=256"), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("line", re.findall(r"^curl .*", README, re.MULTILINE))
def test_curl_of_the_readme_gets_an_answer(line: str, demo_url: str) -> None:
    words = shlex.split(line.replace("http://127.0.0.1:8080", demo_url))
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["usage"]["total_tokens"] > 0


def test_readme_has_a_curl() -> None:
    assert "\ncurl " in README


@pytest.mark.parametrize("name", sorted(set(re.findall(r"^(?:.*\| )?llamacpu (\w[\w-]*)", README, re.MULTILINE))))
def test_commands_of_the_readme_exist(name: str) -> None:
    result = CliRunner().invoke(command_line, [name, "--help"])
    assert result.exit_code == 0, result.output


def test_public_names_are_sorted_and_exist() -> None:
    assert llamacpu.__all__ == sorted(llamacpu.__all__)
    for name in llamacpu.__all__:
        assert getattr(llamacpu, name) is not None
    assert set(llamacpu.__all__) <= set(dir(llamacpu))


def test_the_version_lives_in_one_place() -> None:
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    assert match is not None
    assert llamacpu.__version__ == match[1]


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_and_paths_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).exists(), f"{document} links to {target}"
