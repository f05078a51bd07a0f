"""Embeddings: against the mean, last and first states of the reference, and against themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llamacpu
from llamacpu.llama import Llama
from llamacpu.model import Model
from llamacpu.tasks.embeddings import pooling_of, vectors
from reference_llama import ReferenceLlama
from test_forward import error
from tiny_models import VARIANTS

pytestmark = pytest.mark.instruction_set

TinyModel = Callable[..., Path]
TEXTS = ["once upon a time", "once", "", "héllo ☺", "once upon a time there was a little girl " * 9]


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Iterator[Model]:
    with Model(tiny_model("gqa"), threads=2) as model:
        yield model


def with_pooling(tiny_model: TinyModel, number: int | None) -> Path:
    return tiny_model(replace(VARIANTS["mha"], extra={} if number is None else {"pooling_type": number}))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "last", "cls"])
def test_embeddings_against_exact_arithmetic(model: Model, pooling: Any, normalize: bool) -> None:
    reference = ReferenceLlama(model.path)
    got = model.embed(TEXTS, pooling, normalize=normalize)
    assert got.dtype == np.float32
    assert got.shape == (len(TEXTS), model.config["embedding_length"])
    for text, vector in zip(TEXTS, got, strict=True):
        states = reference.hidden(model.tokenizer.encode(text))[-1]
        expected = {"mean": states.mean(axis=0), "last": states[-1], "cls": states[0]}[pooling]
        if normalize:
            expected = expected / np.linalg.norm(expected)
            assert abs(np.linalg.norm(vector) - 1) < 1e-6
        assert error(expected, vector) < 1e-5
        assert np.array_equal(model.embed(text, pooling, normalize=normalize), vector)


def test_without_pooling_every_token_has_one(model: Model) -> None:
    for text, rows in zip(TEXTS, model.embed(TEXTS, "none"), strict=True):
        ids = model.tokenizer.encode(text)
        assert np.array_equal(rows, model.session().hidden(ids)[0])
        unit = model.embed(text, "none", normalize=True)
        assert isinstance(unit, np.ndarray)
        assert np.allclose(np.linalg.norm(unit, axis=-1), 1)


@pytest.mark.instruction_set(one_in=None)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_company_changes_no_bit(model: Model, data: st.DataObject) -> None:
    """Any texts together give the vectors that each gives alone, in order."""
    lengths = data.draw(st.lists(st.integers(1, 700), min_size=1, max_size=40))
    pooling: Any = data.draw(st.sampled_from(["mean", "last", "cls", "none"]))
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    texts = [random.integers(0, model.vocab_size, length).tolist() for length in lengths]
    together = list(vectors(model, iter(texts), pooling))
    assert len(together) == len(texts)
    for place in data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=4)):
        states = model.session(context=700).hidden(texts[place])[0]
        total = np.zeros(states.shape[1])
        for row in states:
            total += row
        expected = {"mean": (total / len(states)).astype(np.float32), "last": states[-1], "cls": states[0]}
        assert np.array_equal(together[place], expected.get(pooling, states))


def test_texts_are_taken_as_they_are_needed(model: Model) -> None:
    taken = 0

    def texts() -> Iterator[list[int]]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield [1, 2, 3]

    found = vectors(model, texts(), "mean")
    next(found)
    assert taken < 40


def test_long_texts_are_cut_or_refused(model: Model) -> None:
    long = "once upon a time " * 300
    limit = model.context_length
    ids = model.tokenizer.encode(long)
    assert len(ids) > limit
    [expected] = vectors(model, [ids[:limit]], "mean")
    assert np.array_equal(model.embed(long), expected)
    with pytest.raises(llamacpu.ContextOverflow, match="truncation"):
        model.embed(long, truncate=False)


@pytest.mark.instruction_set(one_in=None)
def test_nothing_to_embed(model: Model, tiny_model: TinyModel) -> None:
    assert model.embed([]).shape == (0, model.config["embedding_length"])
    assert model.embed([], "none") == []
    # The start token alone.
    assert np.array_equal(model.embed(""), model.session().hidden([model.tokenizer.bos or 0])[0, 0])
    with pytest.raises(ValueError, match=r"text 1 .* no tokens"):
        list(vectors(model, [[1], []], "mean"))
    with pytest.raises(ValueError, match="pooling is 'rank'"):
        model.embed("a", "rank")  # type: ignore[call-overload]


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize(("number", "name"), [(None, None), (0, "none"), (1, "mean"), (2, "cls"), (3, "last")])
def test_the_file_recommends_a_pooling(tiny_model: TinyModel, number: int | None, name: str | None) -> None:
    with Model(with_pooling(tiny_model, number), threads=1) as model:
        assert pooling_of(model.metadata) == name
        pooling: Literal["mean", "cls", "last"] = "mean" if name in (None, "none") else name  # type: ignore[assignment]
        assert np.array_equal(model.embed("once upon"), model.embed("once upon", pooling))


@pytest.mark.instruction_set(one_in=None)
def test_what_this_version_cannot_embed_is_an_error(tiny_model: TinyModel) -> None:
    for number in (4, 77):
        with Model(with_pooling(tiny_model, number), threads=1) as model:
            with pytest.raises(llamacpu.ModelError, match="pooling_type"):
                model.embed("a")
            model.embed("a", "mean")


# --- Llama ---


def test_llama_embeds_as_llama_cpp_python(tiny_model: TinyModel) -> None:
    with Llama(tiny_model("gqa"), embedding=True, pooling_type=1, n_ctx=64) as found:
        model = found.model
        assert found.pooling_type() == 1
        one = found.embed("once upon")
        assert one == model.embed("once upon", "mean").tolist()
        several, count = found.embed(["once upon", "a"], normalize=True, return_count=True)
        assert several == model.embed(["once upon", "a"], "mean", normalize=True).tolist()
        assert count == sum(len(found.tokenize(text.encode())) for text in ("once upon", "a"))
        assert found.embed([]) == []
        answer = found.create_embedding("once upon")
        assert answer == {
            "object": "list",
            "data": [{"object": "embedding", "embedding": one, "index": 0}],
            "model": found.model_path,
            "usage": {
                "prompt_tokens": len(found.tokenize(b"once upon")),
                "total_tokens": len(found.tokenize(b"once upon")),
            },
        }
        assert found.create_embedding(["a", "b"], model="m")["model"] == "m"
        assert [entry["index"] for entry in found.create_embedding(["a", "b"])["data"]] == [0, 1]


def test_llama_cuts_texts_at_the_size_of_a_batch(tiny_model: TinyModel) -> None:
    long = "once upon a time there was a girl"
    with Llama(tiny_model("gqa"), embedding=True, pooling_type=3, n_ctx=64, n_batch=5) as found:
        ids = found.tokenize(long.encode())
        [expected] = vectors(found.model, [ids[:5]], "last")
        assert found.embed(long, return_count=True) == (expected.tolist(), 5)
        with pytest.raises(ValueError, match="5"):
            found.embed(long, truncate=False)


def test_llama_without_pooling_gives_a_vector_a_token(tiny_model: TinyModel) -> None:
    with Llama(tiny_model("mha"), embedding=True) as found:
        assert found.pooling_type() == 0
        assert np.shape(found.embed("once")) == (len(found.tokenize(b"once")), found.n_embd())
        assert np.shape(found.embed(["once"])) == (1, len(found.tokenize(b"once")), found.n_embd())
    with Llama(with_pooling(tiny_model, 3), embedding=True) as found:
        assert found.pooling_type() == 3
        assert np.shape(found.embed("once")) == (found.n_embd(),)


@pytest.mark.instruction_set(one_in=None)
def test_llama_says_what_it_cannot_embed(tiny_model: TinyModel) -> None:
    with Llama(tiny_model("mha")) as found, pytest.raises(RuntimeError, match="embedding=True"):
        found.embed("a")
    with Llama(tiny_model("mha"), embedding=True, pooling_type=4) as found, pytest.raises(ValueError, match="pooling"):
        found.embed("a")
    with Llama(tiny_model("mha"), embedding=True) as found:
        found.eval([1, 2])
        found.embed("once")
        assert found.n_tokens == 2
