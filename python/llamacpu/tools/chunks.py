"""Texts cut into chunks as llama-perplexity cuts them, and the logits of the tokens that count."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Union

import numpy as np

from llamacpu.arguments import described, integer, token_ids
from llamacpu.engine.duty import Duty
from llamacpu.engine.interfaces import CancelToken, KVType, ModelLike, SessionLike
from llamacpu.engine.model import EngineModel
from llamacpu.errors import ModelError
from llamacpu.files import is_file
from llamacpu.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Chunks", "ModelSource", "Piece", "Text", "chunks_of", "opened", "pieces", "tokens_of"]

Text = Union[str, "os.PathLike[str]", Sequence[int]]
"""A text itself, the path (a `Path`) of a UTF-8 file that holds it, or token ids."""
ModelSource = Union[str, "os.PathLike[str]", ModelLike]
"""An open model, the path of a .gguf file, or the name of a model."""

_LOGIT_BYTES = 128 << 20
_LEAST_CONTEXT = 4


@dataclass(frozen=True, eq=False)
class Chunks:
    """The tokens of a text, in pieces that are evaluated independently of each other.

    Chunk i consists of the `context` tokens from token i * `step` on. The logits of its tokens `first` to
    `context` - 2 count: each predicts the token after it.
    """

    tokens: NDArray[np.int64]
    context: int
    first: int
    step: int
    count: int
    bos: int | None
    """stands in place of the first token of each chunk, if the model has texts begin with it"""

    @property
    def scored(self) -> int:
        """Tokens per chunk whose predictions count."""
        return self.context - 1 - self.first

    def ids(self, index: int) -> list[int]:
        """The tokens that the model sees."""
        ids: list[int] = self.tokens[index * self.step :][: self.context].tolist()
        if self.bos is not None:
            ids[0] = self.bos
        return ids

    def positions(self, index: int) -> NDArray[np.int64]:
        """The positions in the text of the tokens that are predicted, int64[scored]."""
        start = index * self.step
        return np.arange(start + self.first + 1, start + self.context, dtype=np.int64)

    def digest(self) -> str:
        """Tells texts apart."""
        return hashlib.sha256(self.tokens.astype("<i4").tobytes()).hexdigest()


class Piece(NamedTuple):
    """A part of a step's results."""

    first: int
    """index of the first row among the scored ones of a chunk"""
    rows: int
    logits: list[list[NDArray[np.float32]]]
    """per model and chunk: float32[rows, vocabulary]"""
    tokens: int
    """how many tokens of each chunk are done"""


def tokens_of(tokenizer: Tokenizer, text: Text, parse_special: bool = False) -> NDArray[np.int64]:
    """The token ids of a text, with BOS in front if the model has texts begin with it.

    A file's last line break is not part of the text, as in llama.cpp's tools. Raises ValueError for an empty text and
    for a file that is not UTF-8, OSError for one that cannot be read.
    """
    if isinstance(text, bytes) or not isinstance(text, (str, os.PathLike, Sequence, np.ndarray)):
        raise TypeError(f"text is {described(text)}; expected a text, the path of a file, or token ids")
    if not isinstance(text, (str, os.PathLike)):
        ids = token_ids("text", text)
        wrong = next((token for token in ids if not 0 <= token < tokenizer.vocab_size), None)
        if wrong is not None:
            raise ValueError(f"token id {wrong} is outside the vocabulary: expected 0 to {tokenizer.vocab_size - 1}")
        return np.array(ids, dtype=np.int64)
    name = "the text"
    if not isinstance(text, str):
        name = os.fspath(text)
        try:
            text = Path(text).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"{name} is not UTF-8 text (byte {error.start}); expected a text file") from None
        text = text.removesuffix("\n")
    if not text:
        raise ValueError(f"{name} is empty; give a text of at least two chunks")
    ids = tokenizer.encode(text, add_special=False, parse_special=parse_special)
    if tokenizer.add_bos and tokenizer.bos is not None:
        ids.insert(0, tokenizer.bos)
    return np.array(ids, dtype=np.int64)


def chunks_of(
    model: ModelLike,
    text: Text,
    context: int = 512,
    stride: int | None = None,
    limit: int | None = None,
    parse_special: bool = False,
) -> Chunks:
    """The chunks of a text.

    context        tokens of a chunk. The second half of each counts, so that every prediction has a past
    stride         instead: each chunk begins this many tokens after the one before, and its last `stride` tokens count
    limit          the most chunks
    parse_special  names of control tokens in the text are these tokens

    Raises ValueError for arguments that do not fit together and for a text shorter than two chunks, ModelError for a
    model that has no logits.
    """
    check_writes(model)
    for name, value in (("context", context), ("stride", stride), ("chunks", limit)):
        integer(name, value)
    if not _LEAST_CONTEXT <= context <= 1 << 24:
        raise ValueError(f"context is {context}; expected {_LEAST_CONTEXT} to {1 << 24} tokens")
    if stride is not None and not 1 <= stride < context:
        raise ValueError(f"stride is {stride}; expected 1 to {context - 1}, less than the context")
    if limit is not None and limit < 1:
        raise ValueError(f"chunks is {limit}; expected at least 1, or None for all")
    tokenizer = model.tokenizer
    tokens = tokens_of(tokenizer, text, parse_special)
    if len(tokens) < 2 * context:
        hint = f"; for the file of this name give Path({text!r})" if isinstance(text, str) and is_file(text) else ""
        raise ValueError(
            f"the text has {len(tokens)} tokens, and chunks of {context} tokens need at least {2 * context}; give a "
            f"longer text, or a smaller context{hint}"
        )
    if stride is None:
        first, step, count = context // 2, context, len(tokens) // context
        bos = tokenizer.bos if tokenizer.add_bos else None
    else:
        first, step, bos = context - stride - 1, stride, None
        count = -(-(len(tokens) - context) // stride) or 1
    return Chunks(tokens, context, first, step, count if limit is None else min(count, limit), bos)


def check_writes(model: ModelLike) -> None:
    """Raise ModelError for a model that predicts no tokens."""
    config = model.config
    if not config["causal"] or not config["output"]:
        raise ModelError(
            f"{Path(model.path).name} makes vectors of texts and predicts no tokens; measure a model that writes"
        )


def pieces(
    models: Sequence[ModelLike], chunks: Chunks, group: range, kv_type: KVType, cancel: CancelToken | None = None
) -> Iterator[Piece | int]:
    """Run a group of chunks through the models, all chunks in the same steps.

    Yields the number of tokens per chunk that are done before logits count, then pieces of logits: at most 128 MB at a
    time, or a row per chunk and model.
    """
    vocabulary = sum(model.vocab_size for model in models)
    rows = max(1, _LOGIT_BYTES // (4 * vocabulary * len(group)))
    ids = [chunks.ids(index) for index in group]
    sessions = [[model.session(chunks.context, kv_type) for _ in group] for model in models]

    def items(of_model: int, start: int, stop: int) -> list[tuple[SessionLike, list[int]]]:
        return [(session, own[start:stop]) for session, own in zip(sessions[of_model], ids, strict=True)]

    if chunks.first:
        for index, model in enumerate(models):
            model.step(items(index, 0, chunks.first), "none", cancel)
        yield chunks.first
    for start in range(chunks.first, chunks.context - 1, rows):
        stop = min(start + rows, chunks.context - 1)
        logits = [model.step(items(index, start, stop), "all", cancel) for index, model in enumerate(models)]
        yield Piece(start - chunks.first, stop - start, logits, stop)


@contextmanager
def opened(
    model: ModelSource, name: str = "model", threads: int | None = None, duty: Duty = None
) -> Iterator[ModelLike]:
    """The model itself, or the one at a path or of a name, opened for the block."""
    if isinstance(model, (str, os.PathLike)):
        with EngineModel(model, threads, duty=duty) as own:
            yield own
    elif hasattr(model, "step") and hasattr(model, "tokenizer"):
        if threads is not None:
            raise ValueError("threads is for a model that is opened here; an open model has its own")
        yield model
    else:
        raise TypeError(f"{name} is {described(model)}; expected a Model, the path of a .gguf file, or a name")
