"""Pictures in conversations: placeholders of templates, counts, the prefix cache, and every way to ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llamacpu
import vision_files
from llamacpu.answers import chat_prompt
from llamacpu.chat import Chat
from llamacpu.engine.pictures import FIRST_PICTURE_ID, CrossStates, Embeddings, MixedTokens, PictureEmbedding
from llamacpu.errors import ContextOverflow, ModelError, PictureError
from llamacpu.generation.generate import generate
from llamacpu.model import Model
from llamacpu.multimodal.cache import EmbeddingCache
from llamacpu.multimodal.projectors import projector_beside
from llamacpu.multimodal.sequences import restored, whole_from, whole_until, without_parts
from vision_files import TOKENS, asked, url

pytest.importorskip("PIL")
pytestmark = pytest.mark.instruction_set
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = llamacpu.Sampling(temperature=0)


@pytest.fixture(scope="module")
def mmproj(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vision_files.write_mmproj(tmp_path_factory.mktemp("vision") / "mmproj.gguf")


@pytest.fixture
def model(mmproj: Path) -> Iterator[Model]:
    with Model(DEMO, mmproj=mmproj) as model:
        yield model


@pytest.fixture
def encoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tiles of every picture that is encoded."""
    assert model.vision is not None
    counts: list[int] = []
    whole: Callable[..., PictureEmbedding] = model.vision.encoder.encode

    def encode(pixels: Any, **settings: Any) -> PictureEmbedding:
        counts.append(len(pixels))
        return whole(pixels, **settings)

    monkeypatch.setattr(model.vision.encoder, "encode", encode)
    return counts


def rows(ids: Any) -> int:
    return sum(token >= FIRST_PICTURE_ID for token in ids)


def test_a_picture_is_counted_before_it_is_encoded(model: Model, encoded: list[int]) -> None:
    prompt = chat_prompt(Chat.of(model), asked("What is this?", url(), url((32, 16), 1)))
    assert isinstance(prompt.ids, MixedTokens)
    assert rows(prompt.ids) == TOKENS + 3 * TOKENS
    assert encoded == []
    assert model.vision is not None
    assert model.vision.count((16, 16), model.tokenizer) > TOKENS
    with pytest.raises(ContextOverflow, match="of them for 2 pictures"):
        model.chat(asked("What?", url(), url((32, 16), 1)), context=30)
    assert encoded == []


def test_answers_depend_on_the_picture_and_not_on_how_it_got_there(model: Model, encoded: list[int]) -> None:
    session = model.session()
    prompt = chat_prompt(Chat.of(model), asked("What is this?", url())).ids
    assert isinstance(prompt, MixedTokens)
    whole = session.forward(prompt)
    assert encoded == [1]
    in_parts = model.session()
    for place in range(0, len(prompt), 3):
        last = in_parts.forward(prompt[place : place + 3])
    assert (last == whole).all()
    other = model.session().forward(chat_prompt(Chat.of(model), asked("What is this?", url(shift=9))).ids)
    assert not (other == whole).all()
    assert encoded == [1, 1]


def test_a_second_question_about_a_picture_encodes_nothing(model: Model, encoded: list[int]) -> None:
    messages = asked("What is this?", url())
    answer = model.chat(messages, max_tokens=4, sampling=GREEDY)
    assert encoded == [1]
    more = [*messages, {"role": "assistant", "content": answer.content}, {"role": "user", "content": "And this?"}]
    model.chat(more, max_tokens=4, sampling=GREEDY)
    assert encoded == [1]
    with llamacpu.Engine(model) as engine:
        for _ in range(3):
            question = llamacpu.answers.chat_question(
                Chat.of(engine.model), chat_prompt(Chat.of(engine.model), messages), max_tokens=4, sampling=GREEDY
            )
            found = engine.submit(question).read()
        assert found.content == answer.content
        assert found.result.cached_tokens > TOKENS
    assert encoded == [1]


def test_a_session_that_holds_a_picture_needs_no_embeddings(model: Model, encoded: list[int]) -> None:
    from llamacpu.answers import answer, chat_question

    assert model.vision is not None
    session, chat = model.session(), Chat.of(model)

    def ask(*texts: str) -> Any:
        messages = [*asked(texts[0], url()), *({"role": "user", "content": text} for text in texts[1:])]
        question = chat_question(chat, chat_prompt(chat, messages), max_tokens=2, sampling=GREEDY)
        return answer(session, question).read()

    ask("What?")
    model.vision._cache.limit = 0
    model.vision._cache.put(b"", np.zeros((1, 1), np.float32))
    model.vision._cache._rows.clear()
    assert ask("What?", "And then?").result.cached_tokens > TOKENS
    assert encoded == [1]


def test_progress_of_pictures_is_reported(model: Model) -> None:
    seen: list[tuple[float, int]] = []
    question = vision_files.asked("What is new?", url(shift=61), url(shift=62), url(shift=61))
    prompt = chat_prompt(Chat.of(model), question).ids
    model.generate(prompt, max_tokens=1, on_picture=lambda *step: seen.append(step)).read()
    done = [share for share, _ in seen]
    assert {every for _, every in seen} == {2}
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 2.0)
    assert 1.0 in done
    assert any(0 < share < 1 for share in done)
    seen.clear()
    model.generate(prompt, max_tokens=1, on_picture=lambda *step: seen.append(step)).read()
    assert seen == [(1, 2), (2, 2)]
    session = model.session()
    generate(session, prompt, max_tokens=1).read()
    generate(session, MixedTokens([prompt, 5]), max_tokens=1, on_picture=lambda *step: seen.append(step)).read()
    assert len(seen) == 2


def test_two_turns_with_pictures_and_a_full_context(model: Model, encoded: list[int]) -> None:
    messages = [*asked("One?", url()), {"role": "assistant", "content": "yes"}, *asked("Two?", url(shift=1), url())]
    prompt = chat_prompt(Chat.of(model), messages).ids
    assert rows(prompt) == 3 * TOKENS
    running = model.generate(prompt, max_tokens=40, overflow="shift", sampling=GREEDY)
    text = "".join(running)
    assert text
    assert encoded == [1, 1]
    # A context that is full in the middle of the answer goes on without the older half.
    from llamacpu.generation import generate

    session = model.session(len(prompt) + 5)
    result = generate(session, prompt, max_tokens=20, overflow="shift", sampling=GREEDY, ignore_end=True)
    assert "".join(result)
    assert result.result.shifts > 0


def test_a_model_that_sees_nothing_says_so() -> None:
    with Model(DEMO) as model:
        assert model.vision is None
        with pytest.raises(PictureError, match="mmproj"):
            model.chat(asked("What?", url()), max_tokens=1)
        with pytest.raises(PictureError, match="mmproj"):
            llamacpu.Llama(DEMO, verbose=False).create_chat_completion(asked("What?", url()), max_tokens=1)


def test_what_is_wrong_with_a_picture_is_said(model: Model, tmp_path: Path) -> None:
    for part, error in [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, PictureError),
        ({"type": "image_url", "image_url": {"url": "/etc/passwd"}}, PictureError),
        ({"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}, PictureError),
        ({"type": "image_url"}, ValueError),
        ({"type": "image", "image": 5}, TypeError),
        ({"type": "input_audio"}, PictureError),
    ]:
        with pytest.raises(error):
            model.chat([{"role": "user", "content": [{"type": "image", "image": vision_files.png()}, part]}])
    with pytest.raises(PictureError, match="at most 64"):
        model.chat(asked("What?", *[url()] * 65))
    path = tmp_path / "a.png"
    path.write_bytes(vision_files.png())
    for part in (
        {"type": "image", "image": path}, {"type": "image", "image": path.read_bytes()},
        {"type": "image", "source": {"type": "base64", "data": url().partition(",")[2]}},
        {"type": "input_image", "image_url": url()},
    ):  # fmt: skip
        prompt = chat_prompt(Chat.of(model), [{"role": "user", "content": [part, "What?"]}])
        assert rows(prompt.ids) == TOKENS
    prompt = chat_prompt(
        Chat.of(model), [{"role": "user", "content": "What?", "images": [url().partition(",")[2], path]}]
    )
    assert rows(prompt.ids) == 2 * TOKENS


PARTS = """{%- for m in messages %}[{{ m.role }}]{% for p in m.content %}
{%- if p.type == 'image' %}<|image|>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}[assistant]"""
EITHER = """{%- for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}{% else %}
{%- for p in m.content if p.type == 'image' %}<|image|>
{% endfor %}{% for p in m.content if p.type != 'image' %}{{ p.text | trim }}{% endfor %}{% endif %}{% endfor %}"""
TEXT = "{%- for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}[assistant]"
BLIND = """{%- for m in messages %}[{{ m.role }}]{% for p in m.content %}
{%- if p.type == 'image' %}{{ raise_exception('no') }}{% else %}{{ p.text }}{% endif %}{% endfor %}{% endfor %}"""


@pytest.mark.parametrize(("template", "order"), [(PARTS, "as sent"), (EITHER, "first"), (TEXT, "as sent")])
def test_pictures_stand_where_the_template_puts_them(model: Model, template: str, order: str) -> None:
    content = [{"type": "text", "text": "before <|image|>"}, {"type": "image", "image": vision_files.png()}, "after"]
    messages = [
        {"role": "system", "content": "You see."}, {"role": "user", "content": content},
        {"role": "assistant", "content": "A <|image|>."}, *asked("And?", url(shift=1)),
    ]  # fmt: skip
    chat = Chat.of(model, template)
    ids = chat_prompt(chat, messages).ids
    shown: list[str] = []
    for token in ids:
        if token >= FIRST_PICTURE_ID:
            if shown[-1:] != ["#"]:
                shown.append("#")
        else:
            shown.append(model.tokenizer.decode([token]))
    text = "".join(shown).replace("<|begin_of_text|>", "")
    picture = "<|image_start|><|image|>#<|image_end|>"
    first = f"before <|image|>{picture}after" if order == "as sent" else f"{picture}\nbefore <|image|>after"
    last = f"{picture}And?" if order == "as sent" else f"{picture}\nAnd?"
    assert text.startswith(f"[system]You see.[user]{first}[assistant]A <|image|>.[user]{last}")
    assert rows(ids) == 2 * TOKENS


def test_a_template_without_a_place_for_pictures_gets_them_in_the_text(model: Model) -> None:
    ids = chat_prompt(Chat.of(model, BLIND), asked("What?", url())).ids
    assert rows(ids) == TOKENS


def test_sequences_are_cut_beside_pictures() -> None:
    table = np.ones((4, 2), np.float32)
    together, apart = Embeddings(table, b"a", bidirectional=True), Embeddings(table, b"b")
    tokens = MixedTokens([[1, 2], together, [3], apart, [4]])
    assert [whole_until(tokens, place) for place in range(13)] == [0, 1, 2, 6, 6, 6, 6, 7, 8, 9, 10, 11, 12]
    assert [whole_from(tokens, place) for place in range(8)] == [0, 1, 2, 2, 2, 2, 6, 7]
    assert without_parts(tokens, 4, 9).ids == [1, 2, 4]
    pieces = [piece for _, piece in tokens.pieces]
    again = restored([9, *together.ids, *apart.ids[1:3], 5, *together.ids[1:], 77 + FIRST_PICTURE_ID, 6], pieces)
    assert isinstance(again, MixedTokens)
    assert again.ids == [9, *together.ids, *apart.ids[1:3], 5, 6]
    assert [len(piece) for _, piece in again.pieces] == [4, 2]
    assert restored([1, 2], pieces) == [1, 2]
    states = CrossStates(table, b"c", 7)
    assert restored(states.ids, [states]).ids == states.ids  # type: ignore[union-attr]


def test_the_cache_forgets_what_was_not_used_for_longest() -> None:
    cache = EmbeddingCache(100)
    for name in (b"a", b"b"):
        cache.put(name, np.zeros(10, np.float32))
    assert cache.get(b"a") is not None
    cache.put(b"c", np.zeros(10, np.float32))
    assert (cache.get(b"b"), len(cache), cache.nbytes) == (None, 2, 80)
    cache.put(b"large", np.zeros(100, np.float32))
    assert cache.get(b"large") is None
    assert cache.get(b"c") is not None


def test_the_encoder_that_lies_beside_a_model(tmp_path: Path) -> None:
    def lies(*names: str) -> str | None:
        for old in tmp_path.iterdir():
            old.unlink()
        for name in names:
            if "mmproj" in name:
                vision_files.write_mmproj(tmp_path / name, 8 if "other" in name else 256)
            else:
                (tmp_path / name).touch()
        found = projector_beside(tmp_path / names[0], 256)
        return None if found is None else found.name

    assert lies("llama-4-scout-Q4_K_M.gguf") is None
    assert lies("llama-4-scout-Q4_K_M.gguf", "mmproj-llama-4-scout-f16.gguf") == "mmproj-llama-4-scout-f16.gguf"
    assert lies("tiny.gguf", "tiny-mmproj.gguf", "mmproj-F16.gguf") == "tiny-mmproj.gguf"
    assert lies("tiny-q8_0.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf", "tiny-q4_0.gguf") == "mmproj-F16.gguf"
    assert lies("tiny.gguf", "mmproj-model-f16.gguf") == "mmproj-model-f16.gguf"
    assert lies("tiny.gguf", "mmproj-F16.gguf", "large.gguf") is None
    assert lies("tiny.gguf", "large.mmproj-f16.gguf") is None
    assert lies("other.gguf", "other-mmproj.gguf") is None
    with pytest.raises(ModelError, match="256"):
        Model(DEMO, mmproj=vision_files.write_mmproj(tmp_path / "mmproj-other.gguf", 8))


def test_llama_keeps_a_picture_from_call_to_call(mmproj: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamacpu.llama.vision_handlers import Llava15ChatHandler

    handler = Llava15ChatHandler(clip_model_path=str(mmproj))
    first = llamacpu.Llama(DEMO, chat_handler=handler, n_ctx=512, verbose=False)
    llama = llamacpu.Llama(DEMO, mmproj=mmproj, n_ctx=512, verbose=False)
    messages = asked("What is this?", url())
    answers = [
        one.create_chat_completion(messages, max_tokens=4, temperature=0.0)["choices"][0]["message"]["content"]
        for one in (first, llama, llama)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert llama.last_result is not None
    assert llama.last_result.cached_tokens > TOKENS
    with pytest.raises(ValueError, match="does not exist"):
        Llava15ChatHandler(clip_model_path="none.gguf")
