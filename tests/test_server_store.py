"""Models that clients pull, copy and delete over Ollama's API, from a registry and a hub on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llamacpu
from llamacpu.store.places import places
from model_hub import ModelHub, use_alone

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Callable[..., Path]) -> Iterator[ModelHub]:
    server = ModelHub()
    use_alone(server, monkeypatch, tmp_path)
    server.put_model("tiny:latest", tiny_model().read_bytes(), license=b"Free")
    server.put_model("other:v2", DEMO.read_bytes())
    server.repositories["maker/Tiny-GGUF"] = {"Tiny-Q8_0.gguf": tiny_model().read_bytes()}
    yield server
    server.close()


@pytest.fixture
def url(hub: ModelHub, tmp_path: Path) -> Iterator[str]:
    with llamacpu.serve(DEMO, store_changes=True, aliases={"best": "demo"}) as found:
        yield found


def post(url: str, path: str, **body: Any) -> Any:
    return httpx.post(url + path, json=body, timeout=60)


def delete(url: str, name: str) -> Any:
    return httpx.request("DELETE", f"{url}/api/delete", json={"model": name}, timeout=60)


def names(url: str) -> list[str]:
    return [model["name"] for model in httpx.get(f"{url}/api/tags").json()["models"]]


def lines(response: Any) -> list[Any]:
    assert response.status_code == 200
    return [json.loads(line) for line in response.text.splitlines()]


def answers(url: str, name: str) -> bool:
    body = {"model": name, "prompt": "a", "raw": True, "stream": False, "options": {"num_predict": 2}}
    return bool(post(url, "/api/generate", **body).status_code == 200)


def test_a_model_is_pulled_used_copied_and_deleted(url: str, hub: ModelHub) -> None:
    assert names(url) == ["demo:latest", "best:latest"]
    told = lines(post(url, "/api/pull", model="other:v2"))
    assert told[0] == {"status": "pulling manifest"}
    assert [line["status"] for line in told[-3:]] == ["verifying sha256 digest", "writing manifest", "success"]
    digests = {line["digest"]: line for line in told if "digest" in line}
    weights = digests[max(digests, key=lambda digest: digests[digest]["total"])]
    assert weights["status"] == f"pulling {weights['digest'].removeprefix('sha256:')[:12]}"
    assert weights["completed"] == weights["total"] == DEMO.stat().st_size
    assert all(0 <= line["completed"] <= line["total"] for line in told if "total" in line)
    assert names(url) == ["demo:latest", "other:v2", "best:latest"]
    assert answers(url, "other:v2")
    assert post(url, "/api/copy", source="other:v2", destination="mine").status_code == 200
    assert answers(url, "mine")
    assert answers(url, "mine:latest")
    assert delete(url, "other:v2").status_code == 200
    # Its blobs are those of the copy as well.
    assert answers(url, "mine")
    assert names(url) == ["demo:latest", "mine:latest", "best:latest"]
    assert delete(url, "mine:latest").status_code == 200
    assert names(url) == ["demo:latest", "best:latest"]
    assert not [path for path in places().own.rglob("sha256-*")]
    assert delete(url, "mine").status_code == 404
    assert post(url, "/api/chat", model="mine", messages=[]).status_code == 404


def test_whole_answers_and_the_hub(url: str, hub: ModelHub) -> None:
    assert post(url, "/api/pull", model="tiny", stream=False).json() == {"status": "success"}
    assert post(url, "/api/pull", name="hf.co/maker/Tiny-GGUF:Q8_0", stream=False).json() == {"status": "success"}
    assert names(url) == ["demo:latest", "tiny:latest", "hf:maker/Tiny-GGUF:Q8_0", "best:latest"]
    for name in ("tiny", "tiny:latest", "hf.co/maker/Tiny-GGUF:Q8_0", "hf:maker/Tiny-GGUF"):
        assert answers(url, name), name
    assert lines(post(url, "/api/pull", model="tiny"))[-1] == {"status": "success"}
    assert delete(url, "hf.co/maker/Tiny-GGUF:Q8_0").status_code == 200
    # A model of the server's owner needs no download.
    assert lines(post(url, "/api/pull", model="best")) == [{"status": "success"}]


def test_what_another_program_puts_into_the_store_is_served(url: str, hub: ModelHub) -> None:
    from llamacpu.store.own import remove
    from llamacpu.store.pull import pull

    assert post(url, "/api/show", model="tiny").status_code == 404
    pull("tiny")
    assert post(url, "/api/show", model="tiny").status_code == 200
    remove("tiny")
    assert names(url) == ["demo:latest", "best:latest"]
    assert post(url, "/api/show", model="tiny").status_code == 404


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("none", 404, "pull model manifest: none:latest is neither"),
        ("hf:maker/none", 500, "does not exist"),
        ("hf:maker/Tiny-GGUF:Q2_K", 500, "has no"),
        ("../../etc/passwd", 400, "neither a file that is there nor the name"),
        ("/etc/passwd", 400, "neither a file"),
        ("~/x", 400, "neither a file"),
        ("C:\\x.gguf", 400, "neither a file"),
        ("a:b:c", 400, "neither a file"),
        ("evil.example/library/tiny", 400, "names the registry evil.example"),
        ("https://evil.example/x", 400, "no page of a model"),
        ("hf:../x", 400, "names no repository"),
        ("hf:maker/Tiny-GGUF:../../x", 400, "no path inside"),
        ("\x00", 400, ""),
        (" ", 400, ""),
        ("", 400, "missing"),
    ],
)
def test_what_cannot_be_pulled_is_told(
    url: str, hub: ModelHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int, words: str
) -> None:
    # Whether a file of this name is there makes no difference.
    monkeypatch.chdir(tmp_path)
    shutil.copy(DEMO, tmp_path / "none")
    whole = post(url, "/api/pull", model=name, stream=False)
    assert (whole.status_code, set(whole.json())) == (status, {"error"})
    assert words in whole.json()["error"]
    streamed = post(url, "/api/pull", model=name)
    if status == 400:
        assert streamed.status_code == 400
    else:
        told = lines(streamed)
        assert told[0] == {"status": "pulling manifest"}
        assert words in told[-1]["error"]
    if status == 400:
        assert delete(url, name).status_code == 400
        assert post(url, "/api/copy", source="demo", destination=name).status_code == 400
    assert names(url) == ["demo:latest", "best:latest"]


def test_models_of_the_servers_owner_are_not_changed(url: str, hub: ModelHub) -> None:
    for name in ("demo", "demo:latest", "best"):
        assert delete(url, name).status_code == 403
        assert post(url, "/api/copy", source="demo", destination=name).status_code == 403
    assert post(url, "/api/copy", source="none", destination="x").status_code == 404
    assert post(url, "/api/copy", source="demo", destination="hf:a/b").status_code == 400
    assert post(url, "/api/copy", source="demo", destination="mine").status_code == 200
    assert answers(url, "mine")
    assert delete(url, "mine").status_code == 200
    assert DEMO.is_file()
    assert answers(url, "demo")


def test_nothing_is_changed_unless_allowed(hub: ModelHub) -> None:
    with llamacpu.serve(DEMO) as url:
        for refused in (
            post(url, "/api/pull", model="tiny"),
            post(url, "/api/copy", source="demo", destination="x"),
            delete(url, "tiny"),
        ):
            assert refused.status_code == 403
            assert "--store-changes" in refused.json()["error"]
        assert hub.requests == []
        assert post(url, "/api/pull", model="demo", stream=False).json() == {"status": "success"}
    assert not places().own.exists()


def test_a_download_that_nobody_waits_for_ends_and_is_resumed(url: str, hub: ModelHub) -> None:
    hub.faults.slow = 0.05
    for _ in range(4):
        # More than may run at once: each gives its place back.
        with httpx.stream("POST", f"{url}/api/pull", json={"model": "other:v2"}, timeout=60) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if json.loads(line).get("completed"):
                    break
    hub.faults.slow = 0.0
    while (found := post(url, "/api/pull", model="other:v2", stream=False)).status_code == 429:
        assert found.headers["retry-after"] == "30"
    assert found.json() == {"status": "success"}
    assert answers(url, "other:v2")


def test_a_model_is_created_shown_and_used(url: str, hub: ModelHub) -> None:
    settings = {"temperature": 0, "num_predict": 4, "stop": ["<x>"]}
    more = {"from": "demo", "system": "Be kind.", "parameters": settings, "template": "{{ .Prompt }}", "license": ["L"]}
    told = lines(post(url, "/api/create", model="mine", messages=[{"role": "user", "content": "a"}], **more))
    assert [line["status"] for line in told] == ["reading model metadata", "writing manifest", "success"]
    assert "mine:latest" in names(url)
    shown = post(url, "/api/show", model="mine").json()
    assert (shown["system"], shown["template"], shown["license"]) == ("Be kind.", "{{ .Prompt }}", "L")
    assert shown["parameters"].splitlines() == [
        "temperature                    0", "num_predict                    4", 'stop                           "<x>"',
    ]  # fmt: skip
    assert shown["messages"] == [{"role": "user", "content": "a"}]
    assert "SYSTEM" in shown["modelfile"]
    asked = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert post(url, "/api/chat", **asked).json()["eval_count"] == 4
    # Another one over it, and again under the same name: the new settings apply.
    text = "FROM mine\nPARAMETER num_predict 2"
    assert post(url, "/api/create", model="short", modelfile=text, stream=False).json() == {"status": "success"}
    assert post(url, "/api/chat", **{**asked, "model": "short"}).json()["eval_count"] == 2
    again = {"model": "short", "from": "mine", "parameters": {"num_predict": 3}, "stream": False}
    assert post(url, "/api/create", **again).status_code == 200
    assert post(url, "/api/chat", **{**asked, "model": "short"}).json()["eval_count"] == 3
    assert delete(url, "mine").status_code == 200
    assert post(url, "/api/chat", **{**asked, "model": "short"}).status_code == 200


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({}, 400, "from: the model is missing"),
        ({"from": "nosuch"}, 404, "there is no model 'nosuch'"),
        ({"from": str(DEMO)}, 404, "there is no model"),
        ({"modelfile": f"FROM {DEMO}"}, 404, "there is no model"),
        ({"modelfile": "FROM demo\nPARAMETER top_k x"}, 400, "line 2: top_k is 'x'"),
        ({"from": "demo", "parameters": {"top_p": 5}}, 400, "top_p is 5"),
        ({"from": "demo", "parameters": {"nosuch": 5}}, 400, "there is no parameter 'nosuch'"),
        ({"from": "demo", "template": "{{ .A | nosuch }}"}, 400, "column 9: the function nosuch is not supported"),
        ({"from": "demo", "adapters": {"a": "sha256:0"}}, 400, "adapters are not taken from clients"),
        ({"from": "demo", "files": {"a": "sha256:0"}}, 400, "files are not taken from clients"),
        ({"from": "demo", "quantize": "q4_K_M"}, 400, "not quantized by this server"),
        ({"from": "demo", "model": "../x"}, 400, "model"),
        ({"from": "demo", "model": "demo"}, 403, "started with"),
    ],
)
def test_what_cannot_be_created(url: str, more: dict[str, Any], status: int, message: str) -> None:
    answer = post(url, "/api/create", **{"model": "mine", **more})
    assert (answer.status_code, message in answer.json()["error"]) == (status, True), answer.text
    assert names(url) == ["demo:latest", "best:latest"]
