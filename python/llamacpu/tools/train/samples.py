"""Records as token ids, with a mark at every token that the loss counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from llamacpu.errors import TemplateError, TrainingError
from llamacpu.tools.train.records import Record
from llamacpu.tools.train.turns import Marked, marked_conversation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.chat import Chat

__all__ = ["Encoder", "Sample"]


class Sample(NamedTuple):
    """A sequence to train on.

    tokens   int32[n], what the model reads
    targets  int32[n], the token that follows each of them, or -1 where the loss does not count it
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.int32]
    place: str

    @property
    def counted(self) -> int:
        """Number of tokens that the loss counts."""
        return int(np.count_nonzero(self.targets >= 0))


class Encoder:
    """Turns records into samples of at most `length` tokens.

    chat      the model's chat format
    raw       whether a prompt and its completion are taken as they are, instead of as messages of a conversation
    count     "answers": the loss counts what the assistant writes, and the completions; "all": every token
    too_long  whether a conversation longer than `length` is "cut" at its end or left out ("skip"). Texts are divided
              into pieces of that length, and nothing of them is lost.

    cut, skipped  how many samples were cut, and left out because they are too long or nothing to learn remained
    """

    def __init__(
        self,
        chat: Chat,
        length: int,
        count: Literal["answers", "all"],
        too_long: Literal["cut", "skip"],
        raw: bool,
    ) -> None:
        self._chat = chat
        self._tokenizer = chat.tokenizer
        self._length = length
        self._all = count == "all"
        self._too_long = too_long
        self._raw = raw
        self.cut: int = 0
        self.skipped: int = 0

    def samples(self, records: Iterable[Record]) -> Iterator[list[Sample]]:
        """Yield the samples that belong together: those of a conversation, and each piece of a text by itself.

        Raises TrainingError, naming the record's place, for one that the chat template or the tokenizer refuses.
        """
        for record in records:
            try:
                samples = list(self._of(record))
            except TemplateError as error:
                raise TrainingError(f"{record.place}: the chat template refuses it: {error}") from error
            except TrainingError:
                raise
            except ValueError as error:  # a lone surrogate
                raise TrainingError(f"{record.place}: {error}") from error
            yield from ([sample] for sample in samples) if record.text is not None else [samples]

    def _of(self, record: Record) -> Iterator[Sample]:
        if record.text is not None:
            yield from self._pieces(self._framed(self._tokenizer.encode(record.text, add_special=False)), record.place)
            return
        if record.prompt is None:
            messages = record.messages or []
        elif self._raw:
            yield from self._fitted(self._completed(record.prompt, record.completion), record.place)
            return
        else:
            messages = [
                {"role": "user", "content": record.prompt},
                {"role": "assistant", "content": record.completion},
            ]
        variables = record.variables or {}
        if self._all:
            ids = self._chat.encode(messages, record.tools, False, **variables)
            yield from self._fitted(Marked(ids, [True] * len(ids)), record.place)
            return
        for marked in marked_conversation(self._chat, messages, record.tools, variables, self._length):
            yield from self._fitted(marked, record.place)

    def _framed(self, ids: list[int]) -> Marked:
        """A text between the tokens that begin and end one, if the model has them; all of it is counted."""
        begin, end = self._begin(), self._end()
        return Marked([*begin, *ids, *end], [False] * len(begin) + [True] * (len(ids) + len(end)))

    def _completed(self, prompt: str, completion: str) -> Marked:
        before = [*self._begin(), *self._tokenizer.encode(prompt, add_special=False)]
        # Tokenized apart, as when the model continues the prompt.
        after = self._tokenizer.encode(completion, add_special=False, space_prefix=not prompt) + self._end()
        return Marked(before + after, [False] * len(before) + [True] * len(after))

    def _begin(self) -> list[int]:
        return [self._tokenizer.bos] if self._tokenizer.add_bos and self._tokenizer.bos is not None else []

    def _end(self) -> list[int]:
        return [] if self._tokenizer.eos is None else [self._tokenizer.eos]

    def _pieces(self, marked: Marked, place: str) -> Iterator[Sample]:
        """A text in pieces, each of which begins with the token that the one before was to predict last."""
        tokens, targets = self._arrays(marked)
        for start in range(0, len(tokens), self._length):
            yield Sample(tokens[start : start + self._length], targets[start : start + self._length], place)

    def _fitted(self, marked: Marked, place: str) -> Iterator[Sample]:
        tokens, targets = self._arrays(marked)
        last = int(np.flatnonzero(targets >= 0)[-1]) + 1 if (targets >= 0).any() else 0
        tokens, targets = tokens[:last], targets[:last]
        if len(tokens) > self._length:
            kept = self._too_long == "cut" and bool((targets[: self._length] >= 0).any())
            if not kept:
                self.skipped += 1
                return
            self.cut += 1
            tokens, targets = tokens[: self._length], targets[: self._length]
        if len(tokens):
            yield Sample(tokens, targets, place)

    def _arrays(self, marked: Marked) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        ids = np.asarray(marked.ids, np.int32)
        counted = np.ones(len(ids), np.bool_) if self._all else np.asarray(marked.counted, np.bool_)
        return ids[:-1], np.where(counted[1:], ids[1:], -1).astype(np.int32)
