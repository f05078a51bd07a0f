"""Models that other programs keep on this machine: found by name, read where they lie, never written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import GGUFError, StoreError
from llamacpu.store.local import find
from llamacpu.store.names import HubName, RegistryName, parse, safe_path


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below one, with its size and time of change."""
    return {str(p.relative_to(folder)): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.rglob("*")}


def put_blob(root: Path, data: bytes) -> dict[str, object]:
    digits = hashlib.sha256(data).hexdigest()
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / f"sha256-{digits}").write_bytes(data)
    return {"digest": f"sha256:{digits}", "size": len(data)}


def put_ollama(root: Path, model: str, tag: str, gguf: bytes, **others: bytes) -> Path:
    """A model as Ollama stores it."""
    kind = "application/vnd.ollama.image."
    layers = [
        {"mediaType": f"{kind}{name}", **put_blob(root, data)} for name, data in {"model": gguf, **others}.items()
    ]
    file = root / "manifests" / "registry.ollama.ai" / "library" / model / tag
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schemaVersion": 2, "config": put_blob(root, b"{}"), "layers": layers}))
    return file


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Path]) -> Path:
    """A home where every program has left a model."""
    gguf = tiny_model().read_bytes()
    home = tmp_path / "home"
    for name in ("HF_HUB_CACHE", "HF_HOME", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "LLAMA_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("LLAMACPU_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("LLAMACPU_FOLDERS", os.pathsep.join([str(tmp_path / "mine"), str(tmp_path / "nowhere")]))
    params = json.dumps({"temperature": 0.25, "stop": ["END"]}).encode()
    put_ollama(
        home / ".ollama/models", "llama3.2", "1b", gguf, params=params, system=b"Be brief.",
        license=b"LLAMA 3.2 COMMUNITY LICENSE\nBuilt with Llama", projector=b"GGUF?",
    )  # fmt: skip
    commit = home / ".cache/huggingface/hub/models--someone--Tiny-GGUF/snapshots/abc"
    stale = commit.parent / "aaa"
    for folder in (
        commit,
        stale,
        home / ".lmstudio/models/maker/Small-GGUF",
        home / ".cache/llama.cpp",
        tmp_path / "mine/deep",
    ):
        folder.mkdir(parents=True)
    (commit.parent.parent / "refs").mkdir()
    (commit.parent.parent / "refs/main").write_text("abc")
    (commit.parent.parent / "blobs").mkdir()
    (commit.parent.parent / "blobs/one").write_bytes(gguf)
    (commit / "Tiny-Q4_K_M.gguf").symlink_to("../../blobs/one")
    (stale / "Tiny-Q4_K_M.gguf").write_bytes(gguf)
    (commit / "Tiny-Q8_0.gguf").write_bytes(gguf)
    (home / ".lmstudio/models/maker/Small-GGUF/Small-Q6_K.gguf").write_bytes(gguf)
    (home / ".lmstudio/models/maker/Small-GGUF/mmproj-Small-f16.gguf").write_bytes(b"GGUF")
    (home / ".cache/llama.cpp/owner_repo_cached-Q5_K_S.gguf").write_bytes(gguf)
    for part in (1, 2):
        (tmp_path / f"mine/deep/big-Q4_0-0000{part}-of-00002.gguf").write_bytes(gguf)
    (tmp_path / "mine/broken.gguf").write_bytes(b"GGUF but not really")
    return home


NAMES = {
    "llama3.2:1b": "ollama",
    "LLAMA3.2:1b": "ollama",
    "hf:someone/Tiny-GGUF:Q4_K_M": "hugging face",
    "hf.co/someone/Tiny-GGUF:q8_0": "hugging face",
    "https://huggingface.co/someone/Tiny-GGUF/blob/main/Tiny-Q8_0.gguf": "hugging face",
    "someone/tiny-gguf": "hugging face",
    "hf:maker/Small-GGUF": "lm studio",
    "owner_repo_cached-Q5_K_S": "llama.cpp",
    "big-q4_0": "folder",
    "hf:someone/Tiny-GGUF:Q2_K": None,
    "llama3.2": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_find_what_is_there(home: Path, name: str) -> None:
    entry = find(name)
    assert (entry and entry.origin) == NAMES[name]


def test_split_files_and_projectors_belong_to_their_model(home: Path, tmp_path: Path) -> None:
    big = find("big-Q4_0")
    small = find("hf:maker/Small-GGUF:Q6_K")
    ollama = find("llama3.2:1b")
    assert big is not None
    assert [file.name for file in big.files] == [f"big-Q4_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert small is not None
    assert small.projector is not None
    assert small.projector.name == "mmproj-Small-f16.gguf"
    assert ollama is not None
    assert ollama.projector is not None
    assert ollama.projector.read_bytes() == b"GGUF?"


def test_list_shows_all_of_them_and_nothing_is_written(home: Path, tmp_path: Path) -> None:
    before = state(tmp_path)
    result = CliRunner().invoke(command_line, ["list", "--json"])
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert {name: row["origin"] for name, row in rows.items()} == {
        "llama3.2:1b": "ollama",
        "hf:someone/Tiny-GGUF:Q4_K_M": "hugging face",
        "hf:someone/Tiny-GGUF:Q8_0": "hugging face",
        "hf:maker/Small-GGUF:Q6_K": "lm studio",
        "owner_repo_cached-Q5_K_S": "llama.cpp",
        "big-Q4_0": "folder",
        "broken": "folder",
    }
    assert rows["big-Q4_0"]["files"] == 2
    assert rows["llama3.2:1b"]["fits"] is True
    assert rows["broken"]["fits"] is None
    assert "problem" in rows["broken"]
    table = CliRunner().invoke(command_line, ["list"]).stdout.splitlines()
    assert table[0].split() == ["NAME", "SIZE", "QUANT", "FITS", "ORIGIN"]
    assert len(table) == 8
    with llamacpu.Model("llama3.2:1b") as model:
        assert model.tokenizer.vocab_size > 0
    assert state(tmp_path) == before


def test_what_does_not_fit_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.store.facts.available_memory", lambda: 1000)
    assert "  no  " in CliRunner().invoke(command_line, ["list"]).stdout


def test_show_tells_settings_licence_and_the_notice_it_asks_for(home: Path) -> None:
    facts = json.loads(CliRunner().invoke(command_line, ["show", "llama3.2:1b", "--json"]).stdout)
    assert (facts["system"], facts["settings"]) == ("Be brief.", {"temperature": 0.25, "stop": ["END"]})
    assert facts["notice"] == "Built with Llama"
    assert CliRunner().invoke(command_line, ["show", "llama3.2:1b", "--license"]).stdout.startswith("LLAMA 3.2 COMM")
    shown = CliRunner().invoke(command_line, ["show", "llama3.2:1b"]).stdout
    assert "Built with Llama" in shown
    assert "temperature" in shown
    assert "Be brief." in shown


@pytest.mark.parametrize(
    "command", [["run", "-p", "x"], ["info"], ["embed", "x"], ["bench"], ["tokenize", "x"], ["show"]]
)
def test_every_command_says_that_a_name_is_unknown(home: Path, command: list[str]) -> None:
    result = CliRunner().invoke(command_line, [command[0], "llamma3.2", *command[1:]])
    assert result.exit_code == 1
    assert "llamma3.2" in result.stderr
    assert "did you mean llama3.2" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("make", [llamacpu.Model, llamacpu.Llama])
def test_python_takes_the_same_names(home: Path, make: Callable[[str], object]) -> None:
    for name in ("hf:someone/Tiny-GGUF:Q4_K_M", "llama3.2:1b"):
        make(name).close()  # type: ignore[attr-defined]
    with pytest.raises(StoreError, match="did you mean mistral"):
        make("mistrall")
    with pytest.raises(GGUFError, match="no such file"):
        make("mistrall.gguf")


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "hf:", "hf:owner", "hf:../x", "hf:a/..", "hf:a/b:../../c.gguf", "hf:a/b:/etc/passwd", "a:..",
     "a:b:c/d:e", "https://example.com/x", "https://huggingface.co/", "hf:a/b:c\\d.gguf", "hf:a/b:x\0y", "a//b"],
)  # fmt: skip
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(StoreError):
        parse(name)


def test_pasted_addresses_are_names() -> None:
    page = "https://huggingface.co/owner/Some-GGUF"
    assert parse(page) == HubName("owner/Some-GGUF")
    assert parse(page + "?show_file_info=x-Q4_0.gguf") == HubName("owner/Some-GGUF", "x-Q4_0.gguf")
    assert parse(page + "/resolve/v2/sub/x-Q4_0.gguf?download=true") == HubName(
        "owner/Some-GGUF", "sub/x-Q4_0.gguf", "v2"
    )
    assert parse(page + "/tree/main") == HubName("owner/Some-GGUF")
    assert parse("https://ollama.com/library/llama3.2:1b") == RegistryName("llama3.2", "1b")
    assert parse("someone/model:tag") == RegistryName("model", "tag", "someone")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../b", "a\\b", "C:x", "a//b", "", "x\n", "a/.", "nul/..", "a./b"])
def test_names_of_files_that_leave_their_folder_are_seen(name: str) -> None:
    assert not safe_path(name)


def test_a_manifest_cannot_name_files_elsewhere(home: Path, tmp_path: Path) -> None:
    root = home / ".ollama/models"
    (tmp_path / "secret").write_bytes(b"GGUF")
    for digest in ("sha256:../../../secret", "sha256-" + "../" * 3 + "secret", "sha256:" + "A" * 64, 5, None):
        layer = {
            "mediaType": "application/vnd.ollama.image.model",
            "digest": digest,
            "size": 4,
            "path": str(tmp_path / "secret"),
        }
        (root / "manifests/registry.ollama.ai/library/llama3.2/bad").write_text(json.dumps({"layers": [layer]}))
        with pytest.raises(StoreError, match="no digest"):
            find("llama3.2:bad")
    for text in ("{", "[]", '{"layers": 5}', '{"layers": [{}]}', "[" * 100000, '{"layers": []}'):
        (root / "manifests/registry.ollama.ai/library/llama3.2/bad").write_text(text)
        with pytest.raises(StoreError):
            find("llama3.2:bad")
    assert "bad" not in CliRunner().invoke(command_line, ["list"]).stdout
