"""The families by their names in `general.architecture`, and what a file is that belongs to none."""

from __future__ import annotations

from collections.abc import Callable

from llamacpu.errors import ModelError
from llamacpu.families.config import Config
from llamacpu.families.llama import llama
from llamacpu.gguf.file import GGUFFile

__all__ = ["FAMILIES", "config_for"]

FAMILIES: dict[str, Callable[[GGUFFile, str], Config]] = {"llama": llama}
"""Architecture name, as in general.architecture, to the function that reads its metadata."""

# Files that are sound GGUF and no language model, by general.type and by general.architecture.
_OTHER_KINDS = {
    "adapter": "a LoRA adapter; open the model it was made for",
    "imatrix": "an importance matrix, which is input for quantizing; open a model",
    "mmproj": "the vision part of a model; open the language model that belongs to it",
}
_OTHER_ARCHITECTURES = {
    "clip": "the vision part of a model; open the language model that belongs to it",
    "controlvector": "a control vector; open the model it was made for",
    "imatrix": _OTHER_KINDS["imatrix"],
    "mllama": "Llama 3.2 Vision, whose cross-attention layers this version does not run; "
    "the text models Llama 3.1 8B and 70B are the same without images",
}


def config_for(file: GGUFFile) -> Config:
    """The configuration of the model in `file`, as its family reads it.

    Raises `ModelError` if the file is not a language model, has an architecture that is not known, or has metadata that
    is missing or out of range. Tensors are looked up and shape-checked by the native model.
    """
    metadata = file.metadata
    try:
        kind = metadata.text("general.type", "model")
        if kind in _OTHER_KINDS:
            raise ModelError(f"this is {_OTHER_KINDS[kind]}")
        name = metadata.text("general.architecture")
        if name in _OTHER_ARCHITECTURES:
            raise ModelError(f"this is {_OTHER_ARCHITECTURES[name]}")
        if name not in FAMILIES:
            known = ", ".join(sorted(FAMILIES))
            raise ModelError(f"the architecture {name[:60]!r} is not supported; supported are: {known}")
        if not file.tensors:
            raise ModelError(
                "the file holds a vocabulary and no weights; open it with llamacpu.Tokenizer, or get the model"
            )
        return FAMILIES[name](file, name)
    except ModelError as error:
        raise ModelError(f"{file.path.name}: {error}") from None
