"""What the constructor of `Llama` opens: a model, or only the vocabulary of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from llamacpu.engine.interfaces import Load, LoadProgress
from llamacpu.gguf.file import GGUFFile
from llamacpu.llama import settings
from llamacpu.model import Model
from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Opened", "open_file"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file, its tokenizer, and the model; None if only the vocabulary was wanted.

    context     maximum number of tokens of the conversation; 0 for the model's training context
    vocab_size  the number of logits per token, or without a model the number of the tokenizer's tokens
    """

    file: GGUFFile
    tokenizer: Tokenizer
    model: Model | None
    context: int
    vocab_size: int


def open_file(
    name: str,
    arguments: Mapping[str, Any],
    given: Collection[str],
    overrides: Mapping[str, Any],
    on_load: LoadProgress | None,
) -> Opened:
    """Open what the arguments of `Llama` name; `given` are the names of those that were passed.

    Without an `n_ctx` that was passed, the context that came with the model's name applies.
    """
    context: int = arguments["n_ctx"]
    if arguments["vocab_only"]:
        with GGUFFile(settings.file_of(name), overrides) as file:
            tokenizer = Tokenizer(file)
            return Opened(file, tokenizer, None, context, tokenizer.vocab_size)
    load: Load = "map" if arguments["use_mmap"] else "copy"
    threads = arguments["n_threads"] or None
    model = Model(
        name, threads=threads, overrides=overrides, load=load, lora=settings.lora(arguments),
        mmproj=arguments["mmproj"], image_tokens=arguments["image_tokens"], priority=arguments["priority"],
        duty=arguments["duty"], image_crops=arguments["image_crops"],
    )  # fmt: skip
    if "n_ctx" not in given and model.preset.context is not None:
        context = model.preset.context
    if on_load is not None:
        model.prepare(on_load)
    return Opened(model.file, model.tokenizer, model, context, model.vocab_size)
