"""Every instruction set computes the same bits with the same model: in one process, so in one run of the suite."""

from __future__ import annotations

import pytest

from llamacpu import LlamaCpuError, _native
from llamacpu.model import Model
from test_forward import KINDS, TinyModel, tokens_for


@pytest.mark.parametrize(("variant", "weight_type"), KINDS)
def test_instruction_sets_change_no_bit(
    tiny_model: TinyModel, variant: str, weight_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = set()
    for isa in _native.cpu_facts()["available"]:
        # A model takes the set that the environment names when it is opened.
        monkeypatch.setenv("LLAMACPU_ISA", isa)
        with Model(tiny_model(variant, weight_type), threads=2) as model:
            session = model.session()
            prompt = session.forward(tokens_for(model, 90), logits="all")
            found.add(prompt.tobytes() + session.forward([1]).tobytes())
    assert len(found) == 1


def test_an_unknown_instruction_set_is_refused_when_a_model_is_opened(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above does compute with several."""
    monkeypatch.setenv("LLAMACPU_ISA", "nosuch")
    with pytest.raises(LlamaCpuError, match=r"instruction set .nosuch. is not available"):
        Model(tiny_model("gqa"))
