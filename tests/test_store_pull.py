"""Models pulled from a server that speaks both protocols and goes wrong in every way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import StoreError
from llamacpu.store.local import find
from llamacpu.store.own import copy, remove
from llamacpu.store.places import Places, places
from llamacpu.store.pull import plan_of, pull
from model_hub import TOKEN, ModelHub, use_alone


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Callable[..., Path]) -> Iterator[ModelHub]:
    """The server, with a model under each kind of name, and an empty store."""
    server = ModelHub()
    use_alone(server, monkeypatch, tmp_path)
    gguf = tiny_model().read_bytes()
    params = json.dumps({"temperature": 0.5}).encode()
    server.put_model("tiny:latest", gguf, params=params, system=b"Be brief.", license=b"Free")
    server.repositories["maker/Tiny-GGUF"] = {
        "README.md": b"# Tiny", "LICENSE": b"Built with Llama",
        "Tiny-F16.gguf": tiny_model(seed=2).read_bytes() + bytes(1 << 17),
        "Tiny-Q8_0.gguf": gguf, "sub/Tiny-Q4_K_M.gguf": tiny_model(seed=1).read_bytes(),
    }  # fmt: skip
    yield server
    server.close()


def files(where: Places) -> list[str]:
    """All files of our own store."""
    return sorted(str(path.relative_to(where.own)) for path in where.own.rglob("*") if path.is_file())


def unfinished(where: Places) -> list[str]:
    """Files that look finished and are not what their name says."""
    found = []
    for path in where.own.rglob("*"):
        digits = path.name.removeprefix("sha256-")
        if (
            path.name.startswith("sha256-")
            and "." not in digits
            and hashlib.sha256(path.read_bytes()).hexdigest() != digits
        ):
            found.append(path.name)
    return found


@pytest.mark.parametrize(
    "name",
    ["tiny", "tiny:latest", "hf:maker/Tiny-GGUF", "hf:maker/Tiny-GGUF:Q4_K_M", "hf.co/maker/Tiny-GGUF:Tiny-Q8_0.gguf"],
)
def test_a_name_is_enough(hub: ModelHub, name: str) -> None:
    with llamacpu.Model(name) as model:
        path = Path(model.path)
    entry = find(name)
    assert entry is not None
    assert entry.origin == "llamacpu"
    assert entry.path == path
    hub.requests.clear()
    result = CliRunner().invoke(command_line, ["run", name, "--raw", "-p", "a", "-n", "2", "--temperature", "0"])
    assert result.exit_code == 0, result.stderr
    assert hub.requests == []
    rows = json.loads(CliRunner().invoke(command_line, ["list", "--json"]).stdout)
    assert [row["path"] for row in rows] == [str(path)]
    assert not [file for file in files(places()) if file.endswith((".partial", ".lock", ".chunks", ".part"))]


def test_run_pulls_and_says_what(hub: ModelHub) -> None:
    result = CliRunner().invoke(command_line, ["run", "hf:maker/Tiny-GGUF", "--raw", "-p", "a", "-n", "1"])
    assert result.exit_code == 0
    assert "hf:maker/Tiny-GGUF:Q8_0 (the best that fits here)" in result.stderr
    assert "others: F16, Q4_K_M" in result.stderr
    assert "tokens/s" in result.stderr


def test_the_plan_of_run_is_for_its_context(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = []
    monkeypatch.setattr("llamacpu.cli.download_bar.show", lambda plan: planned.append(plan.facts["context"]))
    answer = CliRunner().invoke(command_line, ["run", "tiny", "a", "-c", "24", "--raw", "-n", "1"])
    assert (answer.exit_code, planned) == (0, [24]), answer.output


def test_what_fits_depends_on_memory(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = plan_of("hf:maker/Tiny-GGUF:Q8_0").facts
    small = len(hub.repositories["maker/Tiny-GGUF"]["sub/Tiny-Q4_K_M.gguf"])
    hub.repositories["maker/Tiny-GGUF"]["Tiny-Q8_0.gguf"] += bytes(1 << 20)
    assert facts is not None
    for name in ("pull", "facts"):
        monkeypatch.setattr(f"llamacpu.store.{name}.available_memory", lambda: facts["memory_bytes"] + 1000)
    assert plan_of("hf:maker/Tiny-GGUF").name == "hf:maker/Tiny-GGUF:Q4_K_M"
    hub.sent = 0
    for name in ("pull", "facts"):
        monkeypatch.setattr(f"llamacpu.store.{name}.available_memory", lambda: 1000)
    with pytest.raises(StoreError, match="--force"):
        pull("hf:maker/Tiny-GGUF:Q4_K_M")
    assert hub.sent <= small + 1000
    assert not places().own.exists()
    assert CliRunner().invoke(command_line, ["pull", "tiny", "--force"]).exit_code == 0


def test_a_full_disk_is_told_before(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.store.pull._free", lambda folder: 1000)
    with pytest.raises(StoreError, match="of disk"):
        pull("tiny")


def test_the_plan_downloads_nothing(hub: ModelHub) -> None:
    plan = json.loads(CliRunner().invoke(command_line, ["pull", "tiny", "--plan", "--json"]).stdout)
    assert plan["fits"] is True
    assert plan["memory_bytes"] > plan["weight_bytes"]
    assert plan["free_disk_bytes"] > 0
    assert plan["expected_tokens_per_second"] > 0
    assert not places().own.exists()


FAULTS: dict[str, dict[str, Any]] = {
    "cut": {"cut": 6},
    "no ranges": {"no_ranges": True},
    "no ranges, cut": {"no_ranges": True, "cut": 2},
    "redirects": {"redirect": True},
    "busy": {"status": {"/v2/": [503, 429, 500], "/maker": [502, 429]}, "headers": {"Retry-After": "0"}},
    "small steps": {"cut_always_after": 20_000},
}


@pytest.mark.parametrize("name", ["tiny", "hf:maker/Tiny-GGUF:Q4_K_M"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_that_pass_are_overcome(hub: ModelHub, name: str, fault: str) -> None:
    for key, value in FAULTS[fault].items():
        setattr(hub.faults, key, json.loads(json.dumps(value)))
    entry = pull(name)
    assert entry.path.read_bytes() in (*hub.blobs.values(), *hub.repositories["maker/Tiny-GGUF"].values())
    assert unfinished(places()) == []


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong bytes": ("tiny", {"wrong_bytes": True}, "sha256"),
    "wrong bytes of the hub": ("hf:maker/Tiny-GGUF:Q8_0", {"wrong_bytes": True}, "sha256"),
    "wrong size": ("tiny", {"wrong_total": True}, "expected byte"),
    "unknown": ("tinny", {}, "neither on this machine nor in the registry"),
    "unknown, like another": ("llama3.22", {}, "did you mean llama3.2"),
    "like a repository": ("maker/tiny", {}, "hf:maker/tiny"),
    "unknown repository": ("hf:maker/None-GGUF", {}, "HF_TOKEN"),
    "unknown quantization": ("hf:maker/Tiny-GGUF:Q2_K", {}, "it has F16, Q8_0, Q4_K_M"),
    "server down": ("tiny", {"status": {"/v2/": [-500]}}, "answered 500"),
    "too many": ("tiny", {"status": {"/v2/": [-429]}}, "too many requests"),
    "forbidden": ("hf:maker/Tiny-GGUF", {"status": {"/api": [-403]}}, "does not let you read"),
    "unauthorized": ("tiny", {"status": {"/v2/": [-401]}}, "answered 401"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_stays_wrong_is_one_clear_error(hub: ModelHub, case: str) -> None:
    name, faults, words = REFUSALS[case]
    for key, value in faults.items():
        setattr(hub.faults, key, value)
    result = CliRunner().invoke(command_line, ["pull", name])
    assert result.exit_code == 1
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not [file for file in files(places()) if file.endswith(".gguf") or "manifests" in file]
    assert unfinished(places()) == []


def test_nothing_listens(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMACPU_REGISTRY", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="cannot be reached"):
        llamacpu.Model("tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(StoreError, match="HF_HUB_OFFLINE"):
        llamacpu.Model("tiny")


def test_a_gated_repository_says_what_to_do_and_takes_a_key(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("maker/Tiny-GGUF")
    with pytest.raises(StoreError, match=r"accept their licence at .*maker/Tiny-GGUF, then make a key"):
        pull("hf:maker/Tiny-GGUF:Q8_0")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.redirect = True
    hub.requests.clear()
    pull("hf:maker/Tiny-GGUF:Q8_0")
    # The key is for the hub alone, not for where it redirects to.
    told = {path.startswith("/cdn/"): key for path, _, key in hub.requests}
    assert told == {True: None, False: f"Bearer {TOKEN}"}


def test_a_registry_may_ask_for_a_key_of_its_own(hub: ModelHub) -> None:
    hub.token, hub.faults.redirect = "anonymous", True
    assert pull("tiny").path.is_file()
    asked = [path for path, _, key in hub.requests if path.startswith("/token")]
    assert asked == ["/token?service=registry&scope=repository%3Atiny%3Apull"]
    # The key goes to the registry alone, not to where its files are.
    assert {key for path, _, key in hub.requests if path.startswith("/cdn/")} == {None}
    assert {key for path, _, key in hub.requests if "/blobs/" in path} == {"Bearer anonymous"}


def test_a_proxy_is_asked_unless_the_host_needs_none(hub: ModelHub, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = ModelHub()
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert pull("tiny").path.is_file()
    assert not proxy.requests
    monkeypatch.setenv("no_proxy", "example.com")
    monkeypatch.setenv("LLAMACPU_REGISTRY", "http://registry.invalid")
    with pytest.raises(StoreError, match="neither on this machine nor in the registry"):
        pull("other")
    proxy.close()
    assert proxy.requests[0][0] == "http://registry.invalid/v2/library/other/manifests/latest"


def test_the_licence_is_kept(hub: ModelHub) -> None:
    pull("hf:maker/Tiny-GGUF:Q8_0")
    assert json.loads(CliRunner().invoke(command_line, ["show", "hf:maker/Tiny-GGUF", "--json"]).stdout)["notice"]
    pull("tiny")
    assert CliRunner().invoke(command_line, ["show", "tiny", "--license"]).stdout == "Free\n"


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../evil",
        "sha256:" + "0" * 63,
        "sha256:/etc/passwd",
        "md5:" + "0" * 64,
        None,
        "sha256:" + "0" * 64,
    ],
)
def test_a_manifest_cannot_write_elsewhere(hub: ModelHub, tmp_path: Path, digest: str | None) -> None:
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": 4, "path": "/etc/passwd"}
    hub.put_manifest("library/bad/manifests/latest", {"layers": [layer]})
    with pytest.raises(StoreError):
        pull("bad")
    assert not places().own.exists()
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "name", ["../evil-Q8_0.gguf", "/tmp/evil-Q8_0.gguf", "a/../../evil-Q8_0.gguf", "a\\..\\evil-Q8_0.gguf"]
)
def test_a_repository_cannot_write_elsewhere(hub: ModelHub, tmp_path: Path, name: str) -> None:
    hub.repositories["maker/Evil-GGUF"] = {name: b"GGUF"}
    with pytest.raises(StoreError, match="no GGUF files"):
        pull("hf:maker/Evil-GGUF")
    assert not list(tmp_path.rglob("*evil*"))


def test_what_is_no_model_is_refused_before_the_download(hub: ModelHub) -> None:
    hub.put_model("page:latest", b"<html>" + bytes(1 << 20))
    hub.put_model("plain:latest", b"GGUF" + b"\3\0\0\0" + b"\xff" * (1 << 17))
    for name in ("page", "plain"):
        with pytest.raises(StoreError, match="no model that can be used"):
            pull(name)
    assert not places().own.exists()


PULL = """
import sys
from llamacpu.store import download, pull
download.CHUNK = 1 << 16
print(pull.pull(sys.argv[1]).path)
"""


def start(name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("name", ["tiny", "hf:maker/Tiny-GGUF:Q8_0"])
def test_a_killed_pull_looks_unfinished_and_is_resumed(hub: ModelHub, name: str) -> None:
    gguf = hub.repositories["maker/Tiny-GGUF"]["Tiny-Q8_0.gguf"]
    hub.faults.hold = threading.Event()
    process = start(name)
    marks = b""
    while marks.count(b"\1") < 2 and process.poll() is None:
        time.sleep(0.01)
        found = [path for path in places().own.rglob("*.chunks") if path.stat().st_size > 100]
        marks = found[0].read_bytes().partition(b"\n")[2] if found else b""
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL or os.name == "nt"
    assert find(name, own=True) is None or name.startswith("hf:")
    assert not [path for path in places().own.rglob("*.gguf")]
    assert unfinished(places()) == []
    assert "NAME" not in CliRunner().invoke(command_line, ["list"]).stdout
    hub.faults.hold.set()
    hub.requests.clear()
    assert pull(name).path.read_bytes() == gguf
    # The header was fetched again, the chunks that were here were not.
    ranges = {span for _, span, _ in hub.requests}
    here = [index for index, mark in enumerate(marks) if mark]
    assert not ranges & {f"bytes={index << 16}-{(index + 1 << 16) - 1}" for index in here}
    assert not [file for file in files(places()) if "partial" in file or file.endswith(".lock")]


def test_two_processes_share_one_download(hub: ModelHub) -> None:
    hub.faults.slow = 0.02
    size = len(hub.repositories["maker/Tiny-GGUF"]["Tiny-Q8_0.gguf"])
    both = [start("tiny"), start("tiny")]
    told = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert told[0][0] == told[1][0]
    # Each reads the header; the bytes of the file come once.
    assert hub.sent <= 3 * size + 10_000
    assert unfinished(places()) == []


def test_a_newer_model_takes_the_place_of_the_older(hub: ModelHub, tiny_model: Callable[..., Path]) -> None:
    first = pull("tiny").path
    pull("hf:maker/Tiny-GGUF:Q8_0")
    newer = tiny_model(seed=3).read_bytes()
    hub.put_model("tiny:latest", newer)
    hub.repositories["maker/Tiny-GGUF"]["Tiny-Q8_0.gguf"] = newer
    assert pull("tiny").path.read_bytes() == newer
    assert not first.exists()
    assert pull("hf:maker/Tiny-GGUF:Q8_0").path.read_bytes() == newer


def test_split_models_and_projectors_are_pulled_as_one(hub: ModelHub) -> None:
    hub.repositories["maker/Big-GGUF"] = {
        **{f"Q4_0/Big-Q4_0-0000{part}-of-00003.gguf": b"GGUF" + bytes(part) * 1000 for part in (1, 2, 3)},
        "mmproj-Big-f16.gguf": b"GGUF picture",
    }
    entry = pull("hf:maker/Big-GGUF:Q4_0")
    assert [file.name[-19:] for file in entry.files] == [f"0000{part}-of-00003.gguf" for part in (1, 2, 3)]
    assert all(file.is_file() for file in entry.files)
    assert len([file for file in files(places()) if "mmproj" in file]) == 1


def test_rm_and_cp_change_our_own_store_alone(hub: ModelHub, tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    path = pull("tiny").path
    copy("tiny", "mine")
    assert CliRunner().invoke(command_line, ["cp", "tiny", "mine:v2"]).exit_code == 0
    other = copy(str(tiny_model()), "linked")
    assert other.path == tiny_model()
    assert CliRunner().invoke(command_line, ["rm", "tiny", "mine"]).exit_code == 0
    assert path.exists()
    remove("mine:v2")
    remove("linked")
    assert files(places()) == []
    assert tiny_model().exists()
    pull("hf:maker/Tiny-GGUF:Q8_0")
    remove("hf:maker/Tiny-GGUF:Q8_0")
    assert files(places()) == []
    for name in ("tiny", "hf:maker/Tiny-GGUF", str(tiny_model())):
        with pytest.raises(StoreError):
            remove(name)
    for name in ("x.gguf", "hf:a/b", "../x"):
        with pytest.raises(StoreError):
            copy(str(tiny_model()), name)


def test_from_pretrained_needs_no_other_package(hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    llamacpu.Llama.from_pretrained("maker/Tiny-GGUF", "*Q8_0.gguf", verbose=False).close()
    folder = tmp_path / "chosen"
    llm = llamacpu.Llama.from_pretrained("maker/Tiny-GGUF", "*Q4_K_M.gguf", local_dir=folder, verbose=False)
    assert Path(llm.model_path) == folder / "sub/Tiny-Q4_K_M.gguf"
    llm.close()
    with pytest.raises(ValueError, match="no file"):
        llamacpu.Llama.from_pretrained("maker/Tiny-GGUF", "*.bin")
