"""What programs for llama-cpp-python read from a `Llama`: its arguments, its model, its sizes, its tokens."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from llamacpu.engine.session import Session
from llamacpu.gguf.file import GGUFFile
from llamacpu.llama.conversation import Conversation
from llamacpu.llama.delegation import method_of
from llamacpu.llama.embedding import Embeddings
from llamacpu.llama.sampling import Samplers
from llamacpu.locks import cached_property
from llamacpu.model import Model


class _Argument:
    """An argument of the constructor, as given."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._arguments[self._name]


class Attributes:
    """The attributes of `Llama` that describe how it was created and what its conversation holds.

    `ctx` stands for llama.cpp's context, but only shows whether the object can still be used: it is None once it
    cannot.
    """

    _arguments: dict[str, Any]
    _conversation: Conversation
    _embeddings: Embeddings
    _file: GGUFFile
    _samplers: Samplers

    kv_overrides: _Argument = _Argument()
    lora_base: _Argument = _Argument()
    lora_path: _Argument = _Argument()
    lora_scale: _Argument = _Argument()
    main_gpu: _Argument = _Argument()
    numa: _Argument = _Argument()
    split_mode: _Argument = _Argument()
    tensor_split: _Argument = _Argument()
    _logits_all = _Argument()
    # Recurrent models, and those with some recurrent layers, are not supported.
    _is_recurrent = False
    _is_hybrid = False

    @property
    def model(self) -> Model:
        """The underlying `llamacpu.Model`."""
        return self._conversation.model

    @property
    def session(self) -> Session:
        """The `llamacpu.Session` of the conversation."""
        return self._conversation.session

    n_ctx: Final = method_of("_conversation", Conversation.n_ctx)

    def n_embd(self) -> int:
        """The length of an embedding."""
        return int(self.model.config["embedding_length"])

    def n_vocab(self) -> int:
        """The number of tokens in the vocabulary."""
        return self._conversation.vocab_size

    @cached_property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file as strings, without the arrays."""
        plain = {key: value for key, value in self._file.metadata.items() if isinstance(value, (bool, int, float, str))}
        return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in plain.items()}

    @property
    def n_threads(self) -> int:
        """The number of threads."""
        return self._conversation.model.threads

    @property
    def n_threads_batch(self) -> int:
        """The number of threads for prompts, which is the same."""
        return self.n_threads

    @property
    def model_params(self) -> SimpleNamespace:
        """The arguments the model was opened with, under llama.cpp's names."""
        names = ("n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "vocab_only", "use_mmap", "use_mlock")
        return SimpleNamespace(**{name: self._arguments[name] for name in names})

    @property
    def context_params(self) -> SimpleNamespace:
        """The settings of the conversation, under llama.cpp's names."""
        return SimpleNamespace(
            n_ctx=self._conversation.n_ctx(), n_batch=self._embeddings.n_batch, n_threads=self.n_threads,
            n_threads_batch=self.n_threads_batch, pooling_type=self._embeddings.pooling_type(),
            embeddings=self._embeddings.wanted,
        )  # fmt: skip

    @property
    def ctx(self) -> object | None:
        """A placeholder for llama.cpp's context; None once the model is closed."""
        return self._conversation if self._arguments["vocab_only"] or not self._conversation.closed else None

    @property
    def _ctx(self) -> SimpleNamespace:
        return SimpleNamespace(ctx=self.ctx)

    @property
    def _seed(self) -> int | None:
        return self._samplers.seed

    @property
    def _n_ctx(self) -> int:
        return self._conversation.n_ctx()

    @property
    def _n_vocab(self) -> int:
        return self._conversation.vocab_size

    # --- The conversation, step by step ---

    @property
    def n_tokens(self) -> int:
        """The number of tokens in the conversation; a smaller value can be set, to continue from there."""
        return self._conversation.session.position

    @n_tokens.setter
    def n_tokens(self, count: int) -> None:
        if isinstance(count, bool) or not hasattr(count, "__index__") or not 0 <= count <= self.n_tokens:
            raise ValueError(f"n_tokens is set to {count!r}; expected 0 to {self.n_tokens}, the tokens there are")
        self._conversation.truncate(count)

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens of the conversation."""
        return self._conversation.input_ids

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits that `eval` kept, float32[rows, vocabulary]: of all tokens with `logits_all`, else of the last."""
        return self._conversation.scores

    @property
    def eval_tokens(self) -> deque[int]:
        """The tokens of the conversation."""
        return self._conversation.eval_tokens

    @property
    def eval_logits(self) -> deque[list[float]]:
        """`scores` as lists."""
        return self._conversation.eval_logits

    # Programs written for llama-cpp-python use these two under their private names.
    _input_ids = input_ids
    _scores = scores
