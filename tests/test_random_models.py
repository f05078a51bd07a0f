"""Random configurations of the `llama` graph: the native forward pass against the NumPy reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacpu.model import Model
from reference_llama import ReferenceLlama
from reference_model import is_exact
from split_logits import logits_of_any_split
from thorough import examples
from tiny_models import Shape, write_model

pytestmark = pytest.mark.instruction_set


def numbers(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, allow_nan=False)


@st.composite
def rotations(draw: st.DrawFn) -> dict[str, Any]:
    """Metadata of the scaling: the key without "llama." to its value."""
    kind = draw(st.sampled_from(["absent", "none", "linear", "old", "yarn"]))
    if kind == "absent":
        return {}
    factor = draw(numbers(1, 40))
    if kind == "old":
        return {"rope.scale_linear": factor}
    extra: dict[str, Any] = {"rope.scaling.type": kind, "rope.scaling.factor": factor}
    if kind == "yarn":
        extra["rope.scaling.original_context_length"] = draw(st.integers(16, 4096))
        optional = {
            "yarn_ext_factor": st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
            "yarn_beta_fast": numbers(8, 64),
            "yarn_beta_slow": numbers(0.5, 4),
            "attn_factor": numbers(0.5, 2),
            "yarn_attn_factor": numbers(0.5, 2),
            "yarn_log_multiplier": numbers(0, 2),
        }
        extra |= {
            f"rope.scaling.{key}": value for key, value in draw(st.fixed_dictionaries({}, optional=optional)).items()
        }
    return extra


@st.composite
def factors(draw: st.DrawFn) -> dict[str, Any]:
    """Metadata of the constant factors."""
    optional = {
        "attention.scale": numbers(0.05, 1),
        "embedding_scale": numbers(0.25, 12),
        "residual_scale": numbers(0.125, 2),
        "logit_scale": numbers(0.25, 16),
    }
    return draw(st.fixed_dictionaries({}, optional=optional))  # type: ignore[arg-type]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Any sizes: odd widths, values of other sizes than keys, layers that differ, few or many experts."""
    layers = draw(st.integers(1, 3))
    kv_heads = tuple(draw(st.integers(1, 3)) for _ in range(layers))
    heads = tuple(shared * draw(st.integers(1, 4)) for shared in kv_heads)
    head_size = 2 * draw(st.integers(1, 40))
    extra = draw(rotations()) | draw(factors())
    experts = draw(st.sampled_from([0, 0, 1, 2, 5, 9]))
    if experts:
        optional = {
            "expert_gating_func": st.sampled_from([1, 2, 3]),
            "expert_weights_norm": st.booleans(),
            "expert_weights_scale": numbers(0.5, 3),
        }
        extra |= draw(st.fixed_dictionaries({}, optional=optional))  # type: ignore[arg-type]
    return Shape(
        width=draw(st.integers(2, 90)),
        feed_forward=tuple(draw(st.integers(1, 120)) for _ in range(layers)),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        value_size=draw(st.one_of(st.none(), st.integers(1, 80))),
        tied=draw(st.booleans()),
        bias=draw(st.booleans()),
        fused=draw(st.booleans()),
        experts=experts,
        experts_used=draw(st.integers(1, experts)) if experts else 0,
        expert_layout=draw(st.sampled_from(["stacked", "fused", "single"])),
        rope_size=draw(st.one_of(st.none(), st.integers(1, head_size // 2).map(lambda pairs: 2 * pairs))),
        rope_base=draw(st.sampled_from([1.5, 100.0, 1e4, 5e5, 8e6])),
        rope_freqs=draw(st.booleans()),
        extra=extra,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


@settings(max_examples=examples(90))
@given(shape=shapes(), count=st.integers(1, 80), seed=st.integers(0, 2**32 - 1), data=st.data())
def test_any_configuration_against_exact_arithmetic(
    folder: Path, shape: Shape, count: int, seed: int, data: st.DataObject
) -> None:
    path = write_model(folder / "model.gguf", shape, seed=seed)
    with Model(path, threads=data.draw(st.integers(1, 2))) as model:
        tokens, got = logits_of_any_split(model, count, seed, data)
    assert is_exact(got, ReferenceLlama(path), tokens)


def test_roundings_may_grow_as_the_model_makes_them_grow(folder: Path) -> None:
    """A model of width 2 that no 32-bit arithmetic computes to the usual limit; what is further off is told."""
    sizes: dict[str, Any] = {"feed_forward": (16, 90, 72), "heads": (3, 6, 2), "kv_heads": (3, 2, 1), "head_size": 58}
    extra = {"rope.scaling.type": "linear", "rope.scaling.factor": 5.25}
    shape = Shape(width=2, layers=3, tied=True, rope_base=1.5, extra=extra, **sizes)
    path = write_model(folder / "narrow.gguf", shape, seed=384)
    with Model(path, threads=1) as model:
        tokens = np.random.default_rng(384).integers(0, model.vocab_size, 51).tolist()
        got = model.session(kv_type="f32").forward(tokens, logits="all")
    exact = ReferenceLlama(path).logits(tokens)
    assert float(((got - exact) ** 2).sum()) > 1e-9 * float((exact**2).sum())
    assert is_exact(got, ReferenceLlama(path), tokens)
    assert not is_exact(got * np.float32(1.01), ReferenceLlama(path), tokens)
    well = write_model(folder / "well.gguf", Shape())
    exact = ReferenceLlama(well).logits(tokens)
    assert not is_exact((exact * 1.0001).astype(np.float32), ReferenceLlama(well), tokens)
