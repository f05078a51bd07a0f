"""The documents are true: the README's Python runs, its commands exist, and the list of public names is honest."""

from __future__ import annotations

import pkgutil
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import llamacpu.errors
from documents import PAGES, REPOSITORY, Page, furnish, hub

DOCUMENTS = ("ARCHITECTURE.md", "CONTRIBUTING.md")


@pytest.fixture
def page_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_url: str) -> Iterator[Callable[[Path], Page]]:
    """Makes a page in a folder of its own, with a hub on this machine and nothing of the user's."""
    server = hub()
    for name in ("LLAMACPU_OFFLINE", "HF_HUB_OFFLINE", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "LLAMACPU_FOLDERS"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "OLLAMA_MODELS", "HF_HOME", "LLM_USER_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("LLAMACPU_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("LLAMACPU_REGISTRY", server.url)
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    # What the machine could do takes seconds to measure, and pages ask for it several times.
    # The commands run in this process, whose priority the tests after them would keep.
    monkeypatch.setattr("llamacpu.engine.priority._set", lambda *_: None, raising=False)
    monkeypatch.setattr("llamacpu.engine.machine.memory_bandwidth", lambda *_: 40.0)
    monkeypatch.setattr("llamacpu.engine.machine.product_peak", lambda *_: 400.0)
    folder = tmp_path / "page"
    folder.mkdir()
    furnish(folder)
    monkeypatch.chdir(folder)
    yield lambda path: Page(path, folder, demo_url)
    server.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_everything_on_a_page_runs(path: Path, page_of: Callable[[Path], Page]) -> None:
    assert page_of(path).run() > 0 or path.name == "reference.md"


def test_the_reference_has_every_public_name() -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    entries = re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE)
    shown = {entry.rpartition(".")[2] for entry in entries} | set(vars(llamacpu.errors))
    assert set(llamacpu.__all__) - shown == {"__version__"}
    for entry in entries:
        pkgutil.resolve_name(entry)


def test_every_page_is_in_the_navigation() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    assert sorted(re.findall(r": (\w+\.md)$", text, re.MULTILINE)) == sorted(path.name for path in PAGES[1:])


def test_public_names_are_sorted_and_exist() -> None:
    assert llamacpu.__all__ == sorted(llamacpu.__all__)
    for name in llamacpu.__all__:
        assert getattr(llamacpu, name) is not None
    assert set(llamacpu.__all__) <= set(dir(llamacpu))


def test_the_version_lives_in_one_place() -> None:
    text = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
    match = re.search(r'^version = "(.*)"', text, re.MULTILINE)
    assert match is not None
    assert llamacpu.__version__ == match[1]


def test_every_command_of_the_conversation_and_of_the_command_line_is_described() -> None:
    from llamacpu.cli.chat.commands import COMMANDS as SPOKEN
    from llamacpu.cli.group import COMMANDS

    text = (REPOSITORY / "docs" / "terminal.md").read_text(encoding="utf-8")
    assert {re.sub(r"\W.*", "", word) for word in re.findall(r"`/([?\w][^`]*)`", text)} - {""} == {
        name[1:] for name in SPOKEN if name != "/?"
    }
    everything = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert [name for name in COMMANDS if f"llamacpu {name}" not in everything] == []


def test_every_architecture_is_listed() -> None:
    from llamacpu.families.registry import FAMILIES

    text = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    assert [name for name in FAMILIES if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", ["README.md", "docs/troubleshooting.md"])
def test_messages_that_pages_explain_exist(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    messages = re.findall(r"^\| [^|]*`([^`|]+ [^`|]+)` \|", text[text.lower().index("troubleshooting") :], re.MULTILINE)
    assert len(messages) > 2
    sources = [*(REPOSITORY / "python" / "llamacpu").rglob("*.py"), *(REPOSITORY / "rust").glob("*/src/**/*.rs")]
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    assert [message for message in messages if message not in code] == []


@pytest.mark.parametrize("path", [*PAGES[1:], *(REPOSITORY / name for name in DOCUMENTS)], ids=lambda path: path.name)
def test_links_and_paths_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(#[^)]*)?\)", text):
        found = path.parent / target if target else path
        assert found.is_file(), f"{path.name} links to {target}"
        headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        places = {"#" + re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in places, f"{path.name} links to {target}{anchor}"
    for name in re.findall(r"`((?:docs|examples)/\w[\w./]*)`", text):
        assert (REPOSITORY / name).exists(), f"{path.name} speaks of {name}"


def test_the_readme_has_no_link_that_only_a_checkout_can_follow() -> None:
    """It is the page of the package in an index, too, which has none of the other files."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [target for target in re.findall(r"\]\(([^)]+)\)", text) if not target.startswith("https://")] == []
    named = set(re.findall(r"`((?:docs|examples)/[\w./]*|[A-Z]+\.md)`", text))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize(
    "block",
    [
        "```sh\nllamacpu nosuch\n```",
        "```sh\nllamacpu run model.gguf -p Hello --no-such-option\n```",
        "```sh\nllamacpu run missing.gguf -p Hello\n```",
        "```sh\nllamacpu pull nobody-has-this\n```",
        "```sh\ncat missing.txt | llamacpu run model.gguf -p Hello\n```",
        "```sh\npip install llamacpu[nosuch]\n```",
        "```sh\npip install other\n```",
        "```sh\ncurl -s http://127.0.0.1:8080/v1/nosuch\n```",
        "```sh\nrm -r everything\n```",
        "```sh\npython examples/missing.py\n```",
        "```python\nimport llamacpu\nllamacpu.Nosuch\n```",
        "```console\nanything\n```",
    ],
)
def test_a_wrong_page_is_found(block: str, page_of: Callable[[Path], Page], tmp_path: Path) -> None:
    path = tmp_path / "wrong.md"
    path.write_text(f"# A page\n\n{block}\n", encoding="utf-8")
    with pytest.raises((AssertionError, AttributeError)):
        page_of(path).run()
