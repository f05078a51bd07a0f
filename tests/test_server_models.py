"""Several models: by name, on demand, within a budget of memory; files that change; the server within another one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
SIZE = int(DEMO.stat().st_size * 1.22)


def ask(url: str, **fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, **fields}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60)


def loaded(url: str) -> list[str]:
    return [m["id"] for m in httpx.get(f"{url}/v1/models").json()["data"] if m["meta"]["loaded"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.gguf", "b.gguf", "c.v2.gguf", "notes.txt"):
        shutil.copy(DEMO, tmp_path / name)
    return tmp_path


def test_a_folder_is_models_by_their_files_names(folder: Path) -> None:
    with llamacpu.serve(folder, aliases={"best": "b"}) as url:
        listed = [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]]
        assert listed == ["a", "b", "c.v2", "best"]
        assert loaded(url) == ["a"]
        assert ask(url, model="best").json()["model"] == "b"
        assert ask(url).json()["model"] == "a"
        assert sorted(loaded(url)) == ["a", "b", "best"]
        assert "c.v2" in ask(url, model="d").json()["error"]["message"]


def test_unused_models_make_room_for_others(folder: Path) -> None:
    with llamacpu.serve(folder, memory_budget=2 * SIZE + 1000) as url:
        for name, expected in (("a", ["a"]), ("b", ["a", "b"]), ("c.v2", ["b", "c.v2"]), ("a", ["a", "c.v2"])):
            assert ask(url, model=name).status_code == 200
            assert loaded(url) == expected
    with llamacpu.serve(folder, memory_budget=SIZE // 2) as url:
        assert ask(url, model="b").status_code == 200  # one model is always allowed
        assert loaded(url) == ["b"]


def test_an_open_model_is_served_as_it_is() -> None:
    with llamacpu.Model(DEMO) as model, llamacpu.serve({"mine": model}) as url:
        assert ask(url).json()["model"] == "mine"
        assert model.generate("x", max_tokens=1, sampling=llamacpu.Sampling(temperature=0)).read().tokens


def test_a_model_is_unloaded_when_it_was_unused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamacpu.server.application._TIDY_SECONDS", 0.02)
    with llamacpu.serve(folder, keep_alive=0.05) as url:
        assert ask(url, model="b").status_code == 200
        for _ in range(500):
            if not loaded(url):
                break
        assert loaded(url) == []
        assert ask(url, model="b").status_code == 200


def test_a_file_that_was_replaced_is_opened_again(tmp_path: Path, tiny_model: Any) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(DEMO, path)
    with llamacpu.serve(path) as url:
        before = httpx.post(f"{url}/tokenize", json={"content": "Hello"}).json()
        other = tiny_model("gqa")
        shutil.copy(other, tmp_path / "new")
        (tmp_path / "new").replace(path)
        assert httpx.post(f"{url}/tokenize", json={"content": "Hello"}).json() != before
        path.unlink()
        assert httpx.post(f"{url}/tokenize", json={"content": "Hello"}).status_code == 200


def test_a_file_that_was_written_to_is_told_of_and_not_answered_from(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    shutil.copy(DEMO, path)
    with llamacpu.serve(path) as url:
        assert ask(url).status_code == 200
        path.write_bytes(path.read_bytes()[:1000])
        response = ask(url)
        assert response.status_code == 500
        assert response.json()["error"]["code"] == "model_error"
        assert httpx.get(f"{url}/v1/models").status_code == 200
        shutil.copy(DEMO, path)
        assert ask(url).status_code == 200


@pytest.mark.parametrize(
    ("models", "error"),
    [
        ("no/such.gguf", FileNotFoundError),
        ([], ValueError),
        (3, ValueError),
        ([DEMO, DEMO], ValueError),
    ],
)
def test_models_that_there_are_not(models: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        llamacpu.serve(models)


def test_wrong_models_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF nothing")
    (tmp_path / "empty").mkdir()
    for arguments in ([str(tmp_path / "bad.gguf")], [str(tmp_path / "empty")], [str(DEMO), "--alias", "x=y"]):
        result = CliRunner().invoke(command_line, ["serve", "--port", "0", *arguments])
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert len(result.output.splitlines()) == 1
    for arguments in (["--host", "0.0.0.0"], ["--alias", "x"], ["--memory-budget", "big"], ["--keep-alive", "soon"]):
        assert CliRunner().invoke(command_line, ["serve", *arguments]).exit_code == 2


def test_a_port_that_is_taken_is_told_of(demo_url: str) -> None:
    port = demo_url.rpartition(":")[2]
    result = CliRunner().invoke(command_line, ["serve", str(DEMO), "--port", port])
    assert result.exit_code == 1
    assert f"127.0.0.1:{port}" in result.output


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("", ("127.0.0.1", 11434)),
        ("0.0.0.0", ("0.0.0.0", 11434)),
        (":123", ("127.0.0.1", 123)),
        ("http://me:80/x", ("me", 80)),
        ("https://me", ("me", 443)),
        ("[::1]:9", ("::1", 9)),
        ("::1", ("::1", 11434)),
    ],
)
def test_where_ollama_listens(host: str, expected: tuple[str, int]) -> None:
    from llamacpu.server.ollama.environment import settings_of

    found = settings_of({"OLLAMA_HOST": host, "OLLAMA_ORIGINS": "https://a.example, app://x", "OLLAMA_MAX_QUEUE": "9"})
    assert (found["host"], found["port"]) == expected
    assert found["keep_alive"] == 300
    assert found["origins"] == ("https://a.example", "app://x")
    assert found["queue"] == 9
    with pytest.raises(ValueError, match="OLLAMA_HOST"):
        settings_of({"OLLAMA_HOST": "me:port"})


def test_ollama_is_running() -> None:
    with llamacpu.serve(DEMO, ollama=True) as url:
        assert httpx.get(url).text == "Ollama is running"
        assert httpx.head(url).status_code == 200


@pytest.fixture
def outer() -> Any:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from llamacpu import server

    inner = server.app(DEMO, api_keys=("key",), hosts=("outer.example",))
    return Starlette(routes=[Mount("/llm", inner)], lifespan=inner.lifespan), inner


def test_it_can_be_mounted_in_another_application(outer: Any) -> None:
    application, inner = outer

    async def run() -> None:
        transport = httpx.ASGITransport(application)
        async with inner.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://outer.example") as client:
            assert (await client.get("/llm/health")).json()["status"] in ("ok", "loading model")
            assert (await client.get("/llm/v1/models")).status_code == 401
            head = {"Authorization": "Bearer key"}
            for path in ("/llm/v1/chat/completions", "/llm/openai/v1/chat/completions"):
                body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
                answer = await client.post(path, json=body, headers=head)
                assert answer.json()["usage"]["completion_tokens"] == 2
            refused = await client.get("/llm/v1/models", headers={"Host": "evil.example"})
            assert refused.status_code == 403

    asyncio.run(run())


def test_prefixes_outlive_the_server(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are a friendly little model. " * 20}
    messages = [system, {"role": "user", "content": "Hi"}]
    cached = []
    for _ in range(2):
        with llamacpu.serve(DEMO, prefix_cache=tmp_path / "prefixes") as url:
            for _ in range(2):
                usage = ask(url, messages=messages).json()["usage"]
                cached.append(usage["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert min(cached[1:]) > 0


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name.partition('.')[0] in ('starlette', 'uvicorn', 'pydantic', 'prometheus_client'):\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from llamacpu.cli import main\n"
        "sys.argv = ['llamacpu', 'serve', '--port', '0']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install llamacpu[server]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_importing_llamacpu_and_showing_help_needs_nothing_of_the_server() -> None:
    code = (
        "import sys, llamacpu, llamacpu.cli\n"
        "from llamacpu.cli.serve import command\n"
        "found = {'starlette', 'uvicorn', 'pydantic', 'prometheus_client', 'llamacpu.server'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeout", "0"], "timeout is 0"),
        (["--memory-budget", "0"], "memory_budget is 0"),
        (["--allowed-origin", "example.com"], "the allowed origin is 'example.com'"),
        (["--allowed-origin", "https://example.com/page"], "without a path"),
        (["--allowed-host", ""], "the allowed host is ''"),
        (["--allowed-host", "http://example.com"], "expected a name"),
        (["--prefix-cache", "{folder}/notes.txt/x"], "the folder of the prefix cache cannot be used"),
        (["--guard", "{folder}"], "the guard is 3 models: a, b, c.v2"),
        (["--guard", "{folder}/none.gguf"], "no such file"),
    ],
)
def test_senseless_options_are_refused_in_words(folder: Path, arguments: list[str], words: str) -> None:
    given = [argument.format(folder=folder) for argument in arguments]
    result = CliRunner().invoke(command_line, ["serve", str(DEMO), "--port", "0", *given])
    assert result.exit_code == 1
    assert words in " ".join(result.stderr.split())
