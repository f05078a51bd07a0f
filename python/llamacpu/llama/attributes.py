"""The attributes that programs for llama-cpp-python read from a `Llama`: its constructor arguments and handles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llamacpu.llama.conversation import Conversation
from llamacpu.llama.sampling import Samplers


class _Argument:
    """An argument of the constructor, as given."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._arguments[self._name]


class Attributes:
    """The attributes of `Llama` that describe how it was created.

    `ctx` stands for llama.cpp's context, but only shows whether the object can still be used: it is None once it
    cannot.
    """

    _arguments: dict[str, Any]
    _conversation: Conversation
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
