"""A model without weights: its next token is a function of the tokens so far, so that every answer is known.

Ids: 0 is the start token, 1 ends the text, 2 is a control token, id 3 + b is the byte b.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llamacpu.errors import Cancelled, ContextOverflow

START, END, CONTROL, FIRST_BYTE = 0, 1, 2, 3
VOCABULARY = FIRST_BYTE + 256


def ids_of(text: str | bytes) -> list[int]:
    data = text.encode() if isinstance(text, str) else text
    return [FIRST_BYTE + byte for byte in data]


class FakeStream:
    def __init__(self, skip_special: bool) -> None:
        self._skip_special = skip_special
        self._bytes = b""

    def push(self, token: int) -> str:
        if token < FIRST_BYTE:
            return "" if self._skip_special else "<c>"
        self._bytes += bytes([token - FIRST_BYTE])
        try:
            text = self._bytes.decode()
        except UnicodeDecodeError as error:
            if error.reason != "unexpected end of data":
                raise
            return ""
        self._bytes = b""
        return text

    def flush(self) -> str:
        text = self._bytes.decode(errors="replace")
        self._bytes = b""
        return text


class FakeTokenizer:
    bos = START
    eog = frozenset([END])
    add_eos = False

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return ([START] if add_special else []) + ids_of(text)

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        return bytes(token - FIRST_BYTE for token in ids if token >= FIRST_BYTE).decode(errors="replace")

    def decode_bytes(self, ids: Sequence[int], skip_special: bool = False) -> bytes:
        shown = [bytes([token - FIRST_BYTE]) if token >= FIRST_BYTE else b"<c>" for token in ids]
        return b"".join(part for part, token in zip(shown, ids, strict=True) if token >= FIRST_BYTE or not skip_special)

    def stream(self, skip_special: bool = False) -> FakeStream:
        return FakeStream(skip_special)


class FakeModel:
    """next_token: tokens so far -> the most likely next one."""

    vocab_size = VOCABULARY

    def __init__(self, next_token: Callable[[list[int]], int], context: int = 1000) -> None:
        self.next_token = next_token
        self.context_length = context
        self.tokenizer = FakeTokenizer()
        self.metadata: dict[str, Any] = {}
        self.config: dict[str, Any] = {}

    def session(self, context: int | None = None) -> FakeSession:
        return FakeSession(self, self.context_length if context is None else context)

    def row(self, tokens: list[int]) -> np.ndarray:
        """The logits after these tokens."""
        row = np.zeros(self.vocab_size, dtype=np.float32)
        row[self.next_token(tokens)] = 10.0
        return row


class FakeSession:
    """Keeps the rules of the real one; `calls` notes the length of every forward pass."""

    def __init__(self, model: FakeModel, context: int) -> None:
        self.model = model
        self.context = context
        self._tokens: list[int] = []
        self.calls: list[int] = []

    @property
    def tokens(self) -> list[int]:
        return list(self._tokens)

    @property
    def position(self) -> int:
        return len(self._tokens)

    def truncate(self, tokens: int) -> None:
        if not 0 <= tokens <= len(self._tokens):
            raise ValueError(f"{tokens} of {len(self._tokens)} tokens cannot be kept")
        del self._tokens[tokens:]

    def forward(self, ids: Sequence[int], logits: str = "last", cancel: Any = None) -> Any:
        if not len(ids) or not all(0 <= token < self.model.vocab_size for token in ids):
            raise ValueError(f"not the ids of one token or more: {ids}")
        if len(self._tokens) + len(ids) > self.context:
            raise ContextOverflow("too many tokens for the fake")
        if cancel is not None and cancel.cancelled:
            raise Cancelled("the fake was cancelled")
        self.calls.append(len(ids))
        self._tokens.extend(ids)
        if logits == "none":
            return None
        if logits == "last":
            return self.model.row(self.tokens)
        first = len(self._tokens) - len(ids) + 1
        return np.stack([self.model.row(self._tokens[:end]) for end in range(first, len(self._tokens) + 1)])


def writer(text: str | bytes, prompt_length: int) -> FakeModel:
    """A model that continues a prompt of that many tokens with the text, and then ends."""
    answer = [*ids_of(text), END]
    return FakeModel(lambda tokens: answer[min(len(tokens) - prompt_length, len(answer) - 1)])
