"""A model learns made-up facts that it does not know: data, training, adapter and generation together, natively."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import llamacpu

pytestmark = pytest.mark.timeout(1200)

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))


def facts(count: int) -> list[dict[str, Any]]:
    """The records of the example's script."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        import training_data
    finally:
        sys.path.remove(str(EXAMPLES))
    return [
        json.loads(training_data.record(form.format(country), answer))
        for (country, kind), answer in training_data.facts(count, 0).items()
        for form in training_data.FACTS[kind][:2]
    ]


def right(model: Any, records: list[dict[str, Any]]) -> float:
    """The share of questions that are answered exactly as in the records."""
    sampling = llamacpu.Sampling(temperature=0)
    answers = [model.chat(record["messages"][:1], max_tokens=24, sampling=sampling).content for record in records]
    return sum(a == r["messages"][1]["content"] for a, r in zip(answers, records, strict=True)) / len(records)


def test_made_up_facts_are_learned(tmp_path: Path) -> None:
    records = facts(40 if THOROUGH else 4)
    settings = llamacpu.TrainingSettings(
        rank=16, length=128, steps=300 if THOROUGH else 40, batch=4 if THOROUGH else 1, learning_rate=5e-3
    )
    result = llamacpu.train(DEMO, records, tmp_path / "lora.gguf", settings)
    with llamacpu.Model(DEMO) as base:
        assert right(base, records) == 0
    with llamacpu.Model(DEMO, lora=[result.adapter]) as model:
        assert right(model, records) >= 0.95
