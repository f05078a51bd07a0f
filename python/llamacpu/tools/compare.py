"""Runs a comparison of a model, of a quantized file above all, with the original model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llamacpu import _native
from llamacpu.engine.duty import Duty, cycle_of
from llamacpu.engine.interfaces import CancelToken, KVType, ModelLike
from llamacpu.errors import ModelError
from llamacpu.tools.chunks import Chunks, ModelSource, Piece, Text, check_writes, chunks_of, opened
from llamacpu.tools.comparison import Comparison
from llamacpu.tools.logit_file import LogitFile, is_logit_file
from llamacpu.tools.measuring import Measurement, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ComparisonMeasurement", "compare", "comparison_of"]


def compare(
    model: ModelSource,
    original: ModelSource,
    text: Text | None = None,
    *,
    context: int = 512,
    chunks: int | None = None,
    batch_tokens: int = 2048,
    kv_type: KVType = "f16",
    threads: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Comparison:
    """Measure how far the predictions of a model are from those of the original model, over a text.

    The text is cut into chunks as `perplexity` does it. Both models run side by side; never more than 128 MB of logits
    are in memory.

    model         an open model, the path of a .gguf file, or the name of a model
    original      the same, or the path of a file of log-probabilities that `perplexity` or llama.cpp's
                  `llama-perplexity --kl-divergence-base` wrote. Such a file rounds log-probabilities to 16 bits, and
                  leaves out tokens that are less probable than e to the power of -16
    text          the text itself, the path (a `Path`) of a UTF-8 file that holds it, or token ids; not needed for a
                  file of log-probabilities, which has the tokens
    chunks        measure this many chunks, not all
    batch_tokens  as many chunks as fit into this many tokens go through the models together; it changes the speed only
    kv_type       how keys and values are stored
    resume        a file for the state: an interrupted measurement continues where it was, a complete one is read
    on_progress   called with the tokens that are done and the tokens of all chunks
    cancel        stops the measurement from another thread: `Cancelled` is raised

    Raises ValueError for models whose vocabularies differ, for a text shorter than two chunks and for a state of
    another measurement, ModelError for a model that predicts no tokens, OSError for files that cannot be read or
    written.
    """
    with comparison_of(
        model, original, text, context=context, chunks=chunks, batch_tokens=batch_tokens, kv_type=kv_type,
        threads=threads, resume=resume, cancel=cancel,
    ) as measurement:  # fmt: skip
        measurement.run(on_progress)
        return measurement.result()


@contextmanager
def comparison_of(
    model: ModelSource,
    original: ModelSource,
    text: Text | None,
    *,
    context: int | None,
    chunks: int | None,
    threads: int | None = None,
    duty: Duty = None,
    **settings: Any,
) -> Iterator[ComparisonMeasurement]:
    """Open the models and check that they can be compared; see `compare`."""
    cycle = cycle_of(duty)
    with ExitStack() as stack:
        own = stack.enter_context(opened(model, threads=threads, duty=cycle))
        check_writes(own)
        if isinstance(original, (str, os.PathLike)) and is_logit_file(original):
            if text is not None:
                raise ValueError("a file of log-probabilities has the tokens of its text; leave out the text")
            base = stack.enter_context(LogitFile(original))
            yield ComparisonMeasurement(own, base, _chunks_of_file(own, base, original, chunks), **settings)
            return
        if text is None:
            raise ValueError("a text is needed to compare two models; only a file of log-probabilities has its own")
        source = stack.enter_context(opened(original, "original", threads, cycle))
        _check_vocabularies(own, source)
        found = chunks_of(own, text, context or 512, None, chunks)
        same = (
            found
            if isinstance(text, Sequence) and not isinstance(text, str)
            else chunks_of(source, text, context or 512)
        )
        if not np.array_equal(found.tokens, same.tokens) or found.bos != same.bos:
            raise ValueError("the two models split the text into different tokens; compare models of one tokenizer")
        yield ComparisonMeasurement(own, source, found, **settings)


def _check_vocabularies(own: ModelLike, source: ModelLike) -> None:
    if own.vocab_size != source.vocab_size:
        raise ValueError(
            f"the vocabularies differ: {Path(own.path).name} has {own.vocab_size} tokens, {Path(source.path).name} "
            f"{source.vocab_size}; compare a model with the one that it was made from"
        )


def _chunks_of_file(own: ModelLike, base: LogitFile, path: str | os.PathLike[str], limit: int | None) -> Chunks:
    if base.vocab_size != own.vocab_size:
        raise ValueError(
            f"{os.fspath(path)} has the log-probabilities of {base.vocab_size} tokens, and the vocabulary of "
            f"{Path(own.path).name} has {own.vocab_size}; compare a model with the one that it was made from"
        )
    if limit is not None and limit < 1:
        raise ValueError(f"chunks is {limit}; expected at least 1, or None for all")
    bos = own.tokenizer.bos if own.tokenizer.add_bos else None
    count = base.chunks if limit is None else min(base.chunks, limit)
    return Chunks(base.tokens, base.context, base.context // 2, base.context, count, bos)


class ComparisonMeasurement(Measurement):
    """A comparison that runs while it is iterated over; see `compare`."""

    kind: ClassVar[str] = "comparison"
    names: ClassVar[Mapping[str, str]] = {
        "log_probabilities": "<f8", "original_log_probabilities": "<f8", "divergences": "<f8", "top_tokens": "<i8",
        "original_top_tokens": "<i8",
    }  # fmt: skip

    def __init__(self, model: ModelLike, original: ModelLike | LogitFile, chunks: Chunks, **settings: Any) -> None:
        self._file = original if isinstance(original, LogitFile) else None
        models = [model] if isinstance(original, LogitFile) else [model, original]
        super().__init__(models, chunks, **settings)

    def subject(self) -> dict[str, Any]:
        """What is compared."""
        form = {"original": "models" if self._file is None else "log-probabilities"}
        return super().subject() | form

    def measured(self, piece: Piece, group: range) -> Sequence[Mapping[str, NDArray[Any]]]:
        """The columns of a piece, per chunk of the group."""
        found = []
        for place, index in enumerate(group):
            labels = self.labels(piece, index)
            try:
                if self._file is None:
                    columns = _native.compare(piece.logits[0][place], labels, piece.logits[1][place])
                else:
                    records = self._file.records(index, piece.first, piece.rows)
                    columns = _native.compare(piece.logits[0][place], labels, None, records)
            except ValueError as error:
                raise ModelError(f"chunk {index}: {error}; the weights of a model are damaged") from None
            for column in columns[:3]:
                self.checked(column, index)
            found.append(dict(zip(self.names, columns, strict=True)))
        return found

    def result(self) -> Comparison:
        """The comparison of the chunks measured so far."""
        positions = self.positions()
        return Comparison(
            tokens=self.chunks.tokens[positions],
            positions=positions,
            log_probabilities=self.columns["log_probabilities"],
            original_log_probabilities=self.columns["original_log_probabilities"],
            divergences=self.columns["divergences"],
            top_tokens=self.columns["top_tokens"],
            original_top_tokens=self.columns["original_top_tokens"],
            chunks=self.chunks_done,
            context=self.chunks.context,
        )
