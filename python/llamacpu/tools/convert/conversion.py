"""convert: a checkpoint of transformers to a GGUF file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llamacpu.arguments import path as check_path
from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError
from llamacpu.gguf.writer import NewTensor, write_gguf
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.card import set_card
from llamacpu.tools.convert.formats import FILE_TYPES, encoded
from llamacpu.tools.convert.hub import find_checkpoint, find_description
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.model_id import size_label
from llamacpu.tools.convert.registry import family_of, tower_of
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.target import target_at
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.trial import try_model

__all__ = ["convert"]

QUANTIZED_FILES = {"MXFP4": 38, "NVFP4": 39}
QUANTIZATION_VERSION = 2


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    type: str = "auto",
    name: str | None = None,
    mmproj: bool = False,
    target_model: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_download: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a checkpoint (safetensors or PyTorch, with config.json and tokenizer) to a GGUF file; return its path.

    The file is what llama.cpp's converter writes: the same keys, values, tensors and bytes, with few exceptions (see
    below). Tensors are read, changed and written one at a time. DeBERTa and Llama 3.2 Vision, which llama.cpp does not
    have, get the layout of `llamacpu.families.deberta_v2` and that of Ollama. The adapters of Jina Embeddings 3 for its
    tasks become files beside the model's ("lora-TASK-...").

    source       the folder of the checkpoint, or its name on the hub ("owner/model"): the hub's cache and our own
                 store are searched, then it is downloaded to our store
    output       the file, or a folder for it; None: the working directory. Without a name the file is called
                 after the model and the type ("Llama-3.2-1B-Instruct-BF16.gguf")
    type         of the matrices: "f32", "f16", "bf16", "q8_0", or "auto": 16 bits of the kind that the checkpoint
                 has, f16 for F32
    name         of the model (general.name), instead of the one in the model card or the folder's
    mmproj       convert the vision encoder and its projector instead of the language model, to the file that runtimes
                 call mmproj ("mmproj-Llama-4-Scout-F16.gguf")
    target_model the model that a drafter (DFlash, EAGLE-3) was made for, whose tokenizer its file needs: the folder of
                 its checkpoint, of which config.json and the tokenizer are read, its GGUF file, or its name on this
                 machine or on the hub. None: what the drafter's configuration names, if it does
    on_progress  called with the bytes written so far and in total
    on_download  called with the bytes downloaded so far and in total

    Raises CheckpointError if the checkpoint is damaged, incomplete, of a kind that cannot be converted or of another
    target model (nothing is written then), StoreError if it cannot be found or downloaded, GGUFError if the target
    model is a damaged GGUF file, ValueError for an unknown type, FileExistsError if `output` is a file of another kind,
    OSError.

    The exceptions: a SentencePiece vocabulary that only exists as BPE in tokenizer.json gets scores in the order of its
    merges; llama.cpp's converter gives all tokens the same score, and text is then tokenized differently. The first
    Qwen gets the epsilon of its norms under the name that runtimes read, Mistral 4 the scale of its queries; the output
    of Baichuan 2 is normalized; the encoder of Llama 4 has the names of published files, and Pixtral's the row of the
    embedding that it needs.
    """
    check_path("source", source)
    if target_model is not None:
        check_path("target_model", target_model)
    if type not in (*FILE_TYPES, "auto"):
        raise ValueError(f"type is {type!r:.40}; expected auto, {', '.join(FILE_TYPES)}")
    if mmproj and target_model is not None:
        raise ValueError("mmproj is for models that see, target_model for drafters; give one of them")
    place = find_checkpoint(source, on_download)
    checkpoint = Checkpoint.open(place.folder)
    named = _verifier(checkpoint.config) if target_model is None and not mmproj else target_model
    target = None if named is None else find_description(named, "target model", on_download)
    origin = Source(checkpoint, None if target is None else target_at(target))
    made = (_encoder if mmproj else _language_model)(origin, type, place.name, name)
    path = _output(output, made)
    folders = [checkpoint.folder, *([target] if target is not None and target.is_dir() else [])]
    inputs = [entry for folder in folders for entry in folder.iterdir() if entry.is_file()]
    inputs += [target] if target is not None and target.is_file() else []
    values = made.keys.values
    try:
        if not mmproj:
            try_model(values, made.tensors)
        write_gguf(path, values, made.tensors, inputs=inputs, on_progress=on_progress)
        for task, keys, tensors in made.adapters:
            write_gguf(path.with_name(f"lora-{task}-{path.name}"), keys.values, tensors, inputs=inputs)
    except (ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{checkpoint.folder}: no GGUF file can be made of it: {error}") from error
    return path


def _verifier(config: dict[str, Any]) -> str | None:
    """The model that the configuration of a drafter names as the one it was made for."""
    settings = config.get("speculators_config")
    verifier = settings.get("verifier") if isinstance(settings, dict) else None
    name = verifier.get("name_or_path") if isinstance(verifier, dict) else None
    return name if isinstance(name, str) and name.strip() else None


class _Made(NamedTuple):
    """What a file is made of, the name of its type, and what precedes its default name."""

    keys: Keys
    tensors: list[NewTensor]
    type: str
    prefix: str
    adapters: list[tuple[str, Keys, list[NewTensor]]]


def _language_model(source: Source, type: str, model_id: str, name: str | None) -> _Made:
    checkpoint = source.checkpoint
    chosen = _guessed(tensor for _, tensor in source.tensors()) if type == "auto" else type
    format, file_type = FILE_TYPES[chosen]
    family = family_of(source)(source, TokenizerFolder(checkpoint), file_type)
    if source.target is None:
        source.check_vocabulary()
    tensors = [
        _new_tensor(ours, array, array.format or family.format_of(ours, array, format))
        for ours, array in family.tensors()
    ]
    if not tensors:
        raise CheckpointError(f"{checkpoint.folder}: the checkpoint has no tensors of the language model")
    for kept, number in QUANTIZED_FILES.items():
        if any(tensor.format == kept for tensor in tensors) and family.file_type in (0, 1, 32):
            family.file_type = number
    family.keys.add("general.type", "model", "string")
    _set_card(family.keys, source, tensors, model_id, name)
    family.set_parameters()
    family.keys.add("general.quantization_version", QUANTIZATION_VERSION, "uint32")
    family.set_vocabulary()
    adapters = [
        (task, keys, [_new_tensor(ours, array, "F32") for ours, array in arrays])
        for task, keys, arrays in family.adapters()
    ]
    return _Made(family.keys, tensors, chosen, "", adapters)


def _encoder(source: Source, type: str, model_id: str, name: str | None) -> _Made:
    kind = tower_of(source)
    if type == "auto":
        probe = kind(source, 0)
        type = _guessed(tensor for original, tensor in source.tensors() if probe.kept(original) is not None)
    format, file_type = FILE_TYPES[type]
    tower = kind(source, file_type)
    tensors = [
        _new_tensor(ours, array, tower.format_of(ours, theirs, array.shape, format))
        for ours, theirs, array in tower.tensors()
    ]
    if not tensors:
        raise CheckpointError(f"{source.checkpoint.folder}: the checkpoint has no tensors of a vision encoder")
    tower.check(tensor.name for tensor in tensors)
    tower.keys.add("general.type", "mmproj", "string")
    _set_card(tower.keys, source, tensors, model_id, name)
    tower.set_parameters()
    tower.keys.add("general.quantization_version", QUANTIZATION_VERSION, "uint32")
    return _Made(tower.keys, tensors, type, "mmproj-", [])


def _set_card(keys: Keys, source: Source, tensors: list[NewTensor], model_id: str, name: str | None) -> None:
    total, shared, expert, experts = _parameters(tensors)
    set_card(keys, source.checkpoint, model_id, total, size_label(total, shared, expert, experts), name)


def _guessed(tensors: Iterable[LazyTensor]) -> str:
    """The 16-bit type of the first matrix that has one."""
    for tensor in tensors:
        if len(tensor.shape) >= 2 and tensor.dtype in ("BF16", "F16"):
            return tensor.dtype.lower()
    return "f16"


def _new_tensor(name: str, array: Array, format: str) -> NewTensor:
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


def _output(output: str | os.PathLike[str] | None, made: _Made) -> Path:
    path = Path.cwd() if output is None else Path(output)
    if output is not None and not path.is_dir():
        return path
    values = {key: str(value.value) for key, value in made.keys.values.items() if key.startswith("general.")}
    stem = (values.get("general.basename") or values["general.name"]).strip().replace(" ", "-").replace("/", "-")
    kinds = ("finetune", "version") if made.prefix else ("size_label", "finetune", "version")
    parts = [values.get(f"general.{key}") for key in kinds]
    words = [part.strip().replace(" ", "-").replace("/", "-") for part in parts if part]
    return path / f"{made.prefix}{'-'.join([stem, *words, made.type.upper()])}.gguf"
