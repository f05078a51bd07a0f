"""Tokenization for `Llama`: by the file's tokenizer, or by one that replaces it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["LlamaText"]


class LlamaText:
    """Converts text to tokens and back as llama-cpp-python does.

    tokenizer  the tokenizer of the file
    given      a tokenizer that replaces it, or None
    """

    def __init__(self, tokenizer: Tokenizer, given: Any = None) -> None:
        self.tokenizer = tokenizer
        self.given = given

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]:
        """Return the tokens of a text; with `add_bos`, including the start and end tokens that the model expects.

        With `special`, names of control tokens are encoded as these tokens.
        """
        if self.given is not None:
            return list(self.given.tokenize(text, add_bos, special))
        return self.tokenizer.encode(text, add_special=add_bos, parse_special=special)

    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the bytes of tokens that follow `prev_tokens`; `special` includes the names of control tokens."""
        tokens = list(tokens)
        if self.given is not None:
            return bytes(self.given.detokenize(tokens, prev_tokens=prev_tokens, special=special))
        text = self.tokenizer.decode_bytes(tokens, skip_special=not special)
        begins = tokens[:1] == [self.token_bos()] and not special
        return text.removeprefix(b" ") if begins else text

    def token_bos(self) -> int:
        """Return the begin-of-text token, -1 for none."""
        return -1 if self.tokenizer.bos is None else self.tokenizer.bos

    def token_eos(self) -> int:
        """Return the end-of-text token, -1 for none."""
        return -1 if self.tokenizer.eos is None else self.tokenizer.eos

    def token_nl(self) -> int:
        """Return the token of a line break, -1 for none."""
        return (self.tokenizer.encode("\n", add_special=False, space_prefix=False) or [-1])[-1]
