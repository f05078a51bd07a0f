"""Where pictures come in and what is wrong with some: words of the server, commands of the chat, interrupts."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llamacpu
import vision_files
from llamacpu import Model, Sampling
from llamacpu.chat import Chat
from llamacpu.cli.chat.commands import act
from llamacpu.cli.chat.conversation import Conversation
from llamacpu.engine.picture_encoder import PictureEncoder
from llamacpu.errors import Cancelled
from llamacpu.pictures import pillow as own_pillow
from test_picture_names import home, name  # noqa: F401 (fixtures)
from vision_files import TOKENS, png, url

pytest.importorskip("PIL")
httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette", reason="the extra [server] is not installed")
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
PLAIN = base64.b64encode(png()).decode()
OTHER = base64.b64encode(png(shift=50)).decode()


@pytest.fixture(scope="module")
def mmproj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_files.write_mmproj(tmp_path_factory.mktemp("vision") / "mmproj.gguf")


@pytest.fixture(scope="module")
def client(mmproj: Path) -> Iterator[Any]:
    with llamacpu.serve(DEMO, mmproj=mmproj) as address, httpx.Client(base_url=address, timeout=100) as client:
        yield client


def openai(client: Any, source: Any) -> Any:
    content = [{"type": "image_url", "image_url": source}, {"type": "text", "text": "What is this?"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 1}
    return client.post("/v1/chat/completions", json=body)


def anthropic(client: Any, **source: Any) -> Any:
    blocks = [{"type": "image", "source": source}, {"type": "text", "text": "What is this?"}]
    return client.post("/v1/messages", json={"messages": [{"role": "user", "content": blocks}], "max_tokens": 1})


def generate(client: Any, **body: Any) -> Any:
    options = {"num_predict": 4, "temperature": 0}
    return client.post("/api/generate", json={"model": "demo", "stream": False, "options": options, **body})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (f"data:text/plain;base64,{PLAIN}", "media type text/plain"),
        (f"data:video/mp4;base64,{PLAIN}", "media type video/mp4"),
        ("data:image/png;base64,", "is empty"),
        ("data:,", "is empty"),
        ("  ", "is empty"),
        ("ftp://example.org/a.png", "ftp://example.org/a.png is no address"),
        ("data:image/png;base64,@@@", "not valid base64"),
        ("http://example.org/a.png", "not allowed"),
        ("file:///etc/passwd", "not allowed"),
    ],
)
def test_each_source_that_is_wrong_is_named(client: Any, source: str, words: str) -> None:
    for form in (source, {"url": source}):
        answer = openai(client, form)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]


def test_media_types_of_pictures_are_taken(client: Any) -> None:
    for kind in ("image/jpeg", "IMAGE/PNG", "image/png;charset=utf-8", "application/octet-stream", ""):
        assert openai(client, f"data:{kind};base64,{PLAIN}").status_code == 200, kind
    for kind in ("image/png", None):
        more = {} if kind is None else {"media_type": kind}
        assert anthropic(client, type="base64", data=PLAIN, **more).status_code == 200
    refused = anthropic(client, type="base64", media_type="application/pdf", data=PLAIN)
    assert refused.status_code == 400
    assert "application/pdf" in refused.json()["error"]["message"]


def test_more_pictures_than_a_conversation_holds(client: Any) -> None:
    parts = [{"type": "image_url", "image_url": url()}] * 65
    answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]})
    assert answer.status_code == 400
    assert "65 pictures; at most 64" in answer.json()["error"]["message"]


def test_prompts_without_messages_show_their_images(client: Any) -> None:
    """Ollama's raw prompts, templates of the request, and the context of an earlier answer."""
    for more in ({"raw": True}, {"template": "{{ .Prompt }}"}, {"template": "{{ prompt }}"}):
        none = generate(client, prompt="What is this?", **more).json()
        one = generate(client, prompt="What is this?", images=[PLAIN], **more).json()
        two = generate(client, prompt="What is this?", images=[PLAIN, OTHER], **more).json()
        cost = one["prompt_eval_count"] - none["prompt_eval_count"]
        assert cost > TOKENS
        assert two["prompt_eval_count"] - one["prompt_eval_count"] == cost
    first = generate(client, prompt="What is this?", images=[PLAIN]).json()
    next_one = generate(client, prompt="And this?", images=[OTHER], context=first["context"])
    assert next_one.status_code == 200
    plain = generate(client, prompt="And this?", context=first["context"])
    assert next_one.json()["prompt_eval_count"] > plain.json()["prompt_eval_count"] + TOKENS
    placed = generate(client, prompt="Here [img-1] and here [img-0], not [img-7].", images=[PLAIN, OTHER], raw=True)
    assert placed.status_code == 200
    broken = generate(client, prompt="x", images=["AAAA"], raw=True)
    assert (broken.status_code, "not an image" in broken.json()["error"]) == (400, True)


def test_prompts_of_llama_server_carry_their_pictures(client: Any, demo_url: str) -> None:
    """The rendered conversation has a mark for each picture, and continues like the conversation itself."""
    parts = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{one}"}} for one in (PLAIN, OTHER)]
    messages = [
        {"role": "user", "content": [parts[0], {"type": "text", "text": "What is this?"}]},
        {"role": "assistant", "content": "A picture."},
        {"role": "user", "content": [{"type": "text", "text": "And what is that?"}, parts[1]]},
    ]
    prompt = client.post("/apply-template", json={"messages": messages}).json()["prompt"]
    assert prompt.count("<__media__>") == 2
    assert prompt.index("<__media__>") < prompt.index("What is this?") < prompt.index("And what is that?")
    settings = {"temperature": 0, "max_tokens": 6, "seed": 1}
    answer = client.post("/v1/chat/completions", json={"messages": messages, **settings}).json()
    data = {"prompt_string": prompt, "multimodal_data": [PLAIN, OTHER]}
    for given in (data, [data]):
        found = client.post("/completion", json={"prompt": given, **settings}).json()
        found = found[0] if isinstance(found, list) else found
        assert found["content"].strip() == answer["choices"][0]["message"]["content"].strip()
        assert found["tokens_evaluated"] == answer["usage"]["prompt_tokens"]
    plain = client.post("/completion", json={"prompt": {"prompt_string": "Hello"}, **settings})
    assert plain.json()["content"] == client.post("/completion", json={"prompt": "Hello", **settings}).json()["content"]
    for wrong, words in (
        ({**data, "multimodal_data": [PLAIN]}, "2 times <__media__> for 1 pictures"),
        ({"prompt_string": "Hello", "multimodal_data": [PLAIN]}, "0 times <__media__> for 1 pictures"),
        ({**data, "multimodal_data": [PLAIN, "AAAA"]}, "not an image"),
    ):
        refused = client.post("/completion", json={"prompt": wrong})
        assert (refused.status_code, words in refused.json()["error"]["message"]) == (400, True)
    for path, body in (("/apply-template", {"messages": messages}), ("/completion", {"prompt": data})):
        blind = httpx.post(demo_url + path, json=body)
        assert (blind.status_code, "the model sees none" in blind.json()["error"]["message"]) == (400, True)


def test_the_server_says_that_the_model_sees(client: Any, demo_url: str) -> None:
    with httpx.Client(base_url=demo_url, timeout=100) as other:
        for one, sees in ((client, True), (other, False)):
            assert one.get("/props").json()["modalities"]["vision"] is sees
            shown = one.post("/api/show", json={"model": "demo"}).json()
            assert ("vision" in shown["capabilities"]) is sees


def test_a_model_served_by_name_sees(name: str) -> None:  # noqa: F811
    with llamacpu.serve(name) as address, httpx.Client(base_url=address, timeout=100) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
        assert "vision" in client.post("/api/show", json={"model": model}).json()["capabilities"]
        assert openai(client, url()).status_code == 200


class Slow(PictureEncoder):
    """An encoder whose first picture is not done before it is cancelled."""

    began: threading.Event
    cancelled: threading.Event

    def encode(self, pixels: Any, **settings: Any) -> Any:
        if not self.began.is_set():
            self.began.set()
            for _ in range(10_000):
                if settings["cancel"] is not None and settings["cancel"].cancelled:
                    self.cancelled.set()
                    raise Cancelled("cancelled")
                threading.Event().wait(0.01)
        return super().encode(pixels, **settings)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[Slow]:
    Slow.began, Slow.cancelled = threading.Event(), threading.Event()
    monkeypatch.setattr("llamacpu.multimodal.vision._encoder_of", lambda path, threads: Slow(path, threads=threads))
    return Slow


def test_a_client_that_leaves_stops_its_picture(slow: type[Slow], mmproj: Path) -> None:
    with llamacpu.serve(DEMO, mmproj=mmproj) as address, httpx.Client(base_url=address, timeout=100) as client:
        content = [{"type": "image_url", "image_url": {"url": url()}}, {"type": "text", "text": "What is this?"}]
        body = json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 1}).encode()
        place = urlsplit(address)
        with socket.create_connection((str(place.hostname), place.port or 0)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert slow.began.wait(100)
        assert slow.cancelled.wait(100)
        assert openai(client, url()).status_code == 200


@pytest.fixture
def conversation(mmproj: Path) -> Iterator[Conversation]:
    settings = {"max_tokens": 3, "sampling": Sampling(temperature=0), "stop": (), "ignore_end": True, "grammar": None}
    with Model(DEMO, mmproj=mmproj, threads=1) as model:
        yield Conversation(model.session(), settings, {}, None, Chat.of(model), stats=False, drawn=False)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "my photo's.png"
    path.write_bytes(png())
    return path


def test_the_command_for_pictures(conversation: Conversation, picture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for typed in (str(picture), f'"{picture}"', str(picture).replace(" ", r"\ ").replace("'", r"\'")):
        act(conversation, f"/image {typed}")
    assert conversation.images == [picture] * 3
    assert "With the next message: my photo's.png, my photo's.png, my photo's.png." in capfd.readouterr().err
    act(conversation, "/image -")
    assert conversation.images == []
    assert "no pictures" in capfd.readouterr().err
    picture.with_name("text.png").write_text("no picture")
    for wrong, words in (("nowhere.png", "No such file"), (picture.with_name("text.png"), "is not an image")):
        act(conversation, f"/image {wrong}")
        assert words in capfd.readouterr().err
    assert conversation.images == []
    act(conversation, f"/image {picture}")
    conversation.answer("What is this?")
    assert conversation.messages[0]["images"] == [picture]
    assert conversation.images == []


def test_retry_shows_the_pictures_again(conversation: Conversation, picture: Path) -> None:
    conversation.answer(f'"{picture}" What is this?')
    assert conversation.result is not None
    before = conversation.result.prompt_tokens
    act(conversation, "/retry")
    assert conversation.messages[0]["images"] == [picture]
    assert conversation.result.prompt_tokens == before


def test_a_chat_with_a_model_that_sees_nothing_says_so(
    picture: Path, capfd: pytest.CaptureFixture[str], mmproj: Path
) -> None:
    settings = {"max_tokens": 1, "sampling": Sampling(temperature=0), "stop": (), "ignore_end": True, "grammar": None}
    with Model(DEMO, threads=1) as model:
        blind = Conversation(model.session(), settings, {}, None, Chat.of(model), stats=False, drawn=False)
        act(blind, f"/image {picture}")
        assert "sees no pictures" in capfd.readouterr().err
        blind.answer(f'"{picture}" What is this?')
        assert "sees no pictures and reads the text alone (my photo's.png)" in capfd.readouterr().err
        assert blind.messages[0] == {"role": "user", "content": f'"{picture}" What is this?'}


def test_a_chat_without_pillow_goes_on(
    conversation: Conversation, picture: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_pillow.image_module.cache_clear()
    monkeypatch.setitem(sys.modules, "PIL", None)
    conversation.answer(f'"{picture}" What is this?')
    act(conversation, f"/image {picture}")
    assert capfd.readouterr().err.count("pip install") == 2
    own_pillow.image_module.cache_clear()
    conversation.answer("Hello")
    assert len(conversation.messages) == 2


@pytest.mark.skipif(os.name == "nt", reason="a signal to oneself ends the process there")
def test_an_interrupt_ends_a_picture(slow: type[Slow], conversation: Conversation, picture: Path) -> None:
    def interrupt() -> None:
        slow.began.wait(100)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    conversation.answer(f'"{picture}" What is this?')
    thread.join()
    assert slow.cancelled.is_set()
    assert conversation.messages == []
    conversation.answer(f'"{picture}" What is this?')
    assert len(conversation.messages) == 2
