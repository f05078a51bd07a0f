"""Every family through quantized copies of its reference model: no worse than rounding activations must be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from llamacpu import Model
from quantized_copies import RoundedReference, is_quantized, quantized_copy
from reference_functions import Array
from reference_model import ReferenceModel
from test_golden_families import CONTEXTS, FAMILIES, FAMILIES_2026, LIMITS, error, model_of, text
from thorough import THOROUGH

pytestmark = pytest.mark.instruction_set

TOKENS = 48
"""Longer than the windows and the chunks of these models."""
KINDS = ("BF16", "Q8_0", "Q4_0")
# One kind of blocks for each family, the other one for the next; plain numbers for every second family.
COPIES = [
    (name, kind)
    for place, name in enumerate([*FAMILIES, *FAMILIES_2026])
    for number, kind in enumerate(KINDS)
    if THOROUGH or number == 1 + place % 2 or (number == 0 and place % 4 < 2)
]


@pytest.mark.instruction_set(one_in=5)
@pytest.mark.parametrize(("name", "kind"), COPIES)
def test_no_family_loses_more_than_rounded_activations(golden: Path, tmp_path: Path, name: str, kind: str) -> None:
    source = model_of(golden, name)
    tokens = text(dict(np.load(source.with_suffix(".npz"))))[0][:TOKENS]
    context = CONTEXTS.get(name, 512)
    path = quantized_copy(source, tmp_path / "copy.gguf", GGMLQuantizationType[kind])
    with Model(path, threads=2) as model:
        config = model.config
        session = model.session(context=context, kv_type="f32")
        got = session.forward(tokens, logits="all")
        session.truncate(29)
        assert np.array_equal(session.forward(tokens[29:], logits="all"), got[29:])
    exact = ReferenceModel(path, config).logits(tokens, context)
    if kind == "BF16":  # activations meet floats as they are
        assert error(got, exact) < LIMITS.get(name, 1e-9)
        return
    rounded = RoundedReference(path, config).logits(tokens, context)
    if config.experts:
        # A rounded score may choose another expert, and then all of that token differs, with either kind of rounding.
        assert median_error(got, exact) < 3 * median_error(rounded, exact)
        # All in all such tokens cost a few hundredths; an expert that computes something else costs more than a tenth.
        # Sparse attention chooses among keys, too.
        assert error(got, exact) < (3 * error(rounded, exact) if config.indexer else 0.1)
    else:
        assert error(got, exact) < 1.5 * error(rounded, exact)


def median_error(got: Array, exact: Array) -> float:
    """The squared error of a token's logits, relative to their squares, of the token in the middle."""
    return float(np.median(((got - exact) ** 2).sum(axis=1) / (exact**2).sum(axis=1)))


def test_the_copies_are_quantized(golden: Path, tmp_path: Path) -> None:
    """Matrices of every block, of which the experts are three in one; not the router, nor norms."""
    source = golden / "families" / "qwen3moe.gguf"
    if not source.is_file():
        pytest.skip(f"no {source}")
    with Model(quantized_copy(source, tmp_path / "copy.gguf", GGMLQuantizationType.Q8_0)) as model:
        types = {tensor.name.removesuffix(".weight"): tensor.type_name for tensor in model.file.tensors}
    assert {types["blk.0." + part] for part in ("attn_q", "attn_output", "ffn_down_exps")} == {"Q8_0"}
    assert {types["blk.0." + part] for part in ("attn_norm", "attn_q_norm", "ffn_gate_inp")} == {"F32"}
    assert not is_quantized("blk.0.attn_q.weight", (64, 40))
