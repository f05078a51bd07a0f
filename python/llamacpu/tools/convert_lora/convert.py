"""convert_lora: an adapter of PEFT to a GGUF file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.arguments import path as check_path
from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.checkpoints.json_files import read_object
from llamacpu.errors import CheckpointError
from llamacpu.gguf.writer import NewTensor, write_gguf
from llamacpu.tools.convert.card import set_card
from llamacpu.tools.convert.formats import FILE_TYPES, encoded
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert_lora.base import Base, base_of
from llamacpu.tools.convert_lora.mapping import Place, place_of, place_of_experts
from llamacpu.tools.convert_lora.pairs import Pair, pairs_of, with_experts
from llamacpu.tools.convert_lora.places import ADAPTER_FILES, find_adapter, find_base
from llamacpu.tools.convert_lora.settings import CONFIG, Settings

__all__ = ["convert_lora", "is_adapter"]

Floats = NDArray[np.float32]
QUANTIZATION_VERSION = 2
_BLOCK = 32
_LOOKED_UP = "token_embd.weight"


def is_adapter(source: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an adapter of PEFT (adapter_config.json)."""
    return (Path(source) / CONFIG).is_file()


def convert_lora(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    base: str | os.PathLike[str] | None = None,
    type: str = "f32",
    name: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_download: Callable[[int, int], None] | None = None,
) -> Path:
    """Convert a LoRA adapter of PEFT (adapter_config.json and its tensors) to a GGUF file; return its path.

    The file is what llama.cpp's convert_lora_to_gguf.py writes, but for what that leaves out: the alpha of rsLoRA is
    multiplied by the root of the rank, since runtimes divide by the rank; alphas of single modules (alpha_pattern) are
    multiplied into their B; the matrices of GPT-2, which checkpoints store transposed, are those of the file.

    source       the folder of the adapter, or its name on the hub ("owner/adapter")
    output       the file, or a folder for it; None: the working directory
    base         the model that it was made for: the folder of its checkpoint, of which config.json is read; its GGUF
                 file or the name of one on this machine, against whose tensors the shapes are checked; or its name on
                 the hub. None: the model that the adapter names
    type         of the matrices: "f32", "f16", "bf16", "q8_0", or "auto": f16 if the adapter is in F16, otherwise bf16
    name         of the adapter (general.name), instead of the one in its model card or the folder's
    on_progress  called with the bytes written so far and in total
    on_download  called with the bytes downloaded so far and in total

    Raises CheckpointError for a damaged adapter, for one that is more than a change of low rank (DoRA, trained biases,
    whole modules) and for one that does not fit the base model, StoreError if a name cannot be found or downloaded,
    GGUFError if the base model is a damaged GGUF file, ValueError for an unknown type, FileExistsError if `output` is a
    file of another kind, OSError.
    """
    check_path("source", source)
    if type not in (*FILE_TYPES, "auto"):
        raise ValueError(f"type is {type!r:.40}; expected auto, {', '.join(FILE_TYPES)}")
    folder = find_adapter(source, on_download)
    if not is_adapter(folder):
        raise CheckpointError(f"{folder}: there is no {CONFIG}; give the folder of an adapter that PEFT saved")
    config = read_object(folder / CONFIG)
    settings = Settings(config)
    file = next((folder / file for file in ADAPTER_FILES if (folder / file).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{folder}: the tensors of the adapter are missing; expected {' or '.join(ADAPTER_FILES)}"
        )
    checkpoint = Checkpoint.open(file)
    tensors_read = checkpoint.tensors.items()
    pairs = pairs_of(dict(sorted(tensors_read) if file.suffix == ".safetensors" else tensors_read), file.name)
    known = base_of(find_base(_named_base(config) if base is None else base, on_download))
    if type == "auto":
        type = "f16" if pairs[0].a.dtype == pairs[0].b.dtype == "F16" else "bf16"
    tensors = list(_tensors(pairs, settings, known, FILE_TYPES[type][0]))
    keys = _keys(known, checkpoint, tensors, settings, name)
    path = _output(output, keys, type)
    inputs = [entry for entry in folder.iterdir() if entry.is_file()] + ([known.file] if known.file else [])
    try:
        write_gguf(path, keys.values, tensors, inputs=inputs, on_progress=on_progress)
    except (ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{folder}: no GGUF file can be made of it: {error}") from error
    return path


def _named_base(config: dict[str, Any]) -> str:
    given = config.get("base_model_name_or_path")
    if isinstance(given, str) and given.strip():
        return given
    raise CheckpointError(f"{CONFIG} names no base model; give its folder or its GGUF file (base)")


def _tensors(pairs: Sequence[Pair], settings: Settings, base: Base, format: str) -> Iterator[NewTensor]:
    found: dict[object, object] = {}
    for layer, group in with_experts(list(pairs)):
        if layer:
            yield from _experts(group, settings, base, format)
            continue
        (pair,) = group
        factor = settings.factor(pair.module, pair.rank)
        shape = pair.shape[::-1] if pair.embedding else pair.shape
        for place in place_of(base.family, pair.module, shape, found):
            if pair.embedding and (place.name != _LOOKED_UP or place.rows is not None):
                raise CheckpointError(f"the adapter changes {pair.module}, an embedding that GGUF cannot adapt")
            _check(base, place.name, shape if place.rows is None else (len(place.rows), shape[1]), pair.module)
            yield from _new(place, pair, factor, format)


def _new(place: Place, pair: Pair, factor: float, format: str) -> Iterator[NewTensor]:
    rank, columns = pair.a.shape
    height = pair.b.shape[0] if place.rows is None else len(place.rows)

    def second() -> Floats:
        return _ordered(pair, place.rows, factor)

    # An embedding is looked up: a row of `lora_a` for each token.
    if pair.embedding:
        yield _tensor(f"{place.name}.lora_a", (columns, rank), format, lambda: pair.a.read().T)
        yield _tensor(f"{place.name}.lora_b", (height, rank), format, second)
    elif place.name == _LOOKED_UP:
        yield _tensor(f"{place.name}.lora_a", (height, rank), format, second)
        yield _tensor(f"{place.name}.lora_b", (columns, rank), format, lambda: pair.a.read().T)
    else:
        yield _tensor(f"{place.name}.lora_a", (rank, columns), format, pair.a.read)
        yield _tensor(f"{place.name}.lora_b", (height, rank), format, second)


def _experts(group: Sequence[Pair], settings: Settings, base: Base, format: str) -> Iterator[NewTensor]:
    modules = [pair.module for pair in group]
    for part, name in place_of_experts(base.family, modules, [pair.shape for pair in group]):
        stack = sorted((pair for pair in group if pair.module.endswith(f".{part}")), key=_number_of_expert)
        rank, (rows, columns) = stack[0].rank, stack[0].shape
        if any(pair.rank != rank for pair in stack):
            raise CheckpointError(f"{stack[0].module}: the ranks of the experts differ; GGUF needs one rank for all")
        factors = [settings.factor(pair.module, rank) for pair in stack]
        _check(base, name, (len(stack), rows, columns), stack[0].module)

        def first(stack: Sequence[Pair] = stack) -> Floats:
            return np.stack([pair.a.read() for pair in stack])

        def second(stack: Sequence[Pair] = stack, factors: Sequence[float] = factors) -> Floats:
            return np.stack([_ordered(pair, None, factor) for pair, factor in zip(stack, factors, strict=True)])

        yield _tensor(f"{name}.lora_a", (len(stack), rank, columns), format, first)
        yield _tensor(f"{name}.lora_b", (len(stack), rows, rank), format, second)


def _number_of_expert(pair: Pair) -> int:
    return int(pair.module.partition(".experts.")[2].partition(".")[0])


def _ordered(pair: Pair, rows: NDArray[np.int64] | None, factor: float) -> Floats:
    values = pair.b.read()
    if rows is not None:
        values = values[rows]
    return values if factor == 1 else (values.astype(np.float64) * factor).astype(np.float32)


def _tensor(name: str, shape: tuple[int, ...], format: str, read: Callable[[], Floats]) -> NewTensor:
    if format == "Q8_0" and shape[-1] % _BLOCK:
        format = "F16"
    chosen = format

    def data() -> Iterator[Any]:
        yield encoded(np.ascontiguousarray(read()), chosen)

    return NewTensor(name, shape, chosen, data)


def _check(base: Base, name: str, shape: tuple[int, ...], module: str) -> None:
    """Refuse a change of what the base model does not have, or has in another shape."""
    if name == "output.weight" and base.tied:
        raise CheckpointError(
            f"the adapter changes {module}, which in this base model is the matrix of the embeddings; GGUF cannot "
            "express a change of one of both: merge the adapter into the base model"
        )
    if base.shapes is not None and base.shapes.get(name) != shape:
        there = base.shapes.get(name)
        what = f"has the shape {there} in the base model" if there else "is not in the base model"
        raise CheckpointError(
            f"the adapter changes {module} of the shape {shape}, but {name} {what}; is it the right one?"
        )


def _keys(
    base: Base, checkpoint: Checkpoint, tensors: Sequence[NewTensor], settings: Settings, name: str | None
) -> Keys:
    keys = Keys(base.family.architecture)
    keys.add("general.type", "adapter", "string")
    keys.add("adapter.type", "lora", "string")
    set_card(keys, checkpoint, checkpoint.folder.resolve().name, -_size(tensors), "", name)
    keys.add("adapter.lora.alpha", settings.alpha, "float32")
    if settings.invocation:
        keys.values["adapter.alora.invocation_tokens"] = _token_ids(settings.invocation)
    keys.add("general.quantization_version", QUANTIZATION_VERSION, "uint32")
    return keys


def _size(tensors: Sequence[NewTensor]) -> int:
    """The number of elements of the matrices that are changed."""
    total = 0
    for a, b in zip(tensors[::2], tensors[1::2], strict=True):
        total += int(np.prod(b.shape[:-1])) * a.shape[-1]
    return total


def _token_ids(tokens: list[int]) -> Any:
    from llamacpu.gguf.values import Typed

    return Typed(tokens, "uint32")


def _output(output: str | os.PathLike[str] | None, keys: Keys, type: str) -> Path:
    path = Path.cwd() if output is None else Path(output)
    if output is not None and not path.is_dir():
        return path
    values = {key: str(value.value) for key, value in keys.values.items() if key.startswith("general.")}
    stem = values.get("general.basename") or values["general.name"]
    parts = [stem, *(values.get(f"general.{key}", "") for key in ("size_label", "finetune", "version"))]
    words = [part.strip().replace(" ", "-").replace("/", "-") for part in parts if part]
    return path / f"{'-'.join([*words, type.upper(), 'LoRA'])}.gguf"
