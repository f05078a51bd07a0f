"""What programs for llama-cpp-python read off a `Llama`: the arguments that it was made with, and its handles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from llamacpu.llama.conversation import Conversation
from llamacpu.llama.sampling import Samplers


class _Argument:
    """An argument of the constructor, as it was given."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else instance._arguments[self._name]


class Attributes:
    """The attributes of `Llama` that say what it was made with.

    `ctx` stands for llama.cpp's context: it is there as long as the object is of use, and only that can be asked of it.
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
    # Recurrent models, and those with some recurrent layers, are not run.
    _is_recurrent = False
    _is_hybrid = False

    @property
    def n_threads(self) -> int:
        """Number of threads."""
        return self._conversation.model.threads

    @property
    def n_threads_batch(self) -> int:
        """Number of threads for prompts: the same."""
        return self.n_threads

    @property
    def model_params(self) -> SimpleNamespace:
        """How the model was opened, by llama.cpp's names."""
        names = ("n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "vocab_only", "use_mmap", "use_mlock")
        return SimpleNamespace(**{name: self._arguments[name] for name in names})

    @property
    def ctx(self) -> object | None:
        """Stands for llama.cpp's context; None where the model is closed."""
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
