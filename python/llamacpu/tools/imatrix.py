"""Importance matrices: which inputs of the weight matrices matter, measured on a text, for quantization."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llamacpu import _native
from llamacpu.arguments import function
from llamacpu.engine.adapter_set import default_fingerprint
from llamacpu.engine.interfaces import CancelToken, KVType
from llamacpu.engine.model import EngineModel
from llamacpu.errors import ModelError
from llamacpu.tools import progress_file
from llamacpu.tools.chunks import Chunks, ModelSource, Text, chunks_of, opened
from llamacpu.tools.figures import Figure, exponential, mean_of
from llamacpu.tools.imatrix_file import Entry, ImportanceMatrix, read_importance_matrix
from llamacpu.tools.imatrix_writer import write_importance_matrix
from llamacpu.tools.measuring import Progress, StateKeeper

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.gguf.file import GGUFFile

__all__ = ["ImatrixMeasurement", "combined", "imatrix"]

_LOGIT_BYTES = 128 << 20


def imatrix(
    model: ModelSource,
    text: Text,
    path: str | os.PathLike[str] | None = None,
    *,
    form: Literal["gguf", "dat"] = "gguf",
    context: int = 512,
    chunks: int | None = None,
    output: bool = False,
    parse_special: bool = False,
    in_files: Iterable[str | os.PathLike[str]] = (),
    kv_type: KVType = "f16",
    threads: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> ImportanceMatrix:
    """Measure an importance matrix: the mean square of every input of every weight matrix, over a text.

    `quantize` takes it to spend the bits of small formats where they matter. The text is cut into chunks as
    `perplexity` does it; every token of a chunk counts. Sums are made in 64-bit floats in the order of the text, and
    are the same for any number of threads.

    model          an open model, the path of a .gguf file, or the name of a model; best one in F16, BF16 or Q8_0
    text           the text itself, the path (a `Path`) of a UTF-8 file that holds it, or token ids. A few hundred
                   chunks of text like that which the model is to work with are enough
    path           write the matrix to this file
    form           of the file: "gguf", or "dat", llama.cpp's older form
    context        tokens of a chunk
    chunks         measure this many chunks, not all
    output         also measure the output matrix (token_embd.weight if the model has no separate one), which is
                   seldom quantized to small formats; slower
    parse_special  names of control tokens in the text are these tokens: for chats that a template has rendered
    in_files       add what these files hold
    kv_type        how keys and values are stored
    resume         a file for the state: an interrupted measurement continues where it was
    on_progress    called with the tokens that are done and the tokens of all chunks
    cancel         stops the measurement from another thread: `Cancelled` is raised

    Raises ValueError for a text shorter than two chunks, for files that are no importance matrices or do not match the
    model, and for a state of another measurement; ModelError for a model that predicts no tokens; OSError for files
    that cannot be read or written.
    """
    function("on_progress", on_progress)
    others = [read_importance_matrix(other) for other in in_files]
    with opened(model, threads=threads) as own:
        found = chunks_of(own, text, context, None, chunks, parse_special)
        dataset = os.fspath(text) if isinstance(text, os.PathLike) else "text"
        measurement = ImatrixMeasurement(
            own, found, dataset, output=output, kv_type=kv_type, resume=resume, cancel=cancel
        )
        for other in others:
            measurement.check(other)
        for _ in measurement:
            if on_progress is not None:
                on_progress(measurement.done, measurement.total)
        matrix = combined([*others, measurement.result()], context, path or dataset)
    if path is not None:
        write_importance_matrix(path, matrix, form)
    return matrix


class ImatrixMeasurement:
    """A measurement of an importance matrix that runs while it is iterated over; see `imatrix`."""

    def __init__(
        self,
        model: object,
        chunks: Chunks,
        dataset: str = "",
        *,
        output: bool = False,
        kv_type: KVType = "f16",
        resume: str | os.PathLike[str] | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        if not isinstance(model, EngineModel):
            raise TypeError(f"model is a {type(model).__name__}; expected a llamacpu.Model")
        self._model, self._cancel, self._output = model, cancel, output
        self._kv_type: KVType = kv_type
        self.chunks: Chunks = chunks
        self.dataset: str = dataset
        self.places: Places = Places(model.file, output)
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}
        self.losses: list[NDArray[np.float64]] = []
        self.chunks_done: int = 0
        self._state = StateKeeper(resume, self._save)
        if resume is not None:
            self._restore(resume)

    @property
    def done(self) -> int:
        """Tokens that have gone through the model."""
        return self.chunks_done * self.chunks.context

    @property
    def total(self) -> int:
        """Tokens of all chunks."""
        return self.chunks.count * self.chunks.context

    def __iter__(self) -> Iterator[None]:
        """Run; yields after every chunk."""
        with self._state:
            while self.chunks_done < self.chunks.count:
                self._measure(self.chunks_done)
                self.chunks_done += 1
                self._state.due()
                yield

    def result(self) -> ImportanceMatrix:
        """The importance matrix of the chunks measured so far."""
        entries = {}
        for name, sums in self.sums.items():
            counts = self.counts[name].astype(np.float64)
            entries[name] = Entry(sums.reshape(len(counts), -1).astype(np.float32), counts)
        datasets = (self.dataset,) if self.dataset else ()
        return ImportanceMatrix(Path(self.dataset), entries, datasets, self.chunks_done, self.chunks.context)

    def check(self, other: ImportanceMatrix) -> None:
        """Raise ValueError if a matrix was measured on a model of other sizes."""
        for name, entry in other.entries.items():
            sizes = self.places.sizes.get(name)
            if sizes is not None and entry.sums.size != sizes[0] * sizes[1]:
                raise ValueError(
                    f"an importance matrix has {entry.sums.size} sums for {name}, and the model {sizes[0] * sizes[1]}; "
                    "it was measured on another model"
                )

    def perplexity(self) -> Figure:
        """The perplexity of the chunks measured so far; only with `output`."""
        mean = mean_of(np.concatenate(self.losses)) if self.losses else Figure(0.0, 0.0)
        value = exponential(mean.value)
        return Figure(value, value * mean.error)

    def _measure(self, index: int) -> None:
        chunks, ids = self.chunks, self.chunks.ids(index)
        session = self._model.session(chunks.context, self._kv_type)
        found: list[tuple[str, int, int, NDArray[np.float64]]] = []
        losses = []
        rows = max(1, _LOGIT_BYTES // (4 * self._model.vocab_size)) if self._output else chunks.context
        for start in range(0, chunks.context, rows):
            part = ids[start : start + rows]
            logits, squares = self._model.step_squares([(session, part)], self._output, self._cancel)
            found.extend(self.places.named(squares))
            if self._output:
                labels = chunks.tokens[index * chunks.step + start + 1 :][: len(part)]
                kept = slice(max(chunks.first - start, 0), max(min(chunks.context - 1 - start, len(labels)), 0))
                losses.append(-_native.predict(logits[: len(labels)][kept], labels[kept])[0])
        for name, _, _, sums in found:
            if not np.isfinite(sums).all():
                raise ModelError(f"the inputs of {name} are not finite numbers: the weights of the model are damaged")
        # Nothing is added before everything of the chunk has been computed.
        for name, matrix, count, sums in found:
            self._add(name, matrix, count, sums)
        self.losses.extend(losses)

    def _add(self, name: str, matrix: int, count: int, sums: NDArray[np.float64]) -> None:
        columns, matrices = self.places.sizes[name]
        if name not in self.sums:
            self.sums[name] = np.zeros(columns * matrices)
            self.counts[name] = np.zeros(matrices if self.places.routed(name) else 1, np.int64)
        self.sums[name][matrix * columns : (matrix + 1) * columns] += sums
        if self.places.routed(name) or matrix == 0:
            self.counts[name][matrix] += count

    def _subject(self) -> dict[str, Any]:
        return {
            "model": default_fingerprint(self._model),
            "text": self.chunks.digest(),
            "context": self.chunks.context,
            "output": self._output,
            "kv_type": self._kv_type,
        }

    def _save(self, path: str | os.PathLike[str]) -> None:
        arrays: dict[str, NDArray[Any]] = {"chunks": np.array([self.chunks_done], np.int64)}
        arrays |= {f"sums {name}": sums for name, sums in self.sums.items()}
        arrays |= {f"counts {name}": counts for name, counts in self.counts.items()}
        progress_file.save(path, "importance matrix", self._subject(), arrays)

    def _restore(self, path: str | os.PathLike[str]) -> None:
        arrays = progress_file.load(path, "importance matrix", self._subject())
        if arrays is None:
            return
        damaged = f"{os.fspath(path)} is damaged: its arrays do not fit the model. Delete it to begin again"
        done = arrays.pop("chunks", np.zeros(0, np.int64))
        if done.dtype != np.int64 or done.shape != (1,) or done[0] < 0:
            raise ValueError(damaged)
        if done[0] > self.chunks.count:
            raise ValueError(
                f"{os.fspath(path)} has {done[0]} chunks already, and {self.chunks.count} are asked for; ask for more"
            )
        for key, values in arrays.items():
            kind, _, name = key.partition(" ")
            columns, matrices = self.places.sizes.get(name, (0, 0))
            counts = matrices if self.places.routed(name) else 1
            wanted = ("<f8", columns * matrices) if kind == "sums" else ("<i8", counts)
            if kind not in ("sums", "counts") or not columns or (values.dtype.str, values.size) != wanted:
                raise ValueError(damaged)
            (self.sums if kind == "sums" else self.counts)[name] = values
        if self.sums.keys() != self.counts.keys():
            raise ValueError(damaged)
        self.chunks_done = int(done[0])


class Places:
    """Finds the tensors of a file by the places of their matrices."""

    def __init__(self, file: GGUFFile, output: bool) -> None:
        names = {tensor.name for tensor in file.tensors}
        last = "output.weight" if "output.weight" in names else "token_embd.weight"
        self._tensors = sorted(file.tensors, key=lambda tensor: (tensor.file, tensor.offset))
        self._starts = [(tensor.file, tensor.offset) for tensor in self._tensors]
        wanted = [t for t in file.tensors if t.name.startswith("blk.") or (output and t.name == last)]
        self.sizes: dict[str, tuple[int, int]] = {
            tensor.name: (tensor.shape[0], tensor.shape[2] if len(tensor.shape) > 2 else 1) for tensor in wanted
        }
        """tensor name -> (columns, number of matrices)"""

    def routed(self, name: str) -> bool:
        """Whether each matrix of the tensor sees the tokens that a router sends to it."""
        return "_exps." in name

    def named(
        self, squares: Iterable[tuple[int, int, int, NDArray[np.float64]]]
    ) -> Iterator[tuple[str, int, int, NDArray[np.float64]]]:
        """Name, index of the matrix, count and sums, for those that belong to an importance matrix.

        Of a tensor that fuses several matrices with the same input, only the first one is named.
        """
        for file, offset, count, sums in squares:
            tensor = self._tensors[bisect_right(self._starts, (file, offset)) - 1]
            columns, matrices = self.sizes.get(tensor.name, (0, 1))
            matrix, rest = divmod(offset - tensor.offset, tensor.nbytes // matrices)
            if columns == sums.size and not rest:
                yield tensor.name, matrix, count, sums


def combined(
    matrices: Sequence[ImportanceMatrix], context: int = 512, path: str | os.PathLike[str] = ""
) -> ImportanceMatrix:
    """The importance matrix of all texts that several were measured on.

    context: tokens of a chunk, where a file does not say it. path: the path of the result.

    Raises ValueError for matrices of models of other sizes.
    """
    size = next((matrix.chunk_size for matrix in reversed(matrices) if matrix.chunk_size), context)
    entries: dict[str, Entry] = {}
    for matrix in matrices:
        # Files of the older form count chunks, not tokens.
        factor = 1 if matrix.chunk_size else size
        for name, entry in matrix.entries.items():
            own = Entry(entry.sums * np.float32(factor), entry.counts * factor)
            entries[name] = _sum(name, entries[name], own) if name in entries else own
    most = max((int(entry.counts.max()) for entry in entries.values()), default=0)
    datasets = tuple(dataset for matrix in matrices for dataset in matrix.datasets)
    return ImportanceMatrix(Path(path), entries, datasets, most // size, size)


def _sum(name: str, one: Entry, other: Entry) -> Entry:
    counts = {one.counts.size, other.counts.size} - {1}
    if one.sums.size != other.sums.size or len(counts) > 1:
        raise ValueError(
            f"the importance matrices have {one.sums.size} and {other.sums.size} sums for {name}; expected the same: "
            "they were measured on different models"
        )
    shape = (max(one.counts.size, other.counts.size), -1)
    sums = one.sums.reshape(shape).astype(np.float64) + other.sums.reshape(shape)
    return Entry(sums.astype(np.float32), one.counts + other.counts)


def mean_importance(matrix: ImportanceMatrix) -> Mapping[str, float]:
    """The mean square of all inputs of every tensor, by name: what a plot shows."""
    found = {}
    for name, entry in matrix.entries.items():
        total = float(entry.counts.sum()) * entry.sums.shape[1]
        found[name] = float(entry.sums.sum(dtype=np.float64)) / total if total else 0.0
    return found
