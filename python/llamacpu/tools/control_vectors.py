"""Make control vectors from pairs of prompts (A. Zou et al., "Representation Engineering", arXiv:2310.01405).

Both prompts of a pair go through the model. At every token and layer, the difference of the two residual streams points
from what the negative prompt says to what the positive one says. The direction of a layer is the first principal
component of all differences, without subtracting their mean, or their mean; its length is 1.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np

from llamacpu.arguments import described
from llamacpu.engine.interfaces import ModelLike
from llamacpu.gguf.writer import NewTensor, Typed, write_gguf

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pair", "Prompt", "control_vector", "directions", "pairs_of_lines"]

Prompt = Union[str, "list[Mapping[str, Any]]"]
"""Text, in which control tokens are parsed, or the messages of a conversation."""
Pair = tuple[Prompt, Prompt]
"""A positive and a negative prompt."""

_ITERATIONS = 1000
_CLOSE = 1e-12
# Rows that differ by less come from a common beginning of both prompts.
_SAME = 1e-6


def control_vector(
    model: ModelLike,
    pairs: Iterable[Pair],
    output: str | os.PathLike[str],
    *,
    method: Literal["pca", "mean"] = "pca",
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a control vector that leads from the negative to the positive prompts to a GGUF file; return its path.

    model        an open model
    pairs        (positive, negative) prompts: texts, or lists of messages
    output       the file: `direction.N` is to be added after layer N, counted from 0, for all layers but the first
    method       "pca": the first principal component of the differences; "mean": their mean
    on_progress  called with the number of pairs that are done and of all pairs

    Use the file with `Model.session(control_vectors=[(output, strength)])`. Raises ValueError for no pairs, pairs of
    equal prompts and models of one layer, OSError if the file cannot be written.
    """
    found = directions(model, pairs, method=method, on_progress=on_progress)
    tensors = [_tensor(layer, row) for layer, row in found.items()]
    metadata = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": str(model.metadata.get("general.architecture")),
        "controlvector.layer_count": Typed(len(found), "int32"),
    }
    write_gguf(output, metadata, tensors, inputs=[model.path])
    return Path(output)


def directions(
    model: ModelLike,
    pairs: Iterable[Pair],
    *,
    method: Literal["pca", "mean"] = "pca",
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[int, NDArray[np.float32]]:
    """The directions that `control_vector` writes: layer, counted from 0, -> float32[width]."""
    if method not in ("pca", "mean"):
        raise ValueError(f'method is {method!r}; expected "pca" or "mean"')
    layers = list(range(1, model.config.layers))
    if not layers:
        raise ValueError("the model has one layer; a control vector is added after the second one and those after it")
    given = list(pairs)
    if not given:
        raise ValueError("no pairs of prompts; expected at least one")
    rows: list[list[NDArray[np.float32]]] = [[] for _ in layers]
    for number, pair in enumerate(given):
        positive, negative = _token_ids(model, pair, number)
        states = model.step_hidden([(model.session(len(positive)), ids) for ids in (positive, negative)], layers)
        for place, difference in enumerate(states[0].hidden - states[1].hidden):
            rows[place].append(difference[np.abs(difference).max(axis=1) > _SAME])
        if on_progress is not None:
            on_progress(number + 1, len(given))
    found = {}
    for layer, own in zip(layers, rows, strict=True):
        matrix = np.concatenate(own)
        if not len(matrix):
            raise ValueError(f"all pairs have the same states in layer {layer}; expected prompts that differ")
        mean = matrix.astype(np.float64).mean(axis=0)
        direction = mean if method == "mean" else _component(matrix, mean)
        length = float(np.linalg.norm(direction))
        if not length > 0:
            raise ValueError(f"the differences of layer {layer} cancel out; use the method pca, or other pairs")
        found[layer] = (direction / length).astype(np.float32)
    return found


def _tensor(layer: int, row: NDArray[np.float32]) -> NewTensor:
    return NewTensor(f"direction.{layer}", row.shape, "F32", lambda: [row])


def _component(rows: NDArray[np.float32], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The first principal component by power iteration, pointing to the side of the mean."""
    exact = rows.astype(np.float64)
    direction: NDArray[np.float64] = mean if np.linalg.norm(mean) > 0 else exact[0]
    # Never at right angles to the component, which would stay hidden.
    direction = direction / np.linalg.norm(direction) + 1e-3 * exact[int(np.argmax((exact**2).sum(axis=1)))]
    direction /= np.linalg.norm(direction)
    for _ in range(_ITERATIONS):
        image: NDArray[np.float64] = exact.T @ (exact @ direction)
        image /= np.linalg.norm(image)
        moved = float(((image - direction) ** 2).sum())
        direction = image
        if moved < _CLOSE:
            break
    return direction if float(direction @ mean) >= 0 else -direction


def _token_ids(model: ModelLike, pair: Any, number: int) -> tuple[list[int], list[int]]:
    """The tokens of both prompts; the shorter one is filled up with spaces."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise TypeError(f"pair {number}, counted from 0, is {described(pair)}; expected two prompts")
    positive, negative = (_ids(model, prompt, number) for prompt in pair)
    filler = model.tokenizer.encode(" ", add_special=False)[-1:] or [0]
    length = max(len(positive), len(negative))
    return positive + filler * (length - len(positive)), negative + filler * (length - len(negative))


def _ids(model: ModelLike, prompt: Any, number: int) -> list[int]:
    if isinstance(prompt, str):
        ids = model.tokenizer.encode(prompt, parse_special=True)
    elif isinstance(prompt, list):
        from llamacpu.chat import Chat

        ids = Chat.of(model).encode(prompt)
    else:
        raise TypeError(f"a prompt of pair {number} (counted from 0) is {described(prompt)}; expected text or messages")
    if not ids:
        raise ValueError(f"a prompt of pair {number} (counted from 0) has no tokens; expected text")
    return ids


def pairs_of_lines(lines: Iterable[str], name: str) -> Iterator[Pair]:
    """Read pairs from JSON lines: {"positive": ..., "negative": ...} or [positive, negative]; empty lines are skipped.

    Raises ValueError for a line that is something else.
    """
    import json

    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f"{name}, line {number}: no JSON; expected an object in each line") from None
        if isinstance(value, dict) and {"positive", "negative"} <= set(value):
            value = [value["positive"], value["negative"]]
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(one, (str, list)) for one in value):
            raise ValueError(
                f'{name}, line {number}: expected {{"positive": ..., "negative": ...}} with texts or lists of messages'
            )
        yield value[0], value[1]
