"""The trainer's gradients against finite differences of the reference in float64, for the switches of many families."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from config_models import open_config_model, write_config_model
from llamacpu import _native, kernels
from llamacpu.families.config import Config
from quantized_copies import quantized_copy
from reference_model import ReferenceModel

pytestmark = pytest.mark.instruction_set

LAYERS, VOCABULARY, RANK, ALPHA = 2, 40, 3, 5.0
BASE = Config(
    architecture="test", vocab_size=VOCABULARY, context_length=64, embedding_length=24, layers=LAYERS,
    feed_forward=[28] * LAYERS, heads=[4] * LAYERS, kv_heads=[2] * LAYERS, key_size=6, value_size=6, norm_epsilon=1e-5,
    rope_size=6, rope_original_context=64,
)  # fmt: skip
PLAIN = {"gate": "none", "norm": "layer"}
# Switches, and whether there are biases (and attention sinks).
FAMILIES: dict[str, tuple[dict[str, Any], bool]] = {
    "llama": ({}, False),
    "qwen2": ({"rope_style": "neox"}, True),
    "qwen3": ({"query_key_norm": ["head"] * LAYERS, "value_size": 5}, False),
    "gemma2": (
        {
            "norms": "both", "activation": "gelu_tanh", "window": [5, 0], "attention_soft_cap": 3.0,
            "logit_soft_cap": 4.0, "embedding_scale": 4.9, "attention_scale": 0.4, "rotation": ["local", "global"],
            "rope_local_base": 50.0,
        },
        False,
    ),
    "olmo2": ({"norms": "behind", "query_key_norm": ["width"] * LAYERS}, False),
    "phi2": (PLAIN | {"parallel": True, "activation": "gelu_tanh", "rope_size": 4}, True),
    "falcon": (PLAIN | {"parallel": True, "activation": "gelu", "kv_heads": [1] * LAYERS}, False),
    "granite": ({"residual_scale": 0.3, "logit_scale": 0.25, "activation": "gelu"}, False),
    "gpt-oss": ({"activation": "clamped_silu", "window": [4, 0]}, True),
    "llama4": (
        {
            "chunk": [5, 0], "temperature": [0.0, 0.3], "temperature_length": 4, "rotation": ["global", "none"],
            "query_key_norm": ["unweighted", "none"],
        },
        False,
    ),
    "command-r": (
        {"parallel": True, "norm": "layer", "query_key_norm": ["each_head"] * LAYERS, "feed_forward": [28, 0]}, False
    ),
    "gpt2": (
        PLAIN
        | {"learned_positions": True, "rope_size": 0, "rotation": ["none"] * LAYERS, "activation": "relu_squared"},
        True,
    ),
}  # fmt: skip


class Adapted(ReferenceModel):
    """The reference with adapters: linear maps and embeddings have the products of their A and B added."""

    adapters: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

    def linear(self, x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        y = super().linear(x, name)
        if name in self.adapters:
            a, b = self.adapters[name]
            y = y + ALPHA / RANK * (x @ a.T @ b.T)
        return y

    def matrix(self, name: str) -> NDArray[np.float64]:
        matrix = super().matrix(name)
        return matrix + self.change("token_embd").T if name == "token_embd.weight" else matrix

    def output(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.weight("output.weight") is not None:
            return super().output(x)
        # A matrix that serves as embedding as well has an adapter for each purpose.
        return x @ (super().matrix("token_embd.weight") + self.change("output")).T

    def change(self, name: str) -> NDArray[np.float64]:
        if name not in self.adapters:
            return np.zeros(())
        a, b = self.adapters[name]
        return ALPHA / RANK * (b @ a)

    def loss(self, tokens: list[NDArray[np.int32]], targets: list[NDArray[np.int32]]) -> float:
        total = 0.0
        for sequence, wanted in zip(tokens, targets, strict=True):
            logits = self.logits(sequence)
            rows = np.flatnonzero(wanted >= 0)
            shifted = logits - logits.max(axis=1, keepdims=True)
            total += float((np.log(np.exp(shifted).sum(axis=1))[rows] - shifted[rows, wanted[rows]]).sum())
        return total


def config_of(name: str) -> tuple[Config, bool]:
    switches, biases = FAMILIES[name]
    return replace(BASE, **switches), biases


@contextmanager
def opened(folder: Path, name: str, threads: int = 2, tied: bool = False) -> Iterator[tuple[Path, Any]]:
    """A file of the family, and its native model."""
    config, biases = config_of(name)
    path = write_config_model(folder / f"{name}.gguf", config, seed=7, biases=biases, tied=tied)
    with open_config_model(path, config, threads) as model:
        yield path, model._native


def split(trainer: _native.Trainer, flat: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The parameters by name."""
    found, start = {}, 0
    for name, rows, columns in trainer.names:
        found[name] = flat[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
    assert start == len(flat)
    return found


def trainer_of(model: Any, targets: list[str] | None = None, **more: Any) -> _native.Trainer:
    """A trainer of these matrices, or of all, whose A and B are both random."""
    names = [name for name, _, _ in _native.trainable(model)] if targets is None else targets
    trainer = _native.Trainer(model, _native.TrainerShape(names, RANK, 32, **more), ALPHA, seed=3)
    values = trainer.parameters()
    values[values == 0] = np.random.default_rng(5).standard_normal(int((values == 0).sum())).astype(np.float32) * 0.2
    trainer.set_parameters(values)
    return trainer


def batch() -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Three packed sequences, some of whose tokens have no target."""
    random = np.random.default_rng(11)
    tokens = random.integers(0, VOCABULARY, 20).astype(np.int32)
    targets = random.integers(0, VOCABULARY, 20).astype(np.int32)
    targets[[0, 3, 12, 19]] = -1
    return tokens, np.array([0, 11, 12, 20], np.int32), targets


def pieces(values: NDArray[np.int32], segments: NDArray[np.int32]) -> list[NDArray[np.int32]]:
    return np.split(values, segments[1:-1])


def reference_of(path: Path, name: str, trainer: _native.Trainer) -> tuple[Adapted, dict[str, NDArray[np.float64]]]:
    reference = Adapted(path, config_of(name)[0])
    values = {key: value.astype(np.float64) for key, value in split(trainer, trainer.parameters()).items()}
    names = {key.removesuffix(".lora_a").removesuffix(".lora_b") for key in values}
    reference.adapters = {key: (values[f"{key}.lora_a"], values[f"{key}.lora_b"]) for key in names}
    return reference, values


@pytest.mark.instruction_set(one_in=3)
@pytest.mark.parametrize(
    ("name", "tied", "targets"),
    [(name, False, None) for name in FAMILIES]
    + [("gemma2", True, None), ("llama", True, ["output"]), ("granite", False, ["token_embd"])],
)
def test_gradients_are_the_slopes_of_the_loss(tmp_path: Path, name: str, tied: bool, targets: list[str] | None) -> None:
    with opened(tmp_path, name, tied=tied) as (path, model):
        trainer = trainer_of(model, targets)
        tokens, segments, following = batch()
        loss, count = trainer.step(tokens, segments, following)
        gradients = split(trainer, trainer.gradients())
        reference, values = reference_of(path, name, trainer)
    sequences, wanted = pieces(tokens, segments), pieces(following, segments)
    exact = reference.loss(sequences, wanted)
    assert count == 16
    assert loss == pytest.approx(exact, rel=1e-5)
    random = np.random.default_rng(1)
    largest = max(float(np.abs(gradient).max()) for gradient in gradients.values())
    for key, gradient in gradients.items():
        assert np.abs(gradient).max() > 1e-3 * largest, key
        # The slope in a random direction meets every number of the gradient.
        direction = random.standard_normal(gradient.shape)
        direction /= np.linalg.norm(direction)
        numbers, slope, step = values[key], 0.0, 1e-3
        start = numbers.copy()
        for distance, factor in ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12)):
            numbers[:] = start + distance * step * direction
            slope += factor / step * reference.loss(sequences, wanted)
        numbers[:] = start
        found = float((gradient * direction).sum())
        assert abs(found - slope) <= 3e-6 * max(float(np.abs(gradient).max()), 0.1 * largest), key


@pytest.mark.parametrize("format_name", ["Q4_K", "Q6_K", "Q8_0", "F16"])
def test_gradients_of_a_quantized_model(tmp_path: Path, format_name: str) -> None:
    """Exact products are as close as those of floats; those in 8 bits point in the same direction."""
    sizes: dict[str, Any] = {"embedding_length": 256, "feed_forward": [256] * LAYERS, "heads": [32] * LAYERS}
    config = replace(BASE, **sizes, key_size=8, value_size=8, rope_size=8)
    path = write_config_model(tmp_path / "model.gguf", config, seed=7)
    quantized = quantized_copy(
        path, tmp_path / "quantized.gguf", GGMLQuantizationType[format_name], quantizer=kernels.quantize
    )
    with open_config_model(quantized, config) as model:
        found = {}
        for exact in (True, False):
            trainer = trainer_of(model._native, exact=exact)
            found[exact] = (trainer.step(*batch()), trainer.gradients().astype(np.float64))
        names = split(trainer, trainer.parameters())
        reference = Adapted(quantized, config)
        values = {key: value.astype(np.float64) for key, value in names.items()}
        targets = {key.rsplit(".", 1)[0] for key in values}
        reference.adapters = {key: (values[f"{key}.lora_a"], values[f"{key}.lora_b"]) for key in targets}
    tokens, segments, wanted = batch()
    exact_loss = reference.loss(pieces(tokens, segments), pieces(wanted, segments))
    (loss, _), gradient = found[True]
    assert loss == pytest.approx(exact_loss, rel=1e-5)
    # The slope along the gradient is its norm.
    direction, start, slope = gradient / np.linalg.norm(gradient), {}, 0.0
    start = {key: value.copy() for key, value in values.items()}
    for distance in (-1, 1):
        position = 0
        for key, value in values.items():
            step = direction[position : position + value.size].reshape(value.shape)
            value[:] = start[key] + distance * 1e-4 * step
            position += value.size
        slope += distance * reference.loss(pieces(tokens, segments), pieces(wanted, segments)) / 2e-4
    assert slope == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-5)
    (rounded_loss, _), rounded = found[False]
    assert rounded_loss == pytest.approx(exact_loss, rel=0.01)
    assert rounded @ gradient > 0.999 * np.linalg.norm(rounded) * np.linalg.norm(gradient)
    if format_name == "F16":
        assert np.array_equal(rounded, gradient)
