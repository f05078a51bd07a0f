"""Quantization of a GGUF file: what is to be done with its tensors and its metadata, and the result."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.arguments import path as check_path
from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.writer import Progress, Typed, typed_metadata
from llamacpu.tools.imatrix_file import Entry, ImportanceMatrix, read_importance_matrix
from llamacpu.tools.quantize.plan import Options, Step, check, elements, plan
from llamacpu.tools.quantize.presets import Preset, preset_named, preset_of
from llamacpu.tools.quantize.sizing import sized_plan, sizing_of
from llamacpu.tools.quantize.tensors import is_embedding, matrices
from llamacpu.tools.quantize.writing import Writer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Change", "Quantization", "quantize"]

_VERSION = 2
_SPLIT_KEYS = ("split.no", "split.count", "split.tensors.count")


@dataclass(frozen=True)
class Change:
    """What became of one tensor.

    name             of the tensor
    shape            in NumPy's order: (rows, columns) of a matrix
    before, after    its types
    nbytes           its size in the new file
    with_importance  whether an importance matrix was used for it
    """

    name: str
    shape: tuple[int, ...]
    before: str
    after: str
    nbytes: int
    with_importance: bool


@dataclass(frozen=True, repr=False)
class Quantization:
    """What was done, or would be done.

    paths            the new files; empty after a dry run
    preset           name of the preset; "" for a target size
    changes          every tensor, in the order of the new file
    nbytes           size of all tensors of the new file
    bits_per_weight  their bits divided by the number of weights
    seconds          how long it took
    missing          tensors for which the importance matrix has no entry, and which were quantized without
    effects          for a target size: tensor name to the divergence, in nats per token, that a unit of its weighted
                     squared error causes
    """

    paths: tuple[Path, ...]
    preset: str
    changes: tuple[Change, ...]
    nbytes: int
    bits_per_weight: float
    seconds: float
    missing: tuple[str, ...]
    effects: Mapping[str, float]

    def __repr__(self) -> str:
        size = f"{self.nbytes:,} bytes, {self.bits_per_weight:.2f} bits per weight"
        return f"<Quantization {self.preset}: {len(self.changes)} tensors, {size}>"


def quantize(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str] | None,
    preset: str | None = None,
    *,
    target_size: str | float | None = None,
    target_bits: float | None = None,
    text: str | None = None,
    imatrix: str | os.PathLike[str] | ImportanceMatrix | None = None,
    include_weights: Sequence[str] = (),
    exclude_weights: Sequence[str] = (),
    tensor_types: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    output_type: str | None = None,
    embedding_type: str | None = None,
    leave_output: bool = False,
    pure: bool = False,
    allow_requantize: bool = False,
    keep_split: bool = False,
    overrides: Mapping[str, bool | int | float | str | Typed] | None = None,
    dry_run: bool = False,
    threads: int | None = None,
    on_progress: Progress | None = None,
    on_measured: Progress | None = None,
) -> Quantization:
    """Quantize a GGUF file: `quantize("model-f16.gguf", "model-q4.gguf", "Q4_K_M")`.

    source            a GGUF file, or the first of a split model
    target            the new file; `None` only for a dry run
    preset            which types the tensors get, by the rules of llama-quantize: "Q4_K_M", "IQ3_XXS", "Q8_0" ...
                      (`llamacpu quantize --help` lists them); "COPY" changes no type. Q4_K_M by default
    target_size       instead of a preset: the size of the file ("5GB", "4.5GiB" or bytes) or average bits per weight.
    target_bits       The types are those with the smallest expected divergence from the original: each tensor's error
                      with each type, times what an error in that part of the model does to its predictions, which is
                      measured with a temporary copy of the model beside the target
    text              the text for that measurement; by default the model writes one itself
    imatrix           an importance matrix: a file of llama.cpp's in either form, or one that was read
    include_weights,  parts of tensor names: use the importance matrix only for these tensors, or not for these
    exclude_weights
    tensor_types      (regular expression, type): for tensors whose name contains a match; the first match counts
    output_type       type of the output matrix
    embedding_type    type of the token embeddings
    leave_output      keep the output matrix as it is
    pure              give all tensors the preset's main type
    allow_requantize  quantize tensors that are quantized already, which loses quality twice
    keep_split        write as many files as the source has, named `target-00001-of-00003.gguf`
    overrides         metadata to change in the new file, by key
    dry_run           only say what would be done
    threads           number of threads; all cores by default
    on_progress       called with the bytes written so far and in total
    on_measured       called with the measurements made so far and in total

    The files replace older ones only when they are complete. At any time, two pieces of a tensor are in memory. The
    result does not depend on the number of threads or the processor.

    Raises ModelError for a file that is quantized already, without an importance matrix that a type needs, for one of
    another model and for weights that are NaN or infinite; GGUFError for a damaged file; ValueError for an unknown
    preset, type or pattern; FileExistsError if `target` is a part of `source` or no GGUF file; OSError if it cannot be
    written.
    """
    started = time.monotonic()
    check_path("source", source)
    sizing = sizing_of(preset, target_size, target_bits, text)
    chosen = preset_named("Q4_K_M" if preset is None else preset)
    options = Options.of(tensor_types, output_type, embedding_type, leave_output, pure, allow_requantize)
    matrix = imatrix if imatrix is None or isinstance(imatrix, ImportanceMatrix) else read_importance_matrix(imatrix)
    if target is None and not dry_run:
        raise ValueError("target is None; give the name of the new file, or dry_run=True")
    with GGUFFile(source) as file:
        used = _entries(matrix, include_weights, exclude_weights)
        effects: dict[str, float] = {}
        if sizing is None:
            steps = plan(file, chosen, options, bool(used))
        else:
            place = Path(source if target is None else target).absolute().parent
            known = lambda tensor: _importance(matrix, used, Step(tensor, ""))  # noqa: E731
            steps, effects = sized_plan(file, sizing, options, known, place, threads, on_measured)
            chosen = preset_of(step.format for step in steps if step.converts)
        importance = _importance_of(steps, matrix, used)
        paths: tuple[Path, ...] = ()
        if target is not None and not dry_run:
            check(steps, chosen, options, None if matrix is None else used)
            metadata = _metadata(file, chosen, matrix, used) | dict(overrides or {})
            writer = Writer(file, importance, threads or os.cpu_count() or 1)
            paths = writer.write(Path(target), steps, metadata, keep_split, on_progress)
    wanted = [step.tensor.name for step in steps if matrix and step.converts]
    size = sum(step.nbytes for step in steps)
    return Quantization(
        paths,
        chosen.name if sizing is None else "",
        tuple(_change(step, importance) for step in steps),
        size,
        8 * size / max(elements(steps), 1),
        time.monotonic() - started,
        tuple(name for name in wanted if name not in importance),
        effects,
    )


def _change(step: Step, importance: Mapping[str, object]) -> Change:
    tensor = step.tensor
    shape = tensor.shape[::-1]
    return Change(tensor.name, shape, tensor.type_name, step.format, step.nbytes, tensor.name in importance)


def _entries(matrix: ImportanceMatrix | None, include: Sequence[str], exclude: Sequence[str]) -> dict[str, Entry]:
    if include and exclude:
        raise ValueError("include_weights and exclude_weights are both given; expected one of them")
    entries: Mapping[str, Entry] = {} if matrix is None else matrix.entries
    return {
        name: entry
        for name, entry in entries.items()
        if not any(part in name for part in exclude) and (not include or any(part in name for part in include))
    }


def _importance_of(
    steps: Sequence[Step], matrix: ImportanceMatrix | None, used: Mapping[str, Entry]
) -> dict[str, NDArray[np.float32]]:
    """The importance of the columns of each tensor that is converted, as far as it is known."""
    found = {step.tensor.name: _importance(matrix, used, step) for step in steps if step.converts}
    return {name: importance for name, importance in found.items() if importance is not None}


def _importance(matrix: ImportanceMatrix | None, used: Mapping[str, Entry], step: Step) -> NDArray[np.float32] | None:
    tensor = step.tensor
    if matrix is None or tensor.name not in used:
        return None
    try:
        return matrix.importance(tensor.name, matrices(tensor), tensor.shape[0])
    except ModelError:
        if is_embedding(tensor.name):  # Its entry counts the outputs of a tied matrix.
            return None
        raise


def _metadata(
    file: GGUFFile,
    preset: Preset,
    matrix: ImportanceMatrix | None,
    used: Mapping[str, Entry],
) -> dict[str, Any]:
    """The metadata of the new file: changed keys are moved to the end, as in files of llama-quantize."""
    values: dict[str, Any] = dict(typed_metadata(file.metadata))
    new: dict[str, Any] = {"general.quantization_version": Typed(_VERSION, "uint32")}
    kind = preset.file_type
    if kind < 0:
        stored = file.metadata.get("general.file_type")
        kind = stored if isinstance(stored, int) else 0
    new["general.file_type"] = Typed(kind, "uint32")
    if matrix is not None and used:
        # 127 bytes, which is as much as llama.cpp reads back.
        new["quantize.imatrix.file"] = str(matrix.path).encode("utf-8", "replace")[:127].decode("utf-8", "ignore")
        if matrix.datasets:
            new["quantize.imatrix.dataset"] = matrix.datasets[0].encode()[:127].decode("utf-8", "ignore")
        new["quantize.imatrix.entries_count"] = Typed(len(used), "uint32")
        if matrix.chunks > 0:
            new["quantize.imatrix.chunks_count"] = Typed(matrix.chunks, "uint32")
    for key in (*new, *_SPLIT_KEYS):
        values.pop(key, None)
    return values | new
