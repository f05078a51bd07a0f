"""Encoders: against the papers' arithmetic, and the promises that hold for every model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llamacpu
from llamacpu.generation import generate
from llamacpu.llama import Llama
from llamacpu.model import Model
from llamacpu.scheduler import Engine
from llamacpu.tasks.embeddings import vectors
from reference_encoder import ReferenceEncoder
from test_forward import error
from tiny_encoders import ENCODERS, VOCABULARY, Encoder, write_encoder

pytestmark = pytest.mark.instruction_set

Made = Callable[..., Path]
TEXTS = ["once upon a time", "", "The dog runs. " * 9, "moon", "there was a little girl, the sun and " * 6]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """`made("bert")` or `made(Encoder(...), "Q8_0")`: the path of a seeded encoder."""
    folder = tmp_path_factory.mktemp("encoders")
    written: dict[tuple[str, str], Path] = {}

    def path(shape: str | Encoder, kind: str = "F32") -> Path:
        shape = ENCODERS[shape] if isinstance(shape, str) else shape
        key = (repr(shape), kind)
        if key not in written:
            written[key] = write_encoder(folder / f"{len(written)}.gguf", shape, GGMLQuantizationType[kind])
        return written[key]

    return path


def random_ids(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, len(VOCABULARY), length).tolist()  # type: ignore[no-any-return]


@pytest.mark.instruction_set(one_in=2)
@pytest.mark.parametrize("name", ENCODERS)
def test_states_against_exact_arithmetic(made: Made, name: str) -> None:
    path = made(name)
    reference = ReferenceEncoder(path)
    with Model(path, threads=2) as model:
        for length in (1, 2, 17, ENCODERS[name].context):
            ids = random_ids(length, length)
            expected = reference.states(ids)
            assert error(expected, model.session(kv_type="f32").hidden(ids)[0]) < 1e-9
            if not ENCODERS[name].experts:  # rounded keys may lead a token to another expert
                assert error(expected, model.session().hidden(ids)[0]) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_embeddings_are_those_of_the_states(made: Made, pooling: Any) -> None:
    reference = ReferenceEncoder(made("nomic"))
    with Model(made("nomic"), threads=2) as model:
        for text, vector in zip(TEXTS, model.embed(TEXTS, pooling, normalize=True), strict=True):
            states = reference.states(model.tokenizer.encode(text))
            expected = {"mean": states.mean(axis=0), "last": states[-1], "cls": states[0]}[pooling]
            assert error(expected / np.linalg.norm(expected), vector) < 1e-9


@pytest.mark.parametrize(("name", "pooling"), [("bert", "mean"), ("bert-cls", "cls"), ("bert-wide", "mean")])
def test_the_file_says_how_one_vector_is_made(made: Made, name: str, pooling: Any) -> None:
    with Model(made(name), threads=1) as model:
        assert np.array_equal(model.embed("the dog"), model.embed("the dog", pooling))
        assert not np.array_equal(model.embed("the dog"), model.embed("the dog", "last"))


@pytest.mark.parametrize("kind", ["F16", "Q8_0"])
def test_smaller_weights(made: Made, kind: str) -> None:
    """The error is that of the weights, not of the graph."""
    path = made("bert", kind)
    with Model(path, threads=2) as model:
        ids = random_ids(40)
        limit = 1e-9 if kind == "F16" else 1e-3
        assert error(ReferenceEncoder(path).states(ids), model.session(kv_type="f32").hidden(ids)[0]) < limit


def test_every_token_sees_every_other(made: Made) -> None:
    for name in ENCODERS:
        with Model(made(name), threads=1) as model:
            first, second = random_ids(20), random_ids(20)
            second[-1] = (first[-1] + 1) % len(VOCABULARY)
            states = [model.session().hidden(ids)[0] for ids in (first, second)]
            assert (states[0] != states[1]).any(axis=1).all()


@pytest.mark.instruction_set(one_in=None)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_company_order_and_threads_change_no_bit(made: Made, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(ENCODERS)))
    lengths = data.draw(st.lists(st.integers(1, ENCODERS[name].context), min_size=1, max_size=24))
    pooling: Any = data.draw(st.sampled_from(["mean", "last", "cls", "none"]))
    texts = [random_ids(length, seed) for seed, length in enumerate(lengths)]
    order = data.draw(st.permutations(range(len(texts))))
    with Model(made(name), threads=1) as alone, Model(made(name), threads=3) as model:
        together = list(vectors(model, (texts[index] for index in order), pooling))
        for index, found in zip(order, together, strict=True):
            [expected] = vectors(alone, [texts[index]], pooling)
            assert np.array_equal(found, expected)


@pytest.mark.instruction_set(one_in=None)
def test_long_texts_go_through_as_a_whole(made: Made) -> None:
    """More tokens than a chunk of a decoder has, in one step with others."""
    path = made(
        Encoder(
            "nomic-bert", gate="own", layers=2, context=1500, fused=True, bias=False, extra={"rope.freq_base": 1000.0}
        )
    )
    reference = ReferenceEncoder(path)
    with Model(path, threads=2) as model:
        texts = [random_ids(length, length) for length in (5, 1300, 400, 300)]
        for ids, found in zip(texts, vectors(model, texts, "none"), strict=True):
            assert error(reference.states(ids), found) < 1e-9


def test_the_end_of_a_text_that_is_too_long_is_left_out(made: Made) -> None:
    with Model(made("bert-cls"), threads=1) as model:
        text = "the dog runs " * 30
        ids = model.tokenizer.encode(text)
        assert len(ids) > 40
        # The token that ends every text ends this one too.
        [expected] = vectors(model, [[*ids[:39], model.tokenizer.sep]], "cls")
        assert np.array_equal(model.embed(text), expected)
        with pytest.raises(llamacpu.ContextOverflow, match=r"92 tokens.*40"):
            model.embed(text, truncate=False)
        for context in (None, 1000):
            with pytest.raises(llamacpu.ContextOverflow, match=r"92 tokens and at most 40"):
                model.session(context).forward(ids, logits="none")
    with Llama(made("bert-cls"), embedding=True, n_ctx=512, verbose=False) as found:
        assert found.embed(text, return_count=True) == (expected.tolist(), 40)
        with pytest.raises(ValueError, match="40"):
            found.embed(text, truncate=False)


def test_a_text_is_one_step(made: Made) -> None:
    with Model(made("bert"), threads=1) as model:
        session = model.session()
        session.forward([2, 5], logits="none")
        with pytest.raises(ValueError, match="whole text"):
            session.forward([3], logits="none")
        assert session.position == 2
        session.truncate(0)
        whole = session.hidden([2, 5, 3])
        assert np.array_equal(whole, model.session().hidden([2, 5, 3]))


@pytest.mark.instruction_set(one_in=None)
def test_what_writes_text_is_refused(made: Made) -> None:
    """Nothing that needs logits gives anything, and every error says what the model is for."""
    with Model(made("bert"), threads=1) as model:
        long = "the dog runs " * 300
        calls: list[Callable[[], object]] = [
            lambda: model.session().forward([2, 3]),
            lambda: model.step([(model.session(), [2, 3])], logits="all"),
            lambda: generate(model, "once").read(),
            lambda: generate(model, long).read(),
            lambda: model.generate("once").read(),
        ]
        for call in calls:
            with pytest.raises(llamacpu.ModelError, match="vectors of texts"):
                call()
        with Engine(model) as engine, pytest.raises(llamacpu.ModelError, match="vectors of texts"):
            engine.submit("once").read()
    with Llama(made("bert"), verbose=False) as found:
        messages = [{"role": "user", "content": "hello"}]
        for call in (
            lambda: found("once"),
            lambda: found.create_chat_completion(messages),
            lambda: found.eval([2, 3]),
        ):
            with pytest.raises(llamacpu.ModelError, match="vectors of texts"):
                call()


def test_llama_embeds(made: Made) -> None:
    with Llama(made("bert"), embedding=True, n_ctx=0, verbose=False) as found:
        assert found.pooling_type() == 1
        answer = found.create_embedding(["once upon", "the dog"])
        expected = found.model.embed(["once upon", "the dog"])
        assert [entry["embedding"] for entry in answer["data"]] == expected.tolist()


def test_decoders_that_were_taught_to_look_ahead(tiny_model: Made) -> None:
    """A `llama` whose metadata says that its tokens see those behind them."""
    from reference_functions import visible
    from reference_model import ReferenceModel
    from tiny_models import VARIANTS

    path = tiny_model(replace(VARIANTS["gqa"], extra={"attention.causal": False, "pooling_type": 1}))
    with Model(path, threads=2) as model:
        assert not model.config.causal
        assert not model.config.output
        ids = [int(id) for id in np.random.default_rng(0).integers(0, model.vocab_size, 30)]
        reference = ReferenceModel(path, model.config)
        assert visible(3, 0, 0, causal=False).all()
        assert error(reference.hidden(ids)[-1], model.session(kv_type="f32").hidden(ids)[0]) < 1e-9
        with pytest.raises(llamacpu.ModelError, match="vectors of texts"):
            model.session().forward(ids)


@pytest.mark.instruction_set(one_in=None)
def test_damaged_headers_are_errors_or_models(made: Made, tmp_path: Path) -> None:
    whole = made(Encoder(layers=1, width=32, inner=32, heads=2, context=8)).read_bytes()
    header = whole.index(b"token_embd.weight")
    random = np.random.default_rng(5)
    path = tmp_path / "damaged.gguf"
    refused = 0
    for _ in range(400):
        data = bytearray(whole)
        # Keys and numbers of the metadata, or the tensor table.
        start = int(random.choice([header - 900, header, whole.index(b"bert.context_length")]))
        data[start + int(random.integers(0, 900))] ^= 1 << int(random.integers(0, 8))
        path.write_bytes(data)
        try:
            with Model(path, threads=1) as model:
                assert model.embed("the dog").shape == (model.config.embedding_length,)
        except (llamacpu.LlamaCpuError, ValueError):
            refused += 1
    assert refused > 40


@pytest.mark.instruction_set(one_in=None)
def test_contradictions_are_errors(made: Made, tmp_path: Path) -> None:
    for changed, message in [
        (Encoder(extra={"attention.head_count_kv": 3}), "divisor"),
        (Encoder(extra={"vocab_size": 7, "context_length": 127}), "position_embd"),
    ]:
        path = write_encoder(tmp_path / "wrong.gguf", replace(changed))
        with pytest.raises(llamacpu.ModelError, match=message):
            Model(path, threads=1)
        path.unlink()
