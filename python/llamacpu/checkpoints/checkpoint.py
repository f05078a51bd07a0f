"""A checkpoint: the folder that a model is published in, with its configuration and all of its tensors.

checkpoint = Checkpoint.open("Llama-3.2-1B-Instruct")
print(checkpoint.config["model_type"], len(checkpoint.tensors))
embedding = checkpoint.tensors["model.embed_tokens.weight"]
first = embedding.rows(0, 16)                    # float32, of the shape (16, 2048)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamacpu.arguments import path as check_path
from llamacpu.checkpoints.json_files import read_object
from llamacpu.checkpoints.meta import from_meta, is_meta
from llamacpu.checkpoints.pytorch import MAGIC, read_pytorch
from llamacpu.checkpoints.quantized import unpacked
from llamacpu.checkpoints.safetensors import read_safetensors
from llamacpu.checkpoints.shards import parts_of, shards_of
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["Checkpoint"]


class Checkpoint:
    """The configuration and the tensors of a checkpoint; made by `Checkpoint.open`.

    folder    its location
    config    the content of config.json, or of Meta's params.json in its form; {} if there is neither
    tensors   name to tensor, as the files name them; those of Meta's form under the names of Hugging Face
              Weights in AWQ, GPTQ, FP8, NVFP4 or compressed-tensors are unpacked to float32 when they are read; those
              of MXFP4 (gpt-oss, DeepSeek V4) are the blocks and scales of the files
    metadata  texts that safetensors files carry beside their tensors

    Only headers have been read. Files are opened for each read, so there is nothing to close.
    """

    def __init__(
        self, folder: Path, config: dict[str, Any], tensors: Mapping[str, LazyTensor], metadata: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.config = config
        self.tensors = tensors
        self.metadata = metadata

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Open a folder, or a single file of tensors (its folder then gives config.json and the like).

        Raises CheckpointError if there is no checkpoint, or it is incomplete, damaged or not supported.
        """
        check_path("path", path)
        place = Path(path)
        folder = place if place.is_dir() else place.parent
        shards = shards_of(place)
        metadata: dict[str, str] = {}
        parts = parts_of(next(iter(shards)))
        if parts:
            tables = [_read(file, metadata) for file in parts]
        else:
            tables = [_joined({file: _read(file, metadata) for file in shards}, shards)]
        if is_meta(tables[0]):
            parameters = folder / "params.json"
            if not parameters.is_file():
                raise CheckpointError(f"{folder}: a model in Meta's form without params.json, which gives its sizes")
            config, tensors = from_meta(tables, read_object(parameters))
            return cls(folder, config, tensors, metadata)
        if len(tables) > 1:
            raise CheckpointError(f"{folder}: {len(tables)} parts of a model whose structure is not known")
        given = folder / "config.json"
        config = read_object(given) if given.is_file() else {}
        quantization = _quantization(folder, config, tables[0])
        return cls(folder, config, unpacked(quantization, tables[0]) if quantization else tables[0], metadata)

    def file(self, name: str) -> Path | None:
        """Return the path of a file of the folder (tokenizer.json ...); None if there is no such regular file."""
        path = self.folder / name
        return path if Path(name).name == name and path.is_file() else None

    def json(self, name: str) -> dict[str, Any] | None:
        """Return the object in a JSON file of the folder, None if there is no such file.

        Raises CheckpointError if the file is damaged.
        """
        path = self.file(name)
        return None if path is None else read_object(path)

    def __repr__(self) -> str:
        return f"<Checkpoint {self.folder.name!r}: {len(self.tensors)} tensors>"


def _read(file: Path, metadata: dict[str, str]) -> Mapping[str, LazyTensor]:
    """The tensors of one file; its texts are added to `metadata`."""
    head = Source(file)
    magic = head.read(0, min(head.size, len(MAGIC)))
    # A safetensors file begins with a number, whose bytes may be anything, and then an object.
    is_object = magic[8:9] == b"{"
    if magic == MAGIC or (magic.startswith(b"PK") and not is_object):
        return read_pytorch(file)
    if (magic[:1] == b"\x80" and not is_object) or file.suffix in (".bin", ".pt", ".pth"):
        raise CheckpointError(f"{file.name}: not a file of PyTorch's `torch.save`; it is damaged or of another program")
    tensors, texts = read_safetensors(file)
    metadata.update(texts)
    return tensors


def _quantization(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, LazyTensor]) -> Mapping[str, Any]:
    """What the configuration says of the quantization; older tools wrote it into a file of its own."""
    inner = config.get("text_config")
    for place in (config, inner if isinstance(inner, dict) else {}):
        for key in ("quantization_config", "compression_config"):
            given = place.get(key)
            if isinstance(given, dict):
                return given
            if given is not None:
                raise CheckpointError(f"config.json: {key} is not an object")
    if any(name.endswith(".qweight") for name in tensors):
        for file, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
            if (folder / file).is_file():
                return {"quant_method": method} | read_object(folder / file)
    stated = folder / "hf_quant_config.json"
    if stated.is_file():
        inner = read_object(stated).get("quantization")
        if isinstance(inner, dict) and inner.get("quant_algo"):
            return {"quant_method": "modelopt"} | inner
    signs = (".qweight", ".weight_scale", ".weight_scale_inv", ".weight_packed", ".absmax")
    sign = next((name for name in tensors if name.endswith(signs)), None)
    if sign is not None:
        raise CheckpointError(f"{folder}: the weights are quantized ({sign:.80}), but no config.json says how")
    return {}


def _joined(
    found: Mapping[Path, Mapping[str, LazyTensor]], shards: Mapping[Path, list[str] | None]
) -> dict[str, LazyTensor]:
    """The tensors of all files, in order; those that an index names, if there is one."""
    tensors: dict[str, LazyTensor] = {}
    for file, names in shards.items():
        for name in found[file] if names is None else names:
            if name not in found[file]:
                raise CheckpointError(f"{file.name}: the tensor {name!r:.120}, which the index promises, is not in it")
            if name in tensors:
                raise CheckpointError(
                    f"{file.name}: the tensor {name!r:.120} is in another file of the checkpoint, too"
                )
            tensors[name] = found[file][name]
    return tensors
