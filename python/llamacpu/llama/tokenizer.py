"""The tokenizer object of `Llama.tokenizer()`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llamacpu.llama import Llama


class LlamaTokenizer:
    """The tokenizer of a `Llama` with the methods of llama-cpp-python's class of this name."""

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = True) -> list[int]:
        """The tokens of a text."""
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """The bytes of tokens."""
        return self._llama.detokenize(tokens, prev_tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """The tokens of a text."""
        return self._llama.tokenize(text, add_bos, special)

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens."""
        return self._llama.detokenize(tokens).decode("utf-8", "ignore")
