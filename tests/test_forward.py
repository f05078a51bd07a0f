"""Logits of the native forward pass: against float64 arithmetic, and against themselves, to the last bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamacpu.model import Model
from reference_llama import ReferenceLlama
from thorough import examples
from tiny_models import VARIANTS

pytestmark = pytest.mark.instruction_set

TinyModel = Callable[..., Path]
Whole = tuple[Model, list[int], NDArray[np.float32]]

# One float model, one with blocks, one with experts: what a batch, a split or a thread could change.
KINDS = [("gqa", "F32"), ("gqa", "Q4_0"), ("mixtral", "F16"), ("mixtral", "Q8_0")]


def error(exact: NDArray[np.float64], got: NDArray[np.floating]) -> float:
    """Squared error of `got`, relative to the squares of `exact`."""
    return float(((got - exact) ** 2).sum() / (exact**2).sum())


def tokens_for(model: Model, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, model.vocab_size, count).tolist()


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_switch_against_exact_arithmetic(tiny_model: TinyModel, variant: str) -> None:
    path = tiny_model(variant)
    with Model(path, threads=2) as model:
        tokens = tokens_for(model, 100)
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    assert got.dtype == np.float32
    assert error(ReferenceLlama(path).logits(tokens), got) < 1e-10


# The error of activations rounded to 8 bits; floats are exact but for their own arithmetic.
@pytest.mark.parametrize(("weight_type", "limit"), [("F16", 1e-10), ("BF16", 1e-10), ("Q8_0", 1e-3), ("Q4_0", 1e-3)])
def test_weight_types_against_exact_arithmetic(tiny_model: TinyModel, weight_type: str, limit: float) -> None:
    path = tiny_model("gqa", weight_type)
    with Model(path, threads=1) as model:
        tokens = tokens_for(model, 40)
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    assert error(ReferenceLlama(path).logits(tokens), got) < limit


@pytest.mark.parametrize(("kv_type", "limit"), [("f32", 1e-10), ("f16", 1e-5), ("q8_0", 3e-3)])
def test_storage_of_keys_and_values(tiny_model: TinyModel, kv_type: str, limit: float) -> None:
    path = tiny_model("headdim")
    with Model(path, threads=1) as model:
        tokens = tokens_for(model, 150)
        got = model.session(kv_type=kv_type).forward(tokens, logits="all")  # type: ignore[arg-type]
    assert error(ReferenceLlama(path).logits(tokens), got) < limit


def golden_models() -> list[str]:
    """Names of the reference outputs at hand; one placeholder, which skips, where there are none."""
    default = Path(__file__).resolve().parent.parent.parent / "shared" / "golden"
    folder = Path(os.environ.get("LLAMACPU_GOLDEN", default)) / "logits"
    return sorted(path.stem for path in folder.glob("*.gguf")) or ["none"]


@pytest.mark.instruction_set(one_in=3)
@pytest.mark.parametrize("name", golden_models())
def test_no_further_from_exact_arithmetic_than_llama_cpp(golden: Path, name: str) -> None:
    reference = np.load(golden / "logits" / f"{name}.npz")
    path = golden / "logits" / f"{name}.gguf"
    exact = ReferenceLlama(path).logits(reference["tokens"])
    with Model(path, threads=2) as model:
        got = model.session().forward(reference["tokens"], logits="all")
    ours, theirs = error(exact, got), error(exact, reference["logits"])
    assert ours <= theirs
    if name.endswith(("f16", "f32")):
        assert ours < 1e-5


@pytest.mark.parametrize(("variant", "weight_type"), KINDS)
def test_threads_change_no_bit(tiny_model: TinyModel, variant: str, weight_type: str) -> None:
    path = tiny_model(variant, weight_type)
    results = []
    for threads in (1, 2, 3):
        with Model(path, threads=threads) as model:
            results.append(model.session().forward(tokens_for(model, 90), logits="all"))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def whole(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Iterator[Whole]:
    """A model, a prompt, and the logits of the prompt in one piece and alone."""
    with Model(tiny_model(*request.param), threads=2) as model:
        tokens = tokens_for(model, 140)
        yield model, tokens, model.session().forward(tokens, logits="all")


def test_token_by_token_changes_no_bit(whole: Whole) -> None:
    model, tokens, expected = whole
    session = model.session()
    got = [session.forward([token]) for token in tokens]
    assert np.array_equal(np.stack(got), expected)
    assert session.tokens == tokens


@pytest.mark.instruction_set(one_in=2)
@settings(max_examples=examples(45), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pieces_batches_forks_and_rewinds_change_no_bit(whole: Whole, data: st.DataObject) -> None:
    """Copies of one conversation, moved by random steps: whatever the way, the logits are those of the prompt."""
    model, tokens, expected = whole
    sessions = [model.session()]
    for _ in range(data.draw(st.integers(1, 8))):
        action = data.draw(st.sampled_from(["step", "step", "step", "fork", "rewind"]))
        session = data.draw(st.sampled_from(sessions))
        if action == "fork" and len(sessions) < 4:
            sessions.append(session.fork())
        elif action == "rewind":
            session.truncate(data.draw(st.integers(0, session.position)))
        else:
            chosen = [other for other in sessions if other is session or data.draw(st.booleans())]
            chosen = [other for other in chosen if other.position < len(tokens)]
            starts = [other.position for other in chosen]
            ends = [data.draw(st.integers(start + 1, len(tokens))) for start in starts]
            items = [(other, tokens[start:end]) for other, start, end in zip(chosen, starts, ends, strict=True)]
            for rows, start, end in zip(model.step(items, logits="all"), starts, ends, strict=True):
                assert np.array_equal(rows, expected[start:end])


@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
def test_a_fork_and_its_origin_do_not_disturb_each_other(tiny_model: TinyModel, kv_type: str) -> None:
    with Model(tiny_model("headdim"), threads=2) as model:
        common, left, right = (tokens_for(model, count, seed) for seed, count in enumerate((70, 30, 30)))
        origin = model.session(kv_type=kv_type)  # type: ignore[arg-type]
        origin.forward(common, logits="none")
        fork = origin.fork()
        got_left, got_right = origin.forward(left, logits="all"), fork.forward(right, logits="all")
        for tail, got in ((left, got_left), (right, got_right)):
            alone = model.session(kv_type=kv_type)  # type: ignore[arg-type]
            assert np.array_equal(alone.forward(common + tail, logits="all")[len(common) :], got)


def test_rows_of_a_step(tiny_model: TinyModel) -> None:
    with Model(tiny_model("gqa"), threads=2) as model:
        prompts = [tokens_for(model, count, seed=count) for count in (5, 1, 77)]
        alone = [model.session().forward(prompt, logits="all") for prompt in prompts]
        every = model.step([(model.session(), prompt) for prompt in prompts], logits="all")
        last = model.step([(model.session(), prompt) for prompt in prompts])
        nothing = model.step([(model.session(), prompt) for prompt in prompts], logits="none")
        assert [rows.shape for rows in every] == [(5, model.vocab_size), (1, model.vocab_size), (77, model.vocab_size)]
        for rows, row, expected in zip(every, last, alone, strict=True):
            assert np.array_equal(rows, expected)
            assert np.array_equal(row, expected[-1])
        assert nothing == [None, None, None]


@pytest.mark.instruction_set(one_in=None)
def test_a_prompt_longer_than_a_chunk(tiny_model: TinyModel) -> None:
    """A step cuts long prompts into chunks of 512 tokens; several sessions share chunks."""
    with Model(tiny_model("gqa"), threads=2) as model:
        long, short = tokens_for(model, 1100), tokens_for(model, 300, seed=1)
        exact = ReferenceLlama(model.path).logits(long)
        one, two = model.session(context=2000), model.session(context=2000)
        rows = model.step([(two, short), (one, long)], logits="all")
        assert error(exact, rows[1]) < 1e-5
        assert np.array_equal(rows[0], model.session().forward(short, logits="all"))
        assert np.array_equal(rows[1][-1], model.session(context=2000).forward(long))
