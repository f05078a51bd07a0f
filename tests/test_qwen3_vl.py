"""Qwen3-VL and Qwen 3.5 in conversations: what pictures cost, what is computed again, files that do not match."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
import qwen3_vl_files as files
from llamacpu.answers import answer, chat_prompt, chat_question
from llamacpu.chat import Chat
from llamacpu.cli.group import command_line
from llamacpu.engine.pictures import FIRST_PICTURE_ID, MixedTokens, PictureEmbedding
from llamacpu.errors import ContextOverflow, ModelError
from llamacpu.model import Model
from vision_files import asked, png, url

pytest.importorskip("PIL")
pytestmark = pytest.mark.instruction_set(one_in=None)
GREEDY = llamacpu.Sampling(temperature=0)
LARGE = (120, 88)
"""A picture of more tokens than the fewest."""
TOKENS = 15 * 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen3-vl")
    files.write_text(folder / "model.gguf")
    files.write_text(folder / "experts.gguf", "qwen3vlmoe")
    files.write_text(folder / "recurrent.gguf", "qwen35")
    files.write_mmproj(folder / "mmproj.gguf")
    files.write_mmproj(folder / "mmproj-recurrent.gguf", deep=[])
    return folder


@pytest.fixture(params=["model", "experts", "recurrent"])
def model(folder: Path, request: pytest.FixtureRequest) -> Iterator[Model]:
    mmproj = "mmproj-recurrent.gguf" if request.param == "recurrent" else "mmproj.gguf"
    with Model(folder / f"{request.param}.gguf", mmproj=folder / mmproj) as model:
        yield model


@pytest.fixture
def encoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The pixels of every picture that is encoded."""
    assert model.vision is not None
    shapes: list[tuple[int, ...]] = []
    whole: Callable[..., PictureEmbedding] = model.vision.encoder.encode

    def encode(pixels: Any, **settings: Any) -> PictureEmbedding:
        shapes.append(pixels.shape)
        return whole(pixels, **settings)

    monkeypatch.setattr(model.vision.encoder, "encode", encode)
    return shapes


def rows(ids: Any) -> int:
    return sum(token >= FIRST_PICTURE_ID for token in ids)


def test_pictures_are_counted_before_they_are_encoded(model: Model, encoded: list[tuple[int, ...]]) -> None:
    assert model.vision is not None
    question = asked("What is this?", url(LARGE), url((16, 16), 1))
    prompt = chat_prompt(Chat.of(model), question)
    assert rows(prompt.ids) == TOKENS + files.FEWEST
    shown = model.tokenizer.decode([id for id in prompt.ids if id < FIRST_PICTURE_ID])
    around = "<|vision_start|><|vision_end|>"
    assert shown == f"<|im_start|>user\n{around}{around}What is this?<|im_end|>\n<|im_start|>assistant\n"
    assert model.vision.count(LARGE, model.tokenizer) == TOKENS + 2
    with pytest.raises(ContextOverflow, match="of them for 2 pictures"):
        model.chat(question, context=200)
    assert encoded == []
    model.session().forward(prompt.ids)
    assert encoded == [(1, *LARGE, 3), (1, 64, 64, 3)]


def test_a_question_more_computes_no_picture_again(
    model: Model, encoded: list[tuple[int, ...]], tmp_path: Path
) -> None:
    chat, messages = Chat.of(model), asked("One?", url(LARGE), url())
    prompt = chat_prompt(chat, messages).ids
    assert isinstance(prompt, MixedTokens)
    whole = model.session().forward(prompt, logits="all")
    assert len(encoded) == 2
    session = model.session()
    for place in range(0, len(prompt), 50):
        assert np.array_equal(session.forward(prompt[place : place + 50], logits="all"), whole[place : place + 50])
    session.truncate(len(prompt) - 3)
    session.save(tmp_path / "saved")
    again = model.load_session(tmp_path / "saved")
    assert np.array_equal(again.forward(prompt[-3:], logits="all"), whole[-3:])
    question = chat_question(chat, chat_prompt(chat, messages), max_tokens=3, sampling=GREEDY)
    first = answer(session, question).read()
    more = [*messages, {"role": "assistant", "content": first.content}, *asked("And this?", url(shift=3), url(LARGE))]
    question = chat_question(chat, chat_prompt(chat, more), max_tokens=3, sampling=GREEDY)
    assert answer(session, question).read().result.cached_tokens >= len(prompt) - 3
    assert len(encoded) == 3
    with llamacpu.Engine(model) as engine:
        told = [engine.submit(question).read() for _ in range(2)]
    assert told[1].result.cached_tokens > 3 * files.FEWEST
    assert len(encoded) == 3


def test_limits_of_tokens(folder: Path) -> None:
    for most, expected in ((40, 7 * 5), (100, 11 * 8), (2000, TOKENS)):
        with Model(folder / "model.gguf", mmproj=folder / "mmproj.gguf", image_tokens=most) as model:
            assert rows(chat_prompt(Chat.of(model), asked("?", url(LARGE))).ids) == expected
    for limits, expected in (
        ({"clip.vision.image_max_pixels": 64 * 50}, 8 * 6),
        ({"clip.vision.image_min_pixels": 64 * 200}, 17 * 13),
    ):
        mmproj = files.write_mmproj(folder / "limits-mmproj.gguf", **limits)
        with Model(folder / "model.gguf", mmproj=mmproj) as model:
            assert rows(chat_prompt(Chat.of(model), asked("?", url(LARGE))).ids) == expected


def test_info_counts_tokens(folder: Path) -> None:
    (folder / "photo.png").write_bytes(png(LARGE))
    command = ["info", str(folder / "model.gguf"), "--mmproj", str(folder / "mmproj.gguf"), "--json"]
    found = CliRunner().invoke(command_line, [*command, "--image", str(folder / "photo.png")])
    assert found.exit_code == 0, found.output
    vision = json.loads(found.stdout)["vision"]
    assert vision["kind"] == "qwen3vl_merger"
    assert vision["embeddings"]["photo.png, 88 x 120"] == TOKENS


def test_pictures_are_refused_where_qwen35_does_not_say_how_they_are_placed(folder: Path, tmp_path: Path) -> None:
    ids = list(range(40))
    with Model(folder / "recurrent.gguf", mmproj=False) as model:
        expected = model.session().forward(ids, logits="all")
    mmproj = folder / "mmproj-recurrent.gguf"
    for sections in (None, [1, 1, 1, 0], [4, 2, 1, 1]):
        path = files.write_text(tmp_path / "model.gguf", "qwen35", **{"rope.dimension_sections": sections})
        with Model(path, mmproj=False) as model:
            assert np.array_equal(model.session().forward(ids, logits="all"), expected)
        with pytest.raises(ModelError, match=r"does not place pictures by row and column \(rope\.dimension_sections"):
            Model(path, mmproj=mmproj)
    # Some files say more than there is to turn.
    path = files.write_text(tmp_path / "model.gguf", "qwen35", **{"rope.dimension_sections": [11, 11, 10, 0]})
    with Model(path, mmproj=mmproj) as model:
        assert model.config["rope_sections"] == [3, 3, 2]
        assert model.chat(asked("What?", url()), max_tokens=2).result.tokens


def test_files_that_do_not_belong_together(folder: Path, tmp_path: Path) -> None:
    text, mmproj = folder / "model.gguf", folder / "mmproj.gguf"
    plain = files.write_text(tmp_path / "qwen3.gguf", "qwen3", n_deepstack_layers=None)
    shallow = files.write_text(tmp_path / "shallow.gguf", n_deepstack_layers=0)
    nothing = files.write_mmproj(tmp_path / "nothing.gguf", deep=[])
    older = files.write_mmproj(tmp_path / "older.gguf", deep=[], **{"clip.projector_type": "qwen2vl_merger"})
    for language, encoder, message in (
        (plain, nothing, r"does not place pictures by row and column.*rope\.dimension_sections"),
        (shallow, mmproj, "further parts for 2 layers and the model reads those for 0"),
        (text, nothing, "further parts for 0 layers and the model reads those for 2"),
        (shallow, older, "places pictures otherwise"),
        (text, files.write_mmproj(tmp_path / "wide.gguf", 32), "embeddings of 32 numbers and the model has 64"),
    ):
        with pytest.raises(ModelError, match=message):
            Model(language, mmproj=encoder)
    with Model(shallow, mmproj=nothing) as model:
        assert model.chat(asked("What?", url()), max_tokens=2).result.tokens
    for flags in ([True, False], [1, 0, 0], True):
        with pytest.raises(ModelError, match=r"is_deepstack_layers.*for each of 3 layers"):
            Model(text, mmproj=files.write_mmproj(tmp_path / "f.gguf", **{"clip.vision.is_deepstack_layers": flags}))
    for sections in ([4, 2, 1, 0], [4, 2, 2, 1], [8, 0]):
        with pytest.raises(ModelError, match=r"rope\.dimension_sections"):
            Model(files.write_text(tmp_path / "s.gguf", **{"rope.dimension_sections": sections}))
    with pytest.raises(ModelError, match="in Ollama's layout, which does not run here"):
        Model(files.write_text(tmp_path / "s.gguf", **{"vision.block_count": 3, "rope.dimension_sections": None}))
    with pytest.raises(ModelError, match="n_deepstack_layers"):
        Model(files.write_text(tmp_path / "s.gguf", n_deepstack_layers=files.LAYERS))
