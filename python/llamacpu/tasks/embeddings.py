"""Embeddings: one vector per text, pooled from the hidden states of its tokens after the final norm.

with llamacpu.Model("model.gguf") as model:
    model.embed(["one text", "another"], normalize=True)      # float32[2, width]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from llamacpu.arguments import described
from llamacpu.errors import ContextOverflow, ModelError
from llamacpu.tasks.prefixes import Task, TaskAdapter, prefix_for

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, KVType, ModelLike, SessionLike, TokenIds
    from llamacpu.text.tokenizer import Tokenizer

__all__ = [
    "Pooling",
    "TextPair",
    "before_texts",
    "default_pooling",
    "embed",
    "most_tokens",
    "pooling_name",
    "pooling_number",
    "pooling_of",
    "vectors",
]

Pooling = Literal["none", "mean", "cls", "last", "rank"]
"""How hidden states become a vector: not at all (one vector per token), the mean over all tokens, the first token, the
last token, or the scores that the model's classifier gives for the first token (for a causal model, the last)."""

# In the order of the values of GGUF's key <architecture>.pooling_type.
_NUMBERS: tuple[Pooling, ...] = ("none", "mean", "cls", "last", "rank")

# Limits of a batch: enough tokens to run matrix products at full speed, and few enough texts that their KV pages
# stay small.
_TOKENS = 512
_TEXTS = 16

Vector = npt.NDArray[np.float32]


class TextPair(NamedTuple):
    """Two texts that the model reads together.

    first: the number of tokens before the second text. tail: the number of tokens after it.
    """

    ids: list[int]
    first: int
    tail: int


def pooling_of(metadata: Mapping[str, object]) -> Pooling | None:
    """The pooling that the file recommends, or None. Raises ModelError for a pooling_type that is not supported."""
    number = pooling_number(metadata)
    if number == -1:
        return None
    try:
        return pooling_name(number)
    except ValueError as error:
        raise ModelError(f"in this file {error}") from None


def default_pooling(metadata: Mapping[str, object]) -> Pooling:
    """The pooling that the file recommends if it gives one vector per text, else "mean"."""
    recommended = pooling_of(metadata)
    return "mean" if recommended in (None, "none") else recommended


def pooling_number(metadata: Mapping[str, object]) -> int:
    """The file's pooling_type, or -1 if it has none. Raises ModelError if it is not an integer."""
    value = metadata.get(f"{metadata.get('general.architecture')}.pooling_type", -1)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ModelError(f"pooling_type is {value!r:.40} in this file; expected an integer")
    return value


def pooling_name(number: int) -> Pooling:
    """The pooling for a GGUF pooling_type, numbered as in llama.cpp. Raises ValueError for an unsupported one."""
    if 0 <= number < len(_NUMBERS):
        return _NUMBERS[number]
    raise ValueError(f"pooling_type is {number}; this version has 0 (none), 1 (mean), 2 (cls), 3 (last) and 4 (rank)")


def embed(
    model: ModelLike,
    input: str | Sequence[str],
    pooling: Pooling | None = None,
    *,
    normalize: bool = False,
    truncate: bool = True,
    task: Task | None = None,
    prefix: str | None = None,
    adapters: Sequence[TaskAdapter] = (),
    cancel: CancelToken | None = None,
) -> Vector | list[Vector]:
    """The embeddings of texts; see `Model.embed`. `adapters` are those that the model's sessions go through."""
    before = before_texts(model.metadata, task, prefix, adapters)
    if pooling is None:
        pooling = default_pooling(model.metadata)
    if not isinstance(input, (str, Sequence)) or not all(isinstance(text, str) for text in input):
        raise TypeError(f"input is {described(input)}; expected a text or a list of texts")
    texts = [input] if isinstance(input, str) else list(input)
    limit = model.context_length
    ids = (_limited(model.tokenizer, before + text, limit, truncate) for text in texts)
    found = list(vectors(model, ids, pooling, normalize=normalize, cancel=cancel))
    if isinstance(input, str):
        return found[0]
    if pooling == "none":
        return found
    return np.stack(found) if found else np.zeros((0, int(model.config["embedding_length"])), dtype=np.float32)


def before_texts(
    metadata: Mapping[str, object], task: Task | None, prefix: str | None, adapters: Sequence[TaskAdapter] = ()
) -> str:
    """The prefix of every text: `prefix`, or the one that the model or its adapter expects for `task`.

    Raises ValueError if both are given, ModelError if the prefix for `task` is not known.
    """
    if prefix is not None and task is not None:
        raise ValueError("both a task and a prefix are given; give one of them")
    if task is not None:
        return prefix_for(metadata, task, adapters)
    return prefix or ""


def _limited(tokenizer: Tokenizer, text: str, limit: int, truncate: bool) -> list[int]:
    ids = tokenizer.encode(text)
    if len(ids) > limit and not truncate:
        raise ContextOverflow(
            f"a text has {len(ids)} tokens and the model holds {limit}; shorten it, or ask for truncation"
        )
    return tokenizer.truncate(ids, limit)


def most_tokens(model: ModelLike, context: int | None = None) -> int:
    """The maximum number of tokens in a text: the requested context, or by default the model's context length.

    A model with learned positions never reads more tokens than it has positions.
    """
    known = int(model.context_length)
    if context is None:
        return known
    return min(context, known) if model.config.get("learned_positions", False) else context


def vectors(
    model: ModelLike,
    texts: Iterable[TokenIds | TextPair | None],
    pooling: Pooling,
    *,
    normalize: bool = False,
    kv_type: KVType = "f16",
    cancel: CancelToken | None = None,
) -> Iterator[Vector]:
    """Yield the embeddings of texts given as token ids, in order: float32[width], with pooling "none"
    float32[tokens, width], with "rank" float32[classes].

    Several texts go through the model in one step; the results are bit-identical however texts are batched. Texts are
    taken from the iterable as needed; a None in place of a text means that the next one may take a while, so the texts
    collected so far are computed at once. Raises ValueError for an unknown pooling and for a text without tokens,
    ModelError for "rank" with a model that has no classifier.
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f'pooling is {pooling!r}; expected "none", "mean", "cls", "last" or "rank"')
    if pooling == "rank" and not model.config.get("classes", 0):
        raise ModelError(
            "pooling is 'rank' (pooling_type 4), but the model has no classifier (cls.weight, cls.output.weight); "
            'expected "none", "mean", "cls" or "last" for it'
        )
    source = iter(texts)
    causal = model.config.get("causal", True)
    number = 0
    running: deque[_Text] = deque()
    while True:
        while len(running) < _TEXTS and sum(text.left for text in running) < _TOKENS:
            try:
                ids = next(source)
            except StopIteration:
                break
            if ids is None:
                if running:
                    break
                continue
            pair = ids if isinstance(ids, TextPair) else None
            tokens: TokenIds = ids.ids if isinstance(ids, TextPair) else ids
            if len(tokens) == 0:
                raise ValueError(f"text {number} (counted from 0) has no tokens: there is nothing to embed")
            # A text that is read in one step needs its keys and values only during that step: rounding saves nothing.
            session = model.session(len(tokens), kv_type if causal else "f32")
            if pair and model.config.token_types > 1:
                session.set_first_part(pair.first)
            running.append(_Text(tokens, session, causal))
            number += 1
        if not running:
            return
        room = _TOKENS
        pieces: list[tuple[_Text, TokenIds]] = []
        for text in running:
            piece = text.ids[text.session.position :]
            if causal:
                piece = piece[: max(room, 0)]
            elif pieces and len(piece) > room:
                break
            room -= len(piece)
            if len(piece) > 0:
                pieces.append((text, piece))
        steps = model.step_hidden([(text.session, piece) for text, piece in pieces], cancel=cancel)
        for (text, _), step in zip(pieces, steps, strict=True):
            text.take(step.hidden[0], pooling)
        while running and running[0].left == 0:
            vector = running.popleft().vector(pooling)
            if pooling == "rank":
                yield model.classify(vector[np.newaxis])[0]
            else:
                yield _normalized(vector) if normalize else vector


@dataclass
class _Text:
    """A text that is being computed."""

    ids: TokenIds
    session: SessionLike
    causal: bool
    kept: list[Vector] = field(default_factory=list)
    total: npt.NDArray[np.float64] | None = None

    @property
    def left(self) -> int:
        """The number of tokens still to be computed."""
        return len(self.ids) - self.session.position

    def take(self, states: Vector, pooling: Pooling) -> None:
        """Record what the pooling needs of the next tokens' hidden states, float32[tokens, width]."""
        if pooling == "none":
            self.kept.append(states)
        elif pooling == "last" or (pooling == "rank" and self.causal):
            self.kept = [states[-1]]
        elif pooling in ("cls", "rank"):
            self.kept = self.kept or [states[0]]
        else:
            if self.total is None:
                self.total = np.zeros(states.shape[1], dtype=np.float64)
            # Row by row: the order of summation must not depend on how the text was split.
            for row in states:
                self.total += row

    def vector(self, pooling: Pooling) -> Vector:
        """The embedding of the text."""
        if self.total is not None:
            return (self.total / len(self.ids)).astype(np.float32)
        # Copy, because a view of the row would keep the states of a whole step alive.
        return np.concatenate(self.kept) if pooling == "none" else self.kept[0].copy()


def _normalized(vector: Vector) -> Vector:
    """The vector scaled to Euclidean length 1 along the last axis; zero vectors stay zero."""
    exact = vector.astype(np.float64)
    length = np.sqrt((exact**2).sum(axis=-1, keepdims=True))
    return (exact / np.where(length == 0, 1, length)).astype(np.float32)
