"""convert: a checkpoint of transformers to a GGUF file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llamacpu.arguments import path as check_path
from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.errors import CheckpointError
from llamacpu.gguf.writer import NewTensor, write_gguf
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.card import set_card
from llamacpu.tools.convert.families.base import Family
from llamacpu.tools.convert.formats import FILE_TYPES, encoded, format_of
from llamacpu.tools.convert.hub import find_checkpoint
from llamacpu.tools.convert.model_id import size_label
from llamacpu.tools.convert.registry import family_of
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.trial import try_model

__all__ = ["convert"]

MXFP4_FILE = 38
QUANTIZATION_VERSION = 2


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    type: str = "auto",
    name: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_download: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a checkpoint (safetensors or PyTorch, with config.json and tokenizer) to a GGUF file; return its path.

    The file is what llama.cpp's converter writes: the same keys, values, tensors and bytes, with few exceptions (see
    below). Tensors are read, changed and written one at a time. DeBERTa and Llama 3.2 Vision, which llama.cpp does not
    have, get the layout of `llamacpu.families.deberta_v2` and that of Ollama.

    source       the folder of the checkpoint, or its name on the hub ("owner/model"): the hub's cache and our own
                 store are searched, then it is downloaded to our store
    output       the file, or a folder for it; None: the working directory. Without a name the file is called
                 after the model and the type ("Llama-3.2-1B-Instruct-BF16.gguf")
    type         of the matrices: "f32", "f16", "bf16", "q8_0", or "auto": 16 bits of the kind that the checkpoint
                 has, f16 for F32
    name         of the model (general.name), instead of the one in the model card or the folder's
    on_progress  called with the bytes written so far and in total
    on_download  called with the bytes downloaded so far and in total

    Raises CheckpointError if the checkpoint is damaged, incomplete or of a kind that cannot be converted (nothing is
    written then), StoreError if it cannot be found or downloaded, ValueError for an unknown type, FileExistsError if
    `output` is a file of another kind, OSError.

    The exceptions: a SentencePiece vocabulary that only exists as BPE in tokenizer.json gets scores in the order of its
    merges; llama.cpp's converter gives all tokens the same score, and text is then cut in another way. The first Qwen
    gets the epsilon of its norms under the name that runtimes read, and the output of Baichuan 2 is normalized.
    """
    check_path("source", source)
    if type not in (*FILE_TYPES, "auto"):
        raise ValueError(f"type is {type!r:.40}; expected auto, {', '.join(FILE_TYPES)}")
    place = find_checkpoint(source, on_download)
    checkpoint = Checkpoint.open(place.folder)
    origin = Source(checkpoint)
    chosen = _guessed(origin) if type == "auto" else type
    format, file_type = FILE_TYPES[chosen]
    family = family_of(origin)(origin, TokenizerFolder(checkpoint), file_type)
    tensors = [_new_tensor(tensor_name, array, format, family) for tensor_name, array in family.tensors()]
    if not tensors:
        raise CheckpointError(f"{checkpoint.folder}: the checkpoint has no tensors of the language model")
    _set_metadata(family, tensors, place.name, name)
    path = _output(output, family, chosen)
    inputs = [entry for entry in checkpoint.folder.iterdir() if entry.is_file()]
    values = family.keys.values
    try:
        try_model(values, tensors)
        write_gguf(path, values, tensors, inputs=inputs, on_progress=on_progress)
    except (ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{checkpoint.folder}: no GGUF file can be made of it: {error}") from error
    return path


def _set_metadata(family: Family, tensors: list[NewTensor], model_id: str, name: str | None) -> None:
    total, shared, expert, experts = _parameters(tensors)
    if any(tensor.format == "MXFP4" for tensor in tensors) and family.file_type in (0, 1, 32):
        family.file_type = MXFP4_FILE
    family.keys.add("general.type", "model", "string")
    size = size_label(total, shared, expert, experts)
    set_card(family.keys, family.source.checkpoint, model_id, total, size, name)
    family.set_parameters()
    family.keys.add("general.quantization_version", QUANTIZATION_VERSION, "uint32")
    family.set_vocabulary()


def _guessed(source: Source) -> str:
    """The 16-bit type of the first matrix that has one."""
    for _, tensor in source.tensors():
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"):
            return tensor.dtype.lower()
    return "f16"


def _new_tensor(name: str, array: Array, chosen: str, family: Family) -> NewTensor:
    format = array.format or format_of(name, array.shape, chosen, family.reduces_routers)

    def data() -> Iterator[Any]:
        if array.untouched is not None and array.shape and array.dtype == format:
            yield from array.stored_pieces()
            return
        for piece in array.pieces():
            yield piece if array.format else encoded(piece, format)

    return NewTensor(name, array.shape, format, data)


def _parameters(tensors: list[NewTensor]) -> tuple[int, int, int, int]:
    """Numbers of all parameters, of those outside of experts, of those of one expert in each layer, and of experts."""
    total = shared = expert = stacked = experts = 0
    for tensor in tensors:
        size = math.prod(tensor.shape)
        total += size
        if "_exps." in tensor.name and len(tensor.shape) >= 3:
            count = tensor.shape[-2 if ".bias" in tensor.name else -3]
            expert += size // max(count, 1)
            experts += count
            stacked += 1
        else:
            shared += size
    return total, shared, expert, experts // stacked if stacked else 0


def _output(output: str | os.PathLike[str] | None, family: Family, chosen: str) -> Path:
    path = Path.cwd() if output is None else Path(output)
    if output is not None and not path.is_dir():
        return path
    values = {key: str(value.value) for key, value in family.keys.values.items() if key.startswith("general.")}
    stem = (values.get("general.basename") or values["general.name"]).strip().replace(" ", "-").replace("/", "-")
    parts = [values.get(f"general.{key}") for key in ("size_label", "finetune", "version")]
    words = [part.strip().replace(" ", "-").replace("/", "-") for part in parts if part]
    return path / f"{'-'.join([stem, *words, chosen.upper()])}.gguf"
