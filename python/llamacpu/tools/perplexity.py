"""Perplexity: how well a model predicts a text, chunk by chunk as llama.cpp's `llama-perplexity` measures it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llamacpu import _native
from llamacpu.engine.interfaces import CancelToken, KVType, ModelLike
from llamacpu.errors import ModelError
from llamacpu.tools.chunks import Chunks, ModelSource, Piece, Text, chunks_of, opened
from llamacpu.tools.figures import exponential, finite, mean_of
from llamacpu.tools.logit_file import LogitWriter
from llamacpu.tools.measuring import Measurement, Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Perplexity", "PerplexityMeasurement", "perplexity"]


@dataclass(frozen=True, eq=False, repr=False)
class Perplexity:
    """How well a model predicts a text. All arrays have one element per scored token.

    value              e to the power of the mean negative log-probability: 1 for certainty, lower is better
    error              the standard error of `value`
    tokens             int64[n]: the tokens that were predicted
    positions          int64[n]: where they are among the tokens of the text
    log_probabilities  float64[n]: natural logarithms of the probabilities that the model gave to them
    entropies          float64[n]: of all probabilities at these positions, in nats
    top_tokens         int64[n]: the tokens that the model held most probable
    running            float64[chunks]: the perplexity of the text up to the end of each chunk
    chunks, context    number of chunks, and tokens in each
    text_tokens        tokens of the whole text
    """

    value: float
    error: float
    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    log_probabilities: NDArray[np.float64]
    entropies: NDArray[np.float64]
    top_tokens: NDArray[np.int64]
    running: NDArray[np.float64]
    chunks: int
    context: int
    text_tokens: int

    @property
    def accuracy(self) -> float:
        """How many of the tokens were those that the model held most probable, from 0 to 1."""
        return float(np.mean(self.tokens == self.top_tokens)) if len(self.tokens) else math.nan

    @property
    def loss(self) -> float:
        """The mean negative log-probability, in nats per token."""
        return -mean_of(self.log_probabilities).value

    def summary(self) -> dict[str, Any]:
        """The figures without the arrays, for JSON."""
        return {
            "perplexity": finite(self.value), "error": finite(self.error), "loss": finite(self.loss),
            "accuracy": finite(self.accuracy), "entropy": finite(mean_of(self.entropies).value),
            "scored_tokens": len(self.tokens), "text_tokens": self.text_tokens, "chunks": self.chunks,
            "context": self.context, "running": [finite(float(value)) for value in self.running],
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<Perplexity {self.value:.4f} ± {self.error:.4f}: {len(self.tokens)} tokens in {self.chunks} chunks>"


def perplexity(
    model: ModelSource,
    text: Text,
    *,
    context: int = 512,
    stride: int | None = None,
    chunks: int | None = None,
    batch_tokens: int = 2048,
    kv_type: KVType = "f16",
    threads: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    save_logits: str | os.PathLike[str] | None = None,
    on_progress: Progress | None = None,
    cancel: CancelToken | None = None,
) -> Perplexity:
    """Measure how well a model predicts a text.

    The text is cut into chunks of `context` tokens, each read from an empty session, with BOS in place of its first
    token if the model has texts begin with it; the predictions of the second half of each chunk count. This is the
    procedure of llama.cpp's `llama-perplexity`, whose figures it gives.

    model         an open model, the path of a .gguf file, or the name of a model
    text          the text itself, the path (a `Path`) of a UTF-8 file that holds it, or token ids
    stride        chunks begin this many tokens apart instead, overlap, and only their last `stride` tokens count, as
                  with `--ppl-stride`: slower, with more past for every token
    chunks        measure this many chunks, not all
    batch_tokens  as many chunks as fit into this many tokens go through the model together. It changes the speed only
    kv_type       how keys and values are stored
    resume        a file for the state: an interrupted measurement continues where it was, a complete one is read
    save_logits   a file for the log-probabilities of all tokens, as `llama-perplexity --kl-divergence-base` writes it:
                  `compare` reads it in place of the original model. About 2 bytes per token of the vocabulary and
                  scored token
    on_progress   called with the tokens that are done and the tokens of all chunks
    cancel        stops the measurement from another thread: `Cancelled` is raised

    Raises ValueError for a text shorter than two chunks and for a state of another measurement, ModelError for a model
    that predicts no tokens, OSError for files that cannot be read or written.
    """
    with opened(model, threads=threads) as own:
        measurement = PerplexityMeasurement(
            own,
            chunks_of(own, text, context, stride, chunks),
            batch_tokens=batch_tokens,
            kv_type=kv_type,
            resume=resume,
            cancel=cancel,
        )
        with measurement.saving(save_logits):
            measurement.run(on_progress)
        return measurement.result()


class PerplexityMeasurement(Measurement):
    """A measurement of perplexity; see `perplexity`."""

    kind: ClassVar[str] = "perplexity"
    names: ClassVar[Mapping[str, str]] = {"log_probabilities": "<f8", "entropies": "<f8", "top_tokens": "<i8"}

    def __init__(self, model: ModelLike, chunks: Chunks, **settings: Any) -> None:
        super().__init__([model], chunks, **settings)
        self._writer: LogitWriter | None = None

    def saving(self, path: str | os.PathLike[str] | None) -> LogitWriter:
        """A context in which the log-probabilities of all tokens are written to a file."""
        if path is not None and self._resume is not None:
            raise ValueError("resume and save_logits; give one: a file of log-probabilities is written in one go")
        writer = LogitWriter(path, self.chunks, self.models[0].vocab_size)
        self._writer = None if path is None else writer
        return writer

    def measured(self, piece: Piece, group: range) -> Sequence[Mapping[str, NDArray[Any]]]:
        """The columns of a piece, per chunk of the group."""
        found = []
        for index, logits in zip(group, piece.logits[0], strict=True):
            try:
                log_probabilities, entropies, tops = _native.predict(logits, self.labels(piece, index))
            except ValueError as error:
                raise ModelError(f"chunk {index}: {error}; the weights of the model are damaged") from None
            if self._writer is not None:
                self._writer.write(index, piece.first, _native.encode_log_probabilities(logits))
            checked = self.checked(log_probabilities, index)
            found.append({"log_probabilities": checked, "entropies": entropies, "top_tokens": tops})
        return found

    def running(self) -> NDArray[np.float64]:
        """The perplexity up to the end of each chunk, float64[chunks]."""
        losses, scored = -self.columns["log_probabilities"], self.chunks.scored
        sums = [math.fsum(losses[start : start + scored]) for start in range(0, len(losses), scored)]
        counts = scored * np.arange(1, len(sums) + 1)
        return _native.exp(np.cumsum(np.array(sums, np.float64)) / counts)

    def result(self) -> Perplexity:
        """The perplexity of the chunks measured so far."""
        positions = self.positions()
        losses = -self.columns["log_probabilities"]
        mean = mean_of(losses)
        value = exponential(mean.value) if len(losses) else math.nan
        return Perplexity(
            value=value,
            error=value * mean.error,
            tokens=self.chunks.tokens[positions],
            positions=positions,
            log_probabilities=self.columns["log_probabilities"],
            entropies=self.columns["entropies"],
            top_tokens=self.columns["top_tokens"],
            running=self.running(),
            chunks=self.chunks_done,
            context=self.chunks.context,
            text_tokens=len(self.chunks.tokens),
        )
