"""Tokenizers with llama-cpp-python's interface: that of a `Llama`, and those that can replace it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from llamacpu.gguf.file import GGUFFile
from llamacpu.llama.text import LlamaText
from llamacpu.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import os

__all__ = ["BaseLlamaTokenizer", "LlamaHFTokenizer", "LlamaTokenizer"]


class BaseLlamaTokenizer(ABC):
    """Base class of the tokenizers that `Llama(tokenizer=...)` takes."""

    @abstractmethod
    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text."""

    @abstractmethod
    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the bytes of tokens that follow `prev_tokens`."""


class _Tokenizes(Protocol):
    """A `Llama`, or the part of it that tokenizes."""

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = False) -> list[int]: ...
    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes: ...


class LlamaTokenizer(BaseLlamaTokenizer):
    """The tokenizer of a `Llama`."""

    def __init__(self, llama: _Tokenizes) -> None:
        self._llama = llama

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text."""
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the bytes of tokens that follow `prev_tokens`."""
        return self._llama.detokenize(tokens, prev_tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text."""
        return self._llama.tokenize(text, add_bos, special)

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of tokens."""
        return self._llama.detokenize(tokens).decode("utf-8", "ignore")

    @classmethod
    def from_ggml_file(cls, path: str | os.PathLike[str]) -> LlamaTokenizer:
        """Read the tokenizer of a file, without the weights."""
        with GGUFFile(path) as file:
            return cls(LlamaText(Tokenizer(file)))


class LlamaHFTokenizer(BaseLlamaTokenizer):
    """A tokenizer from Hugging Face transformers."""

    def __init__(self, hf_tokenizer: Any) -> None:
        self.hf_tokenizer = hf_tokenizer

    def tokenize(self, text: bytes | str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text; with `special`, including the start and end tokens that the tokenizer adds."""
        text = text.decode("utf-8", "ignore") if isinstance(text, bytes) else text
        return list(self.hf_tokenizer.encode(text, add_special_tokens=special))

    def detokenize(
        self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the bytes of tokens that follow `prev_tokens`."""
        before = list(prev_tokens or ())
        whole = self._decoded([*before, *tokens], special)
        return whole[len(self._decoded(before, special)) :] if before else whole

    def _decoded(self, tokens: list[int], special: bool) -> bytes:
        text: str = self.hf_tokenizer.decode(tokens, skip_special_tokens=not special)
        return text.encode("utf-8", "ignore")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str) -> LlamaHFTokenizer:
        """Load the tokenizer of a folder or a Hugging Face repository. Raises ImportError without transformers."""
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise ImportError(
                "LlamaHFTokenizer needs transformers; install it with: pip install transformers"
            ) from None
        return cls(AutoTokenizer.from_pretrained(pretrained_model_name_or_path))
