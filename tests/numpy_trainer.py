"""A trainer in NumPy for tests of the training loop: a small model of its own, forward and backward.

The state of a token is its embedding plus half of that of the token before it in the same segment. Two matrices change
it in turn, h + W h + scale * B (A h), and the logits are its products with the embeddings. It has the interface and, in
float64, the mathematics of the native trainer: cross-entropy in nats, gradients of its sum, AdamW.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

NAMES = ("blk.0.attn_q", "blk.0.attn_v")
WIDTH = 8


def trainable(_model: Any) -> list[tuple[str, int, int]]:
    return [(name, WIDTH, WIDTH) for name in NAMES]


class TrainerShape(NamedTuple):
    targets: list[str]
    rank: int
    tokens: int
    kept_layers: int = 0
    exact: bool = False


def training_nbytes(_model: Any, shape: TrainerShape) -> int:
    return len(shape.targets) * shape.rank * WIDTH * 32 + shape.tokens * WIDTH * 64 * (1 + shape.kept_layers)


def training_weights_nbytes(_model: Any, of_file: int, _exact: bool) -> int:
    return of_file


class NumpyTrainer:
    """See the module docstring."""

    def __init__(self, _model: Any, shape: TrainerShape, alpha: float, seed: int = 0, vocabulary: int = 512) -> None:
        targets, rank = shape.targets, shape.rank
        random = np.random.default_rng(7)
        self.embedding = random.normal(size=(vocabulary, WIDTH))
        self.weights = [random.normal(size=(WIDTH, WIDTH)) * 0.1 for _ in targets]
        self.targets, self.rank, self.scale, self.most = list(targets), rank, alpha / rank, shape.tokens
        first = np.random.default_rng(seed)
        parts = []
        for _ in targets:
            parts += [first.uniform(-1, 1, (rank, WIDTH)) / np.sqrt(WIDTH), np.zeros((WIDTH, rank))]
        self.values = np.concatenate([part.reshape(-1) for part in parts]).astype(np.float32)
        self.moments = [np.zeros_like(self.values), np.zeros_like(self.values)]
        self.steps = 0
        self.sums = np.zeros(self.values.shape)
        self.calls = 0

    @property
    def names(self) -> list[tuple[str, int, int]]:
        shapes = {"lora_a": (self.rank, WIDTH), "lora_b": (WIDTH, self.rank)}
        return [(f"{target}.{kind}", *shape) for target in self.targets for kind, shape in shapes.items()]

    def _matrices(self) -> list[tuple[np.ndarray, np.ndarray]]:
        found, start, size = [], 0, self.rank * WIDTH
        for _ in self.targets:
            a = self.values[start : start + size].reshape(self.rank, WIDTH).astype(np.float64)
            b = self.values[start + size : start + 2 * size].reshape(WIDTH, self.rank).astype(np.float64)
            found.append((a, b))
            start += 2 * size
        return found

    def _forward(self, tokens: np.ndarray, segments: np.ndarray) -> list[np.ndarray]:
        assert tokens.dtype == segments.dtype == np.int32
        assert len(tokens) <= self.most
        assert segments[0] == 0
        assert segments[-1] == len(tokens)
        assert np.all(np.diff(segments) > 0)
        before = np.zeros((len(tokens), WIDTH))
        before[1:] = self.embedding[tokens[:-1]]
        before[segments[:-1]] = 0
        states = [self.embedding[tokens] + before / 2]
        for weight, (a, b) in zip(self.weights, self._matrices(), strict=True):
            states.append(states[-1] @ (np.eye(WIDTH) + weight + self.scale * b @ a).T)
        return states

    def _losses(self, state: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = np.flatnonzero(targets >= 0)
        logits = state[rows] @ self.embedding.T
        logits -= logits.max(1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(1, keepdims=True))
        return rows, np.exp(logits), -logits[np.arange(len(rows)), targets[rows]]

    def loss(
        self, tokens: np.ndarray, segments: np.ndarray, targets: np.ndarray, cancel: Any = None
    ) -> tuple[float, int]:
        rows, _, losses = self._losses(self._forward(tokens, segments)[-1], targets)
        return float(losses.sum()), len(rows)

    def step(
        self, tokens: np.ndarray, segments: np.ndarray, targets: np.ndarray, cancel: Any = None
    ) -> tuple[float, int]:
        self.calls += 1
        states = self._forward(tokens, segments)
        rows, shares, losses = self._losses(states[-1], targets)
        shares[np.arange(len(rows)), targets[rows]] -= 1
        slope = np.zeros_like(states[-1])
        slope[rows] = shares @ self.embedding
        parts: list[np.ndarray] = []
        for state, weight, (a, b) in reversed(list(zip(states[:-1], self.weights, self._matrices(), strict=True))):
            parts = [self.scale * b.T @ slope.T @ state, self.scale * slope.T @ state @ a.T, *parts]
            slope = slope @ (np.eye(WIDTH) + weight + self.scale * b @ a)
        self.sums += np.concatenate([part.reshape(-1) for part in parts])
        return float(losses.sum()), len(rows)

    def clear_gradients(self) -> None:
        self.sums[:] = 0

    def gradients(self) -> np.ndarray:
        return self.sums.astype(np.float32)

    def optimizer_step(
        self, learning_rate: float, betas: Any, epsilon: float, weight_decay: float, clip_norm: Any, divide_by: float
    ) -> float:
        slope = self.sums / divide_by
        norm = float(np.sqrt(np.sum(slope**2)))
        self.clear_gradients()
        if not np.isfinite(norm):
            return norm
        if clip_norm is not None and norm > clip_norm:
            slope *= clip_norm / norm
        self.steps += 1
        first, second = self.moments
        first[:] = betas[0] * first + (1 - betas[0]) * slope
        second[:] = betas[1] * second + (1 - betas[1]) * slope**2
        change = first / (1 - betas[0] ** self.steps) / (np.sqrt(second / (1 - betas[1] ** self.steps)) + epsilon)
        self.values -= (learning_rate * (change + weight_decay * self.values)).astype(np.float32)
        return norm

    def parameters(self) -> np.ndarray:
        return self.values.copy()

    def set_parameters(self, values: np.ndarray) -> None:
        self.values[:] = values

    def state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        return self.values.copy(), self.moments[0].copy(), self.moments[1].copy(), self.steps

    def restore(self, parameters: np.ndarray, first: np.ndarray, second: np.ndarray, steps: int) -> None:
        self.values, self.moments, self.steps = parameters.copy(), [first.copy(), second.copy()], steps
        self.clear_gradients()
