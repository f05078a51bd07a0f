"""Hidden states of the native forward pass: against float64 arithmetic, and against themselves, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llamacpu
from llamacpu.model import CancelToken, Model
from reference_llama import ReferenceLlama
from test_forward import KINDS, error, tokens_for
from thorough import examples
from tiny_models import VARIANTS

pytestmark = pytest.mark.instruction_set

TinyModel = Callable[..., Path]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Iterator[Model]:
    with Model(tiny_model(*request.param), threads=2) as model:
        yield model


def every_layer(model: Model) -> range:
    return range(model.config["layers"] + 1)


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_layer_against_exact_arithmetic(tiny_model: TinyModel, variant: str) -> None:
    path = tiny_model(variant)
    with Model(path, threads=2) as model:
        tokens = tokens_for(model, 60)
        got = model.session(kv_type="f32").hidden(tokens, every_layer(model))
        assert got.dtype == np.float32
        assert got.shape == (model.config["layers"] + 1, 60, model.config["embedding_length"])
    for exact, layer in zip(ReferenceLlama(path).hidden(tokens), got, strict=True):
        assert error(exact, layer) < 1e-10


@pytest.mark.instruction_set(one_in=4)
@settings(max_examples=examples(36), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_pieces_batches_and_chosen_layers_change_no_bit(model: Model, data: st.DataObject) -> None:
    tokens = tokens_for(model, 80)
    layers = every_layer(model)
    [whole] = model.step_hidden([(model.session(), tokens)], layers, logits="all")
    sessions = [model.session() for _ in range(data.draw(st.integers(1, 3)))]
    while any(session.position < len(tokens) for session in sessions):
        chosen = [session for session in sessions if session.position < len(tokens)]
        starts = [session.position for session in chosen]
        ends = [data.draw(st.integers(start + 1, len(tokens))) for start in starts]
        items = [(session, tokens[start:end]) for session, start, end in zip(chosen, starts, ends, strict=True)]
        wanted = data.draw(st.lists(st.sampled_from(layers), min_size=1, unique=True))
        logits: Any = data.draw(st.sampled_from(["none", "last", "all"]))
        steps = model.step_hidden(items, wanted, logits)
        for step, start, end in zip(steps, starts, ends, strict=True):
            assert np.array_equal(step.hidden, whole.hidden[wanted, start:end])
            assert whole.logits is not None
            if logits == "none":
                assert step.logits is None
            elif logits == "last":
                assert step.logits is not None
                assert np.array_equal(step.logits, whole.logits[end - 1])
            else:
                assert step.logits is not None
                assert np.array_equal(step.logits, whole.logits[start:end])


def test_states_are_those_that_the_logits_come_from(tiny_model: TinyModel) -> None:
    path = tiny_model("mha")
    reference = ReferenceLlama(path)
    output = reference.weight("output.weight")
    assert output is not None
    with Model(path, threads=1) as model:
        [step] = model.step_hidden([(model.session(), [5, 6, 7])], logits="all")
    assert step.logits is not None
    assert error(step.hidden[0] @ output.T, step.logits) < 1e-10


@pytest.mark.instruction_set(one_in=None)
def test_a_prompt_longer_than_a_chunk(tiny_model: TinyModel) -> None:
    with Model(tiny_model("gqa"), threads=2) as model:
        tokens = tokens_for(model, 700)
        whole = model.session(context=700).hidden(tokens, (0, -1))
        session = model.session(context=700)
        parts = [session.hidden(tokens[start : start + 100], (0, -1)) for start in range(0, 700, 100)]
        assert np.array_equal(np.concatenate(parts, axis=1), whole)


@pytest.mark.instruction_set(one_in=None)
def test_layers_are_counted_from_both_ends(model: Model) -> None:
    count = model.config["layers"] + 1
    tokens = tokens_for(model, 9)
    forwards = model.session().hidden(tokens, range(count))
    backwards = model.session().hidden(tokens, range(-count, 0))
    assert np.array_equal(forwards, backwards)
    assert np.array_equal(model.session().hidden(tokens)[0], forwards[-1])
    assert np.array_equal(model.session().hidden(tokens, np.array([1]))[0], forwards[1])  # type: ignore[arg-type]


@pytest.mark.instruction_set(one_in=None)
def test_wrong_layers_are_refused(model: Model) -> None:
    session = model.session()
    count = model.config["layers"] + 1
    for layer in (count, -count - 1, 10**30, -(10**30)):
        with pytest.raises(ValueError, match="there is no layer"):
            session.hidden([1], [layer])
    with pytest.raises(ValueError, match="no layers"):
        session.hidden([1], [])
    with pytest.raises(ValueError, match="twice"):
        session.hidden([1], [-1, count - 1])
    with pytest.raises(TypeError):
        session.hidden([1], [0.5])  # type: ignore[list-item]
    assert session.position == 0


NO_MEMORY = """
import sys
import llamacpu
from hostile_child import limit_memory
with llamacpu.Model(sys.argv[1], threads=1) as model:
    session = model.session(context=600_000)
    session.hidden([1])
    limit_memory()
    try:
        session.hidden([1] * 500_000, range(3))
    except MemoryError as error:
        print(error, session.position)
"""


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system cannot limit a process's memory")
def test_states_without_memory_are_an_error(tiny_model: TinyModel) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", NO_MEMORY, str(tiny_model("gqa"))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "hidden states" in done.stdout
    assert done.stdout.endswith(" 1\n")


def test_a_cancelled_step_changes_nothing(model: Model) -> None:
    session = model.session()
    token = CancelToken()
    token.cancel()
    with pytest.raises(llamacpu.Cancelled):
        session.hidden([1, 2], cancel=token)
    assert session.position == 0
    assert model.step_hidden([]) == []
