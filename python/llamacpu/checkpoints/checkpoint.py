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
from llamacpu.checkpoints.safetensors import read_safetensors
from llamacpu.checkpoints.shards import shards_of
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["Checkpoint"]


class Checkpoint:
    """The configuration and the tensors of a checkpoint; made by `Checkpoint.open`.

    folder    where it lies
    config    the content of config.json; {} if there is none
    tensors   name to tensor, as the files name them
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
        tensors: dict[str, LazyTensor] = {}
        metadata: dict[str, str] = {}
        for file, names in shards.items():
            found, texts = read_safetensors(file)
            metadata.update(texts)
            missing = [name for name in names or () if name not in found]
            if missing:
                raise CheckpointError(
                    f"{file.name}: the tensor {missing[0]!r:.120}, which the index promises, is not in it"
                )
            for name in found if names is None else names:
                if name in tensors:
                    raise CheckpointError(
                        f"{file.name}: the tensor {name!r:.120} is in another file of the checkpoint, too"
                    )
                tensors[name] = found[name]
        config = folder / "config.json"
        return cls(folder, read_object(config) if config.is_file() else {}, tensors, metadata)

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
