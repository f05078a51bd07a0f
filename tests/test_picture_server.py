"""Pictures through every API of the server, and in the terminal."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import llamacpu
import vision_files
from llamacpu.cli.chat.dragged import dragged_pictures
from llamacpu.cli.group import command_line
from llamacpu.cli.terminal import PictureBar
from vision_files import png, url

pytest.importorskip("PIL")
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette", reason="the extra [server] is not installed")
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
PLAIN = base64.b64encode(png()).decode()


@pytest.fixture(scope="module")
def mmproj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_files.write_mmproj(tmp_path_factory.mktemp("vision") / "mmproj.gguf")


@pytest.fixture(scope="module")
def client(mmproj: Path) -> Iterator[Any]:
    with llamacpu.serve(DEMO, mmproj=mmproj) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def post(client: Any, path: str, **body: Any) -> Any:
    return client.post(path, json={"model": "demo", "stream": False, **body})


def openai(client: Any, part: dict[str, Any], **more: Any) -> Any:
    content = [part, {"type": "text", "text": "What is this?"}]
    messages = [{"role": "user", "content": content}]
    return post(client, "/v1/chat/completions", messages=messages, max_tokens=4, temperature=0, **more)


def test_every_api_shows_the_same_picture(client: Any) -> None:
    plain = post(
        client, "/v1/chat/completions", messages=[{"role": "user", "content": "What is this?"}], max_tokens=4,
        temperature=0,
    ).json()  # fmt: skip
    found = openai(client, {"type": "image_url", "image_url": {"url": url()}}).json()
    text = found["choices"][0]["message"]["content"]
    more = found["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
    assert more > vision_files.TOKENS
    parts = [{"type": "input_image", "image_url": url()}, {"type": "input_text", "text": "What is this?"}]
    response = post(
        client, "/v1/responses", input=[{"role": "user", "content": parts}], max_output_tokens=4, temperature=0
    ).json()
    assert response["output"][-1]["content"][0]["text"] == text
    source = {"type": "base64", "media_type": "image/png", "data": PLAIN}
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    message = post(
        client, "/v1/messages", messages=[{"role": "user", "content": blocks}], max_tokens=4, temperature=0
    ).json()
    assert message["content"][0]["text"] == text
    options = {"num_predict": 4, "temperature": 0}
    chat = post(
        client, "/api/chat", messages=[{"role": "user", "content": "What is this?", "images": [PLAIN]}], options=options
    ).json()
    assert chat["message"]["content"] == text
    assert chat["prompt_eval_count"] == found["usage"]["prompt_tokens"]
    one = post(client, "/api/generate", prompt="What is this?", images=[PLAIN], options=options).json()
    assert one["response"] == text
    assert all(token < 1 << 31 for token in one["context"])


def test_the_progress_of_pictures_is_told_before_that_of_their_tokens(client: Any) -> None:
    parts = [{"type": "image_url", "image_url": {"url": url((40, 40), shift)}} for shift in (91, 92)]
    body = {"messages": [{"role": "user", "content": parts}], "max_tokens": 1, "stream": True, "return_progress": True}

    def reports() -> list[Any]:
        lines = post(client, "/v1/chat/completions", **body).text.split("\n\n")
        found = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        return [chunk["prompt_progress"] for chunk in found if "prompt_progress" in chunk]

    found = reports()
    seen = [report["pictures"] for report in found if "pictures" in report]
    assert found[1 : 1 + len(seen)] == [report for report in found if "pictures" in report]
    assert {picture["total"] for picture in seen} == {2}
    encoded = [picture["encoded"] for picture in seen]
    assert encoded == sorted(encoded)
    assert encoded[0] < 1
    assert 1 in encoded
    assert encoded[-1] == 2
    assert {report["processed"] for report in found[: 1 + len(seen)]} == {found[0]["cache"]}
    assert found[-1]["processed"] == found[-1]["total"]
    # A picture that was encoded for an earlier question is not encoded again.
    assert not any(report.get("pictures", {}).get("encoded", 2) % 1 for report in reports())


def test_pictures_that_cannot_be_read_are_errors_of_the_request(client: Any) -> None:
    for given, word in [
        ("data:image/png;base64,AAAA", "picture"), ("/etc/passwd", "not allowed"),
        ("file:///etc/passwd", "not allowed"), ("http://localhost/a.png", "not allowed"),
        ("data:image/png;base64,***", "base64"),
    ]:  # fmt: skip
        answer = openai(client, {"type": "image_url", "image_url": {"url": given}})
        assert answer.status_code == 400, given
        assert word in answer.json()["error"]["message"]
    for part in ({"type": "image_url"}, {"type": "image_url", "image_url": {}}, {"type": "input_audio"}):
        assert openai(client, part).status_code == 400
    assert post(client, "/api/chat", messages=[{"role": "user", "content": "", "images": ["x"]}]).status_code == 400
    blocks = [{"type": "image"}]
    messages = [{"role": "user", "content": blocks}]
    assert post(client, "/v1/messages", messages=messages, max_tokens=1).status_code == 400
    many = [{"type": "image_url", "image_url": {"url": url((64, 64), shift)}} for shift in range(20)]
    answer = post(client, "/v1/chat/completions", messages=[{"role": "user", "content": many}], max_tokens=1)
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]["message"]


def test_files_and_sizes_are_what_the_server_allows(mmproj: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png())
    with (
        llamacpu.serve(DEMO, mmproj=mmproj, image_files=True, image_tokens=4, body_bytes=20_000) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        for name in (str(path), path.as_uri()):
            assert openai(client, {"type": "image_url", "image_url": {"url": name}}).status_code == 200
        small = openai(client, {"type": "image_url", "image_url": {"url": url((16, 16))}}).json()["usage"][
            "prompt_tokens"
        ]
        large = openai(client, {"type": "image_url", "image_url": {"url": url((40, 40))}})
        assert large.json()["usage"]["prompt_tokens"] == small
        assert openai(client, {"type": "image_url", "image_url": {"url": url((400, 400))}}).status_code == 413


def test_a_server_of_a_model_that_sees_nothing_says_so(demo_url: str) -> None:
    with httpx.Client(base_url=demo_url, timeout=60) as client:
        answer = openai(client, {"type": "image_url", "image_url": {"url": url()}})
        assert answer.status_code == 400
        assert "mmproj" in answer.json()["error"]["message"]


def run(*arguments: Any, text: str | None = None) -> Any:
    return CliRunner().invoke(command_line, [str(argument) for argument in arguments], input=text)


def test_run_shows_pictures(mmproj: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    path.write_bytes(png())
    other.write_bytes(png(shift=50))
    common = ("run", DEMO, "-p", "What?", "-n", 3, "--temperature", 0, "--json", "--mmproj", mmproj)
    one = json.loads(run(*common, "--image", path).stdout)
    two = json.loads(run(*common, "--image", path, "--image", other).stdout)
    none = json.loads(run(*common).stdout)
    assert none["prompt_tokens"] < one["prompt_tokens"] < two["prompt_tokens"]
    assert run(*common, "--image", tmp_path / "none.png").exit_code == 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    failed = run(*common, "--image", broken)
    assert failed.exit_code == 1
    assert "broken.png is not an image" in failed.stderr
    blind = run("run", DEMO, "-p", "What?", "-n", 1, "--image", path)
    assert blind.exit_code == 1
    assert "mmproj" in blind.stderr


def test_run_shows_how_far_pictures_are(mmproj: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, int]] = []
    monkeypatch.setattr(PictureBar, "__call__", lambda _bar, *progress: seen.append(progress))
    path = tmp_path / "a.png"
    path.write_bytes(png(shift=77))
    common = ("run", DEMO, "-n", 1, "--mmproj", mmproj, "--image", path)
    assert run(*common, "-p", "What?").exit_code == 0
    first = list(seen)
    assert (first[0], first[-1]) == ((0.0, 1), (1, 1))
    assert len(first) > 2
    seen.clear()
    assert run(*common, text="What?\n").exit_code == 0
    assert seen == first


def test_info_says_what_pictures_cost(mmproj: Path) -> None:
    shown = run("info", DEMO, "--mmproj", mmproj)
    assert "llama4" in shown.stdout
    facts = json.loads(run("info", DEMO, "--mmproj", mmproj, "--json").stdout)
    assert facts["vision"]["kind"] == "llama4"
    assert facts["vision"]["embeddings"]["16 x 16"] == vision_files.TOKENS
    assert facts["vision"]["tiles"]["1280 x 720"] > 1
    limited = json.loads(run("info", DEMO, "--mmproj", mmproj, "--image-tokens", 4, "--json").stdout)["vision"]
    assert set(limited["tiles"].values()) == {1}
    assert json.loads(run("info", mmproj, "--json").stdout)["vision"]["kind"] == "llama4"
    assert json.loads(run("info", DEMO, "--json").stdout)["vision"] is None
    assert facts["vision"]["weight_bytes"] > 0


def test_info_counts_the_tokens_of_a_file(tmp_path: Path) -> None:
    keys = {"image_size": 224, "patch_size": 14, "projector.scale_factor": 4}
    metadata = {f"clip.vision.{key}": value for key, value in keys.items()}
    encoder = vision_files.write_mmproj(tmp_path / "mmproj.gguf", **metadata, **{"clip.projector_type": "gemma3"})
    for name, size in (("wide.png", (300, 900)), ("square.png", (300, 300))):
        (tmp_path / name).write_bytes(png(size))
    given = ("info", encoder, "--image", tmp_path / "wide.png", "--image", tmp_path / "square.png", "--json")
    found = json.loads(run(*given).stdout)["vision"]["embeddings"]
    assert (found["wide.png, 900 x 300"], found["square.png, 300 x 300"]) == (16, 16)
    found = json.loads(run(*given, "--image-crops", 4).stdout)["vision"]["embeddings"]
    assert (found["wide.png, 900 x 300"], found["square.png, 300 x 300"]) == (16 * 4, 16)
    limited = json.loads(run(*given, "--image-crops", 4, "--image-tokens", 48).stdout)["vision"]["embeddings"]
    assert limited["wide.png, 900 x 300"] == 48
    (tmp_path / "text.png").write_text("no picture")
    failed = run("info", encoder, "--image", tmp_path / "text.png")
    assert (failed.exit_code, "text.png is not an image" in failed.stderr) == (1, True)
    without = run("info", DEMO, "--image", tmp_path / "wide.png")
    assert (without.exit_code, without.stdout) == (1, "")
    assert "no vision encoder was found" in without.stderr


def test_crops_are_passed_on(mmproj: Path) -> None:
    with llamacpu.Model(DEMO, mmproj=mmproj, image_crops=4) as model:
        assert model.vision is not None
        assert model.vision.settings.max_crops == 4
    llama = llamacpu.Llama(DEMO, mmproj=mmproj, image_crops=2, verbose=False)
    assert llama.model.vision is not None
    assert llama.model.vision.settings.max_crops == 2
    with pytest.raises(ValueError, match="crops"):
        llamacpu.Model(DEMO, mmproj=mmproj, image_crops=-1)


def test_paths_that_were_dragged_into_a_message(tmp_path: Path) -> None:
    path = tmp_path / "my photo's.jpg"
    plain = tmp_path / "b.PNG"
    for file in (path, plain):
        file.write_bytes(b"x")
    escaped = str(path).replace(" ", r"\ ").replace("'", r"\'")
    assert dragged_pictures(f"What is {escaped} then?") == ("What is then?", [path])
    assert dragged_pictures(f'"{path}" and {plain}') == ("and", [path, plain])
    assert dragged_pictures(f"'{plain}'") == ("", [plain])
    assert dragged_pictures(path.as_uri()) == ("", [path])
    for text in ("It's a test", "see none.png", f"{tmp_path}", "a  b", "'", "~nobody/x.png", "x" * 5000 + ".png"):
        assert dragged_pictures(text) == (text, [])
    if os.name != "nt":
        (tmp_path / "c.png").mkdir()
        assert dragged_pictures(str(tmp_path / "c.png"))[1] == []
