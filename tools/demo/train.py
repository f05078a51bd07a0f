"""Train the demo model: JAX on the CPU, Muon for the matrices, Adam for the rest. The same seed gives the same weights.

    python tools/demo/train.py --folder target/demo --steps 2500

Rows of 128, 256 and 1024 tokens hold documents of up to that length. Steps stop after `--steps`; the learning rate
falls linearly to zero over the last part of them.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from model import Weights, first_weights, logits
from packing import Rows, pack, read
from sizes import Sizes
from tokenizers import Tokenizer

LENGTHS = (128, 256, 1024)
State = dict[str, Weights]


def loss(weights: Weights, sizes: Sizes, batch: Rows) -> jax.Array:
    """Return the weighted mean cross entropy of the next tokens."""
    scores = jax.nn.log_softmax(logits(weights, sizes, batch.tokens[:, :-1], batch.documents[:, :-1]))
    goal = batch.tokens[:, 1:]
    wanted = batch.weights[:, 1:] * (batch.documents[:, 1:] == batch.documents[:, :-1])
    losses = -jnp.take_along_axis(scores, goal[..., None], -1)[..., 0]
    return jnp.sum(losses * wanted) / jnp.sum(wanted)


jax.tree_util.register_dataclass(Rows, ["tokens", "documents", "weights"], [])


def orthogonal(update: jax.Array) -> jax.Array:
    """Return nearly orthogonal matrices in the directions of the updates (layers, inputs, outputs).

    The Newton-Schulz iteration of Muon (K. Jordan, 2024) with its quintic coefficients.
    """
    x = update / (jnp.linalg.norm(update, axis=(1, 2), keepdims=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.swapaxes(1, 2) if tall else x
    for _ in range(5):
        square = x @ x.swapaxes(1, 2)
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.swapaxes(1, 2) if tall else x


@partial(jax.jit, static_argnames="sizes", donate_argnames=("weights", "state"))
def step(
    weights: Weights, state: State, sizes: Sizes, batch: Rows, rate: jax.Array, count: jax.Array
) -> tuple[Weights, State, jax.Array]:
    """Return the weights and optimizer state after one step, and the loss before it. `rate` runs from 0 to 1."""
    value, gradient = jax.value_and_grad(loss)(weights, sizes, batch)
    size = jnp.sqrt(sum(jnp.sum(g * g) for g in gradient.values()))
    gradient = jax.tree.map(lambda g: g * jnp.minimum(1.0, 1.0 / (size + 1e-6)), gradient)
    first, second, changed = {}, {}, {}
    for name, g in gradient.items():
        w = weights[name]
        if w.ndim == 3:
            first[name] = 0.95 * state["first"][name] + g
            direction = orthogonal(g + 0.95 * first[name]) * max(1.0, w.shape[2] / w.shape[1]) ** 0.5
            changed[name] = w * (1 - 0.0008 * rate) - 0.006 * rate * direction
            second[name] = state["second"][name]
            continue
        first[name] = 0.9 * state["first"][name] + 0.1 * g
        second[name] = 0.97 * state["second"][name] + 0.03 * g * g
        mean, square = first[name] / (1 - 0.9**count), second[name] / (1 - 0.97**count)
        changed[name] = w - 0.0012 * rate * mean / (jnp.sqrt(square) + 1e-10)
    return changed, {"first": first, "second": second}, value


def save(path: Path, weights: Weights) -> None:
    """Write the weights atomically, so that a reader never sees half a file."""
    part = path.with_suffix(".part.npz")
    np.savez(part, **{name: np.asarray(value) for name, value in weights.items()})
    part.replace(path)


def main() -> None:
    """Read, pack, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("target/demo"), help="holds text.jsonl and tokenizer.json")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--tokens", type=int, default=2048, help="tokens in a step")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause-file", type=Path, help="wait while this file exists")
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--flat", type=float, default=0.3, help="share of the steps before the learning rate falls")
    parser.add_argument("--peak", type=float, default=1.0, help="largest learning rate, 1 for the usual one")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.folder / "tokenizer.json"))
    sizes = Sizes(vocabulary=tokenizer.get_vocab_size())
    documents = list(read(arguments.folder / "text.jsonl", tokenizer, LENGTHS[-1]))
    held, documents = documents[:400], documents[400:]
    rng = np.random.default_rng(arguments.seed)
    batches: list[Rows] = []
    for length, shorter in zip(LENGTHS, (0, *LENGTHS), strict=False):
        rows = pack([one for one in documents if shorter < len(one[0]) <= length], length, arguments.seed)
        many = arguments.tokens // length
        for start in range(0, len(rows.tokens) - many + 1, many):
            batches.append(rows.part(start, start + many))
    rng.shuffle(batches)
    check = pack([one for one in held if len(one[0]) <= LENGTHS[1]], LENGTHS[1], 0)
    check = check.part(0, 48)
    held_loss = jax.jit(partial(loss, sizes=sizes))
    weights = first_weights(sizes, jax.random.key(arguments.seed))
    if arguments.start:
        weights = {name: jnp.asarray(value) for name, value in np.load(arguments.start).items()}
    state: State = {kind: jax.tree.map(jnp.zeros_like, weights) for kind in ("first", "second")}
    parameters = sum(w.size for w in weights.values())
    print(f"{parameters} parameters, {len(batches)} batches of {arguments.tokens} tokens", flush=True)
    begun, trained, recent = time.monotonic(), 0.0, []
    for number in range(arguments.steps):
        while arguments.pause_file and arguments.pause_file.exists():
            time.sleep(1)
        before = time.monotonic()
        done = number / arguments.steps
        rate = arguments.peak * min(1.0, (number + 1) / 50, (1 - done) / (1 - arguments.flat))
        weights, state, value = step(weights, state, sizes, batches[number % len(batches)], rate, number + 1.0)
        recent.append(float(value))
        trained += time.monotonic() - before
        if (number + 1) % 100 == 0 or number + 1 == arguments.steps:
            line = {
                "step": number + 1,
                "loss": round(float(np.mean(recent)), 4),
                "held_out": round(float(held_loss(weights, batch=check)), 4),
                "tokens_per_second": round(arguments.tokens * (number + 1) / trained),
                "minutes": round((time.monotonic() - begun) / 60, 1),
            }
            print(json.dumps(line), flush=True)
            recent = []
            save(arguments.folder / "weights.npz", weights)


if __name__ == "__main__":
    main()
