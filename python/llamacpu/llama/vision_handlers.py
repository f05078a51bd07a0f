"""Handlers of conversations with pictures, under the names of llama-cpp-python's module `llama_chat_format`.

    handler = Llava15ChatHandler(clip_model_path="mmproj.gguf")
    Llama("model.gguf", chat_handler=handler, n_ctx=4096)

There, each is a template of its own. Here, the file says how the model is asked and which kind of encoder it has, so
all of them do the same: they open the vision encoder. `Llama(mmproj=...)` needs no handler.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llamacpu.llama.formats import OwnHandler

if TYPE_CHECKING:
    from llamacpu.llama.front import Llama

__all__ = [
    "Gemma3ChatHandler",
    "Llama3VisionAlphaChatHandler",
    "Llava15ChatHandler",
    "Llava16ChatHandler",
    "Qwen25VLChatHandler",
]

Handler = TypeVar("Handler", bound="Llava15ChatHandler")


class Llava15ChatHandler(OwnHandler):
    """Answers conversations with pictures.

    clip_model_path  the mmproj file that belongs to the model
    verbose          without effect: the log says what it says
    """

    def __init__(self, clip_model_path: str | os.PathLike[str], verbose: bool = True) -> None:
        self.clip_model_path: str = os.fspath(clip_model_path)
        self.verbose: bool = verbose
        if not Path(self.clip_model_path).exists():
            raise ValueError(f"Clip path does not exist: {self.clip_model_path}")

    def __call__(self, *, llama: Llama, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """Answer the conversation; `settings` as in `Llama.create_chat_completion`."""
        model = llama.model
        if model.vision is None or model.vision.path != Path(self.clip_model_path):
            model.open_vision(self.clip_model_path)
        llama.chat.vision = model.vision
        return llama._completions.create_chat_completion(messages, **settings)

    @classmethod
    def from_pretrained(
        cls: type[Handler],
        repo_id: str,
        filename: str | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: bool | str = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Handler:
        """Download the mmproj file of a Hugging Face repository that matches `filename`, and open it."""
        from llamacpu.store.hub import download

        path = download(repo_id, filename or "*mmproj*.gguf", (), local_dir, cache_dir)
        return cls(clip_model_path=path, **kwargs)


class Llava16ChatHandler(Llava15ChatHandler):
    """See `Llava15ChatHandler`."""


class Llama3VisionAlphaChatHandler(Llava15ChatHandler):
    """See `Llava15ChatHandler`."""


class Gemma3ChatHandler(Llava15ChatHandler):
    """See `Llava15ChatHandler`."""


class Qwen25VLChatHandler(Llava15ChatHandler):
    """See `Llava15ChatHandler`."""
