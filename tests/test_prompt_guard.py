"""Classifiers of texts, and Prompt Guard: windows, labels, verdicts, by every way in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import CommandLine
from llamacpu.cli.guard_prompt import command
from llamacpu.llama import Llama
from llamacpu.model import Model
from llamacpu.tasks.prompt_guard import guard_prompt, labels_of
from reference_encoder import ReferenceEncoder
from reference_functions import softmax
from test_forward import error
from tiny_encoders import ENCODERS, Encoder, write_encoder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("guard") / "guard.gguf", ENCODERS["deberta"])


@pytest.mark.parametrize("name", ["deberta", "deberta-plain", "bert"])
def test_scores_against_exact_arithmetic(tmp_path: Path, name: str) -> None:
    """Of DeBERTa with GELU between the matrices, of BERT with tanh."""
    shape = replace(ENCODERS[name], labels=ENCODERS[name].labels or ("yes", "no", "maybe"), pooling=4)
    path = write_encoder(tmp_path / "model.gguf", shape)
    reference = ReferenceEncoder(path)
    with Model(path, threads=2) as model:
        texts = ["the dog runs", "", "once upon a time there was the moon, the sun."]
        expected = np.stack([reference.classes(reference.states(model.tokenizer.encode(text))[0]) for text in texts])
        assert error(expected, model.embed(texts)) < 1e-9
        assert np.array_equal(model.embed(texts), model.embed(texts, "rank"))
        assert labels_of(model) == list(shape.labels)
        with pytest.raises(ValueError, match="rows of"):
            model.classify(np.zeros((1, 5), dtype=np.float32))
        assert model.classify(np.zeros((0, shape.width), dtype=np.float32)).shape == (0, len(shape.labels))


def probabilities(path: Path, ids: list[int]) -> list[float]:
    reference = ReferenceEncoder(path)
    return softmax(reference.classes(reference.states(ids)[0])).tolist()  # type: ignore[no-any-return]


def test_the_worst_of_overlapping_windows_counts(path: Path) -> None:
    text = " ".join(
        ["the dog runs.", "once upon a time", "little girl sun", "moon was there!"][i % 4] for i in range(60)
    )
    with Model(path, threads=2) as model:
        plain = model.tokenizer.encode(text, add_special=False)
        room = model.context_length - 2
        assert len(plain) > 2 * room
        pieces, start = [], 0
        while True:
            pieces.append([2, *plain[start : start + room], 3])
            if start + room >= len(plain):
                break
            start += room // 2
        assert {token for piece in pieces for token in piece[1:-1]} == set(plain)
        expected = max(probabilities(path, piece)[1] for piece in pieces)
        found = guard_prompt(model, text)
        assert found.windows == len(pieces)
        assert abs(found.probability - expected) < 1e-5
        assert found.scores.keys() == {"BENIGN", "BAD"}
        assert found.scores["BAD"] == found.probability
        assert found.label == max(found.scores, key=lambda label: found.scores[label])
        one = guard_prompt(model, "the dog")
        assert one.windows == 1
        assert abs(one.probability - probabilities(path, model.tokenizer.encode("the dog"))[1]) < 1e-6
        assert guard_prompt(model, "").windows == 1
        with Model(path, threads=1) as other:
            assert guard_prompt(other, text) == found


def test_the_threshold_decides(path: Path) -> None:
    with Model(path, threads=1) as model:
        probability = guard_prompt(model, "the dog").probability
        assert 0 < probability < 1
        assert guard_prompt(model, "the dog", threshold=probability).malicious
        assert not guard_prompt(model, "the dog", threshold=min(1.0, probability * 1.001)).malicious
        for threshold in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match="threshold"):
                guard_prompt(model, "the dog", threshold=threshold)


def test_the_harmless_class_is_found_by_its_name(tmp_path: Path) -> None:
    shape = replace(ENCODERS["deberta-plain"], labels=("JAILBREAK", "INJECTION", "BENIGN"))
    path = write_encoder(tmp_path / "model.gguf", shape)
    with Model(path, threads=1) as model:
        found = guard_prompt(model, "the moon")
        assert abs(found.probability - (1 - found.scores["BENIGN"])) < 1e-6


def test_llama_and_the_command_line_say_the_same(path: Path) -> None:
    with Model(path, threads=1) as model:
        expected = guard_prompt(model, "the dog")
    with Llama(path, verbose=False) as found:
        assert found.guard_prompt("the dog") == expected
    run = CliRunner().invoke(command, [str(path), "the dog", "--json"])
    assert run.exit_code == 0
    assert json.loads(run.stdout) == {
        "verdict": "malicious" if expected.malicious else "benign",
        "probability": expected.probability,
        "label": expected.label,
        "scores": dict(expected.scores),
        "windows": 1,
    }
    plain = CliRunner().invoke(command, [str(path), "--threshold", "0"], input="the dog")
    assert plain.stdout.startswith(f"malicious\t{expected.probability:.4f}\t")
    assert CommandLine().get_command(None, "guard-prompt") is command  # type: ignore[arg-type]


def test_models_without_classes_are_refused(tmp_path: Path) -> None:
    with Model(write_encoder(tmp_path / "bert.gguf", ENCODERS["bert"]), threads=1) as model:
        with pytest.raises(llamacpu.ModelError, match="no classifier"):
            guard_prompt(model, "the dog")
        with pytest.raises(llamacpu.ModelError, match="no classifier"):
            model.classify(np.zeros((1, 64), dtype=np.float32))
        with pytest.raises(llamacpu.ModelError, match="no classifier"):
            model.embed("the dog", "rank")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Encoder("deberta-v2", types=0, distances=8, buckets=16, labels=("a", "b")), "relative_positions"),
        (Encoder("deberta-v2", types=0, labels=("a", "b")), "relative_positions_max"),
        (Encoder("deberta-v2", types=0, distances=30, buckets=2, labels=("a", "b")), "4 buckets"),
    ],
)
def test_contradictions_are_errors(tmp_path: Path, shape: Encoder, message: str) -> None:
    with pytest.raises(llamacpu.ModelError, match=message):
        Model(write_encoder(tmp_path / "wrong.gguf", shape), threads=1)
