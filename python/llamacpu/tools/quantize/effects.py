"""What an error in a tensor does to a model's predictions, measured by making one."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llamacpu import kernels
from llamacpu.engine.model import EngineModel
from llamacpu.errors import ModelError
from llamacpu.tools.quantize.tensors import category, layer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.gguf.file import GGUFFile
    from llamacpu.gguf.header import Tensor

__all__ = ["divergences", "groups_of", "own_text"]

_PARTS = 6
_RESOLUTION = 1e-7
"""The smallest divergence that means anything: logits are floats of 32 bits."""
_SEED = 20_240_229


def groups_of(tensors: Sequence[Tensor], layers: int) -> list[list[Tensor]]:
    """Tensors of one kind in neighbouring layers, which are measured together."""
    found: dict[tuple[str, int], list[Tensor]] = {}
    for tensor in tensors:
        layer = layer_of(tensor.name)
        kind = category(tensor.name) or tensor.name.rpartition(f"blk.{layer}.")[2]
        found.setdefault((kind, -1 if layer < 0 else layer * _PARTS // max(layers, 1)), []).append(tensor)
    return list(found.values())


def own_text(model: EngineModel, count: int, seed: int = _SEED) -> list[int]:
    """Tokens that the model writes by itself, the same ones for a seed: a text for models without one."""
    random = np.random.default_rng(seed)
    session = model.session()
    start = model.tokenizer.bos
    tokens = [0 if start is None else start]
    logits = session.forward(tokens)
    while len(tokens) < count:
        # Gumbel's way of drawing from a softmax.
        tokens.append(int(np.argmax(logits.astype(np.float64) + random.gumbel(size=len(logits)))))
        logits = session.forward(tokens[-1:])
    return tokens


def _log_probabilities(model: EngineModel, tokens: Sequence[int]) -> NDArray[np.float32]:
    logits = model.session(kv_type="f32").forward(list(tokens), logits="all")
    logits -= logits.max(axis=-1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return logits


def divergences(
    file: GGUFFile,
    groups: Sequence[Sequence[Tensor]],
    changed: Callable[[Tensor], Iterable[NDArray[np.uint8]]],
    text: str | None,
    count: int,
    folder: Path,
    threads: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> list[float]:
    """The Kullback-Leibler divergence of predictions, in nats per token, that a change of each group causes.

    `changed` gives the new bytes of a tensor, in the type of the file. They are written to a temporary copy of the
    model in `folder`, one group after the other.

    `text` is read for it, or one that the model writes itself; `count` of its tokens.

    Raises ModelError if the model does not run or predicts nothing that can be compared, ValueError for an empty text.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".quantizing-") as temporary:
        copies = [Path(temporary) / path.name for path in file.paths]
        for path, copy in zip(file.paths, copies, strict=True):
            shutil.copyfile(path, copy)
        with EngineModel(copies[0], threads=threads) as model:
            tokens = own_text(model, count) if text is None else model.tokenizer.encode(text)[:count]
            if len(tokens) < 2:
                raise ValueError(f"the text has {len(tokens)} tokens; give a longer one, of some hundred words")
            original = _log_probabilities(model, tokens)
        found = []
        for number, group in enumerate(groups):
            for tensor in group:
                _overwrite(copies[tensor.file], tensor.offset, changed(tensor))
            with EngineModel(copies[0], threads=threads) as model:
                other = _log_probabilities(model, tokens)
            for tensor in group:
                _overwrite(copies[tensor.file], tensor.offset, _stored(file, tensor))
            divergence = float((np.exp(original) * (original - other)).sum(axis=-1, dtype=np.float64).mean())
            if not math.isfinite(divergence):
                raise ModelError(f"the predictions are no numbers after a change of {group[0].name!r}")
            found.append(max(divergence, _RESOLUTION))
            if on_progress is not None:
                on_progress(number + 1, len(groups))
    return found


def _overwrite(path: Path, offset: int, pieces: Iterable[bytes | NDArray[np.uint8]]) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        for piece in pieces:
            file.write(piece if isinstance(piece, bytes) else piece.tobytes())


def _stored(file: GGUFFile, tensor: Tensor) -> Iterable[bytes]:
    step = 1 << 24
    for start in range(0, tensor.nbytes, step):
        yield file.tensor_bytes(tensor, start, min(start + step, tensor.nbytes))


def round_trip(
    blocks: NDArray[np.uint8], source: str, format: str, importance: NDArray[np.float32] | None, threads: int
) -> NDArray[np.uint8]:
    """Rows after quantization to `format`, in their own type."""
    small = kernels.requantize(blocks, source, format, importance, threads=threads)
    return kernels.requantize(small, format, source, threads=threads)
