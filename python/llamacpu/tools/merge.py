"""Merge LoRA adapters into the weights of a model file: W becomes W + scale * alpha / rank * B A.

One tensor is in memory at a time, and only some of its rows as floats. Sums are in 32 bits, in the order of the
adapters, so the file is the same on every machine. Quantized tensors are dequantized, changed and quantized again,
which loses a little; an adapter that is applied at run time (`Model.session(lora=...)`) loses nothing.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llamacpu.arguments import described
from llamacpu.engine.adapter_files import EMBEDDING, OUTPUT, AdapterFile, AdapterPair, BaseModel
from llamacpu.errors import ModelError
from llamacpu.files import is_file
from llamacpu.gguf.file import GGUFFile, Tensor
from llamacpu.gguf.writer import NewTensor, Typed, copied_tensor, typed_metadata, write_gguf
from llamacpu.kernels import FORMATS, dequantize, matmul, quantize

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["merge"]

# Elements of a tensor that are floats at the same time.
_PART = 1 << 22
# general.file_type of files whose matrices are all of one type.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}


class _Change(NamedTuple):
    """factor * up @ down is added to a tensor."""

    file: GGUFFile
    pair: AdapterPair
    factor: float


def merge(
    model: str | os.PathLike[str],
    lora: Iterable[str | os.PathLike[str] | tuple[str | os.PathLike[str], float]],
    output: str | os.PathLike[str],
    *,
    type: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a model file with adapters merged into its weights; return its path.

    model        a .gguf file, the first of a split one, or a name; it is not changed
    lora         the adapters: files, each alone or as a pair with a scale. Their changes are added in this order
    output       the new file: one file, also of a split model
    type         how matrices are stored ("F16", "Q8_0", "Q4_K", ...). None: each as it was before. Norms, biases,
                 routers and tensors whose rows do not fit into blocks of the type keep theirs
    on_progress  called with the bytes written so far and in total

    Raises GGUFError for files that cannot be read, ModelError for adapters of another model and for activated ones,
    which apply to parts of a text only, ValueError for types that cannot be written, OSError if the file cannot be
    written.
    """
    adapters = [_adapter(item) for item in _listed(lora)]
    if type is not None:
        _check_type(type)
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile(_found(model)))
        tensors = {tensor.name: tensor for tensor in file.tensors}
        base = BaseModel(
            file.path.name, file.metadata.scalar("general.architecture"), tensors, None, EMBEDDING in tensors
        )
        changes: dict[str, list[_Change]] = {}
        inputs: list[Path] = [*file.paths]
        for path, scale in adapters:
            source = stack.enter_context(GGUFFile(_found(path)))
            inputs += source.paths
            header = AdapterFile(source, base)
            if header.invocation_tokens:
                raise ModelError(
                    f"{source.path.name}: the adapter applies after its invocation tokens only, and cannot be merged; "
                    "give it to the session that uses it"
                )
            for pair in header.pairs:
                if scale:
                    changes.setdefault(pair.base, []).append(_Change(source, pair, scale * pair.factor))
        written = [_written(file, tensor, tensor.name, changes.get(tensor.name, []), type) for tensor in file.tensors]
        if OUTPUT not in tensors and {OUTPUT, EMBEDDING} & set(changes):
            # The two uses of a shared matrix differ now.
            written.append(_written(file, tensors[EMBEDDING], OUTPUT, changes.get(OUTPUT, []), type))
        metadata = {key: value for key, value in typed_metadata(file.metadata).items() if not key.startswith("split.")}
        if type in _FILE_TYPES:
            metadata["general.file_type"] = Typed(_FILE_TYPES[type], "uint32")
        write_gguf(output, metadata, written, alignment=file.alignment, inputs=inputs, on_progress=on_progress)
    return Path(output)


def _found(name: str | os.PathLike[str]) -> Path:
    if not isinstance(name, str) or is_file(name):
        return Path(name)
    from llamacpu.store.names import local_path
    from llamacpu.store.resolve import resolve

    path = local_path(name)
    return resolve(name).path if path is None else path


def _listed(lora: Any) -> list[Any]:
    if isinstance(lora, (str, os.PathLike)):
        return [lora]
    if not isinstance(lora, Iterable):
        raise TypeError(f"lora is {described(lora)}; expected a list of files, or of pairs of a file and a scale")
    found = list(lora)
    if not found:
        raise ValueError("no adapter to merge; expected at least one")
    return found


def _adapter(item: Any) -> tuple[str | os.PathLike[str], float]:
    path, scale = (item, 1.0) if isinstance(item, (str, os.PathLike)) else item
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"the scale of an adapter is {described(scale)}; expected a number")
    return path, float(scale)


def _check_type(type: str) -> None:
    if type not in FORMATS:
        raise ValueError(f"matrices cannot be written as {type!r:.40}; expected one of {', '.join(FORMATS)}")


def _written(file: GGUFFile, tensor: Tensor, name: str, changes: Sequence[_Change], type: str | None) -> NewTensor:
    kind = tensor.type_name
    if type is not None and _takes_type(tensor, name, type):
        kind = type
    if not changes and kind == tensor.type_name:
        return copied_tensor(file, tensor, name)
    if tensor.type_name not in FORMATS or kind not in FORMATS:
        raise ValueError(
            f"{file.path.name}: {tensor.name!r} is stored as {kind}, which cannot be written; name another type "
            "for all matrices"
        )
    return NewTensor(name, tensor.shape[::-1], kind, lambda: _pieces(file, tensor, changes, kind))


def _takes_type(tensor: Tensor, name: str, type: str) -> bool:
    small = "_norm" in name or "ffn_gate_inp" in name or len(tensor.shape) < 2 or not name.endswith(".weight")
    return not small and tensor.shape[0] % FORMATS[type].block_elements == 0


def _pieces(file: GGUFFile, tensor: Tensor, changes: Sequence[_Change], kind: str) -> Iterator[Any]:
    """The new bytes, some rows at a time."""
    columns = tensor.shape[0]
    rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
    parts = math.prod(tensor.shape[2:])
    row_bytes = tensor.nbytes // max(rows * parts, 1)
    step = max(1, _PART // max(columns, 1))
    factors = _factors(file, tensor, parts) if changes else np.ones(parts, dtype=np.float32)
    for part in range(parts):
        matrices = [_matrices(change, tensor, part) for change in changes]
        # The factor of the matrix multiplies what is added, too.
        matrices = [(factor / float(factors[part]), up, down) for factor, up, down in matrices]
        for first in range(0, rows, step):
            count = min(step, rows - first)
            start = (part * rows + first) * row_bytes
            data = np.frombuffer(file.tensor_bytes(tensor, start, start + count * row_bytes), dtype=np.uint8)
            weights = dequantize(data.reshape(count, row_bytes), tensor.type_name)
            for factor, up, down in matrices:
                weights = weights + np.float32(factor) * matmul(np.ascontiguousarray(up[first : first + count]), down)
            yield quantize(np.ascontiguousarray(weights), kind)


def _factors(file: GGUFFile, tensor: Tensor, parts: int) -> NDArray[np.float32]:
    """What the matrices of a tensor are multiplied by when they are used: NAME.scale beside NAME.weight."""
    name = tensor.name.removesuffix(".weight") + ".scale"
    found = next((other for other in file.tensors if other.name == name), None)
    # Gemma 4 multiplies the outputs of experts, to which adapters have been added.
    of_outputs = file.metadata.scalar("general.architecture") == "gemma4" and "ffn_down_exps" in name
    if found is None or of_outputs or not tensor.name.endswith(".weight"):
        return np.ones(parts, dtype=np.float32)
    factors = _floats(file, found, 0).reshape(-1)
    if factors.size not in (1, parts) or not np.all(np.isfinite(factors) & (factors != 0)):
        raise ModelError(
            f"{file.path.name}: {name!r} has {factors.size} elements; expected 1 or {parts} numbers but zero"
        )
    return np.broadcast_to(factors, (parts,))


def _matrices(change: _Change, tensor: Tensor, part: int) -> tuple[float, NDArray[np.float32], NDArray[np.float32]]:
    """A factor, float32[rows, rank] and float32[columns, rank], whose product changes one matrix of the tensor."""
    down, up = (_floats(change.file, source, part) for source in (change.pair.down, change.pair.up))
    if change.pair.base == EMBEDDING:
        return change.factor, down, up
    return change.factor, up, np.ascontiguousarray(down.T)


def _floats(file: GGUFFile, tensor: Tensor, part: int) -> NDArray[np.float32]:
    rows = tensor.shape[1] if len(tensor.shape) > 1 else 1
    if tensor.type_name not in FORMATS:
        raise ModelError(f"{file.path.name}: {tensor.name!r} is stored as {tensor.type_name}, which cannot be read")
    size = tensor.nbytes // max(math.prod(tensor.shape[2:]), 1)
    data = np.frombuffer(file.tensor_bytes(tensor, part * size, (part + 1) * size), dtype=np.uint8)
    return dequantize(data.reshape(rows, size // max(rows, 1)), tensor.type_name)
