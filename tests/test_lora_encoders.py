"""Adapters of encoders against exact arithmetic, in any batch; those of Jina Embeddings 3 for its tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import llamacpu
from llamacpu.cli.group import command_line
from llamacpu.errors import ModelError
from llamacpu.model import Model
from llamacpu.tasks.embeddings import TextPair, vectors
from lora_files import EMBEDDING, random_pairs, write_adapter
from reference_encoder import ReferenceEncoder
from test_encoders import random_ids
from test_forward import error
from tiny_encoders import ENCODERS, write_encoder

pytestmark = pytest.mark.instruction_set

TYPES = "token_types.weight"
NAMES = ["jina-3", "bert", "jina", "nomic", "nomic-moe"]


class Adapted(ReferenceEncoder):
    """The reference with the adapters (pairs of A and B by tensor, factor)."""

    def __init__(self, path: Path, *adapters: tuple[dict[str, tuple[Any, Any]], float]) -> None:
        super().__init__(path)
        self.adapters = adapters

    def tensor(self, name: str) -> Any:
        found = super().tensor(name)
        for pairs, factor in self.adapters:
            if name in pairs:
                a, b = (values.astype(np.float64) for values in pairs[name])
                found = found + factor * (a @ b.T if name == EMBEDDING else b @ a)
        return found


def adapter(path: Path, encoder: Path, seed: int, ranks: tuple[int, ...] = (4,)) -> dict[str, tuple[Any, Any]]:
    """Writes an adapter for all matrices, with an alpha equal to the rank 4, and returns its pairs."""
    reference = ReferenceEncoder(encoder)
    shapes = {
        name: tuple(int(size) for size in reversed(tensor.shape))
        for name, tensor in reference.tensors.items()
        if len(tensor.shape) >= 2 and name != "position_embd.weight"
    }
    pairs = random_pairs(shapes, np.random.default_rng(seed), ranks)
    write_adapter(path, pairs, architecture=reference.architecture, alpha=4.0)
    return pairs


@pytest.mark.parametrize("name", NAMES)
def test_states_with_adapters_against_exact_arithmetic(tmp_path: Path, name: str) -> None:
    encoder = write_encoder(tmp_path / "encoder.gguf", ENCODERS[name])
    first, second = (adapter(tmp_path / f"{seed}.gguf", encoder, seed) for seed in (1, 2))
    assert (TYPES in first) == bool(ENCODERS[name].types)
    uses = {
        (): [],
        (1,): [(tmp_path / "1.gguf", 1.0)],
        (2,): [(tmp_path / "2.gguf", -0.5)],
        (1, 2): [(tmp_path / "1.gguf", 1.0), (tmp_path / "2.gguf", -0.5)],
    }
    known = {1: (first, 1.0), 2: (second, -0.5)}
    ids = [random_ids(length, length) for length in (1, 9, 33, 2)]
    with Model(encoder, threads=2) as model:
        alone = []
        for (numbers, lora), text in zip(uses.items(), ids, strict=True):
            expected = Adapted(encoder, *(known[number] for number in numbers)).states(text)
            alone.append(model.session(kv_type="f32", lora=lora).hidden(text)[0])
            assert error(expected, alone[-1]) < 1e-9, numbers
        # One step of all, each with adapters of its own.
        sessions = [model.session(kv_type="f32", lora=lora) for lora in uses.values()]
        for found, row in zip(model.step_hidden(list(zip(sessions, ids, strict=True))), alone, strict=True):
            assert np.array_equal(found.hidden[0], row)


def test_the_second_of_two_texts_has_a_type_of_its_own(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.gguf", ENCODERS["bert"])
    pairs = adapter(tmp_path / "lora.gguf", encoder, 3)
    ids = random_ids(12, 4)
    with Model(encoder, threads=1, lora=[tmp_path / "lora.gguf"]) as model:
        (found,) = vectors(model, [TextPair(ids, 5, 0)], "none", kv_type="f32")
    assert error(Adapted(encoder, (pairs, 1.0)).states(ids, 5), found) < 1e-9
    assert error(Adapted(encoder, (pairs, 1.0)).states(ids), found) > 1e-3


@pytest.mark.instruction_set(one_in=None)
def test_an_adapter_that_changes_types_of_another_shape_is_refused(tmp_path: Path) -> None:
    encoder = write_encoder(tmp_path / "encoder.gguf", ENCODERS["jina-3"])
    pairs = {TYPES: (np.ones((4, 64), np.float32), np.ones((2, 4), np.float32))}
    write_adapter(tmp_path / "lora.gguf", pairs, architecture="jina-bert-v3")
    with Model(encoder, threads=1) as model, pytest.raises(ModelError, match=r"do not fit to 'token_types\.weight'"):
        model.adapter(tmp_path / "lora.gguf")


@pytest.fixture
def jina(tmp_path: Path) -> Path:
    """A model with the adapters that the converter writes for it, beside it in a folder."""
    encoder = write_encoder(tmp_path / "encoder.gguf", ENCODERS["jina-3"])
    pairs = adapter(tmp_path / "any.gguf", encoder, 5)
    for task, prefix in (("retrieval.query", "the question "), ("retrieval.passage", "the text "), ("separation", "")):
        more = {"adapter.lora.task_name": task, "adapter.lora.prompt_prefix": prefix}
        write_adapter(tmp_path / f"{task}.gguf", pairs, architecture="jina-bert-v3", alpha=4.0, more=more)
    return tmp_path


@pytest.mark.instruction_set(one_in=None)
def test_the_adapter_of_a_task_says_what_comes_before_a_text(jina: Path) -> None:
    with Model(jina / "encoder.gguf", threads=1, lora=[jina / "retrieval.query.gguf"]) as model:
        plain = model.embed("the dog runs")
        expected = model.embed("the question the dog runs")
        assert np.array_equal(model.embed("the dog runs", task="query"), expected)
        assert not np.array_equal(plain, expected)
        with pytest.raises(ModelError, match=r"retrieval\.query.*for a query.*document"):
            model.embed("the dog runs", task="document")
        model.set_adapters(lora=[jina / "retrieval.passage.gguf"])
        assert np.array_equal(model.embed("sun", task="document"), model.embed("the text sun"))
        model.set_adapters(lora=[jina / "separation.gguf"])
        with pytest.raises(ModelError, match="no metadata key"):
            model.embed("sun", task="document")


@pytest.mark.instruction_set(one_in=None)
def test_the_command_line_embeds_with_the_adapter_of_a_task(jina: Path) -> None:
    names = ["embed", str(jina / "encoder.gguf"), "the dog runs", "--lora", str(jina / "retrieval.query.gguf")]
    done = CliRunner().invoke(command_line, [*names, "--task", "query"])
    assert done.exit_code == 0, done.output
    with llamacpu.Model(jina / "encoder.gguf", lora=[jina / "retrieval.query.gguf"]) as model:
        expected = model.embed("the question the dog runs")
    assert np.allclose(np.array(done.stdout.split(), dtype=np.float32), expected, atol=1e-6)
