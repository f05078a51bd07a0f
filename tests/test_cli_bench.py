"""`llamacpu bench` and `llamacpu doctor`: tables, JSON, and what cannot be timed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from test_cli import invoke
from tiny_encoders import ENCODERS, write_encoder
from tiny_models import Shape


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model("mha")


def test_bench_in_text_and_json(model: Path) -> None:
    arguments = ["bench", model, "--prompt-tokens", "16", "--generate-tokens", "4", "--repeat", "2", "--threads", "1"]
    document = json.loads(invoke(*arguments, "--json").stdout)
    assert document["prompt"]["tokens_per_second"] > 0
    assert document["generate"]["tokens_per_second"] > 0
    assert document["generate"]["best_tokens_per_second"] >= document["generate"]["tokens_per_second"]
    assert document["generate"]["gigabytes_per_second"] > 0
    assert document["load_seconds"] > 0
    assert document["threads"] == 1
    assert document["machine"]["isa"] in document["machine"]["instruction_sets"]
    table = invoke(*arguments)
    assert table.exit_code == 0
    assert "mean tokens/s" in table.stdout


def test_bench_skips_what_has_no_tokens(model: Path) -> None:
    arguments = ["bench", model, "--repeat", "1", "--json"]
    only_prompt = json.loads(invoke(*arguments, "--prompt-tokens", "8", "--generate-tokens", "0").stdout)
    assert only_prompt["prompt"] is not None
    assert only_prompt["generate"] is None
    neither = json.loads(invoke(*arguments, "--prompt-tokens", "0", "--generate-tokens", "0").stdout)
    assert neither["prompt"] is None


def test_bench_counts_only_the_experts_that_are_used(tiny_model: Callable[..., Path]) -> None:
    path = tiny_model(Shape(experts=4, experts_used=2))
    document = json.loads(invoke("bench", path, "--prompt-tokens", "0", "--generate-tokens", "2", "--json").stdout)
    assert document["generate"]["bytes_per_token"] < document["weight_bytes"]


def test_bench_of_a_model_that_cannot_write_times_reading(tmp_path: Path) -> None:
    path = write_encoder(tmp_path / "encoder.gguf", ENCODERS["bert"])
    document = json.loads(invoke("bench", path, "--prompt-tokens", "16", "--repeat", "1", "--json").stdout)
    assert document["prompt"]["tokens_per_second"] > 0
    assert document["generate"] is None
    for refused, word in ((("--prompt-tokens", 0), "nothing is left"), (("--draft-tokens", 2), "nothing to draft")):
        result = invoke("bench", path, *refused)
        assert result.exit_code == 2
        assert word in result.stderr


def test_doctor_in_text_and_json() -> None:
    facts = json.loads(invoke("doctor", "--json", "--no-bandwidth").stdout)
    assert facts["isa"] in facts["instruction_sets"]
    assert set(facts["isa_features"]) <= set(facts["processor_features"])
    assert facts["threads"] >= 1
    assert facts["threads_reason"]
    assert "Q4_K" in facts["kernels"]
    text = invoke("doctor")
    assert text.exit_code == 0
    assert "bandwidth" in text.stdout
    assert all(name in text.stdout for name in facts["processor_features"])
    assert facts["processor"] in text.stdout
