"""What an adapter's conversion must know of the base model: its family and, if there are weights, their shapes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.checkpoints.json_files import read_object
from llamacpu.errors import CheckpointError, GGUFError
from llamacpu.gguf.file import GGUFFile
from llamacpu.tools.convert.families.base import Family
from llamacpu.tools.convert.registry import FAMILIES, family_of
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["Base", "base_of"]

# Key of a GGUF file (below the architecture) to that of config.json.
_SIZES = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.q_lora_rank": "q_lora_rank",
    "expert_count": "num_local_experts",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}


class Base(NamedTuple):
    """The base model of an adapter.

    family  how its checkpoints are converted
    shapes  of the tensors of its GGUF file, rows first; None if only its configuration is known
    tied    whether the output matrix is that of the embeddings
    file    the GGUF file; None for a folder
    """

    family: Family
    shapes: dict[str, tuple[int, ...]] | None
    tied: bool
    file: Path | None


def base_of(path: str | os.PathLike[str]) -> Base:
    """Return the facts of a base model: the folder of its checkpoint (config.json suffices), or its GGUF file.

    Raises CheckpointError if neither is there or the architecture cannot be converted, GGUFError for a damaged file.
    """
    place = Path(path)
    if place.is_dir():
        if not (place / "config.json").is_file():
            raise CheckpointError(f"{place}: there is no config.json in this folder; give that of the base model")
        config = read_object(place / "config.json")
        return Base(_family(place, config), None, config.get("tie_word_embeddings") is True, None)
    if not place.exists():
        raise CheckpointError(f"{place}: there is no such base model; give its folder or its GGUF file")
    try:
        with GGUFFile(place) as file:
            config = _config(file)
            shapes = {tensor.name: tensor.shape[::-1] for tensor in file.tensors}
    except GGUFError as error:
        raise GGUFError(f"the base model cannot be read: {error}") from error
    return Base(_family(place.parent, config), shapes, "output.weight" not in shapes, place)


def _family(folder: Path, config: dict[str, Any]) -> Family:
    checkpoint = Checkpoint(folder, config, {}, {})
    source = Source(checkpoint)
    return family_of(source)(source, TokenizerFolder(checkpoint), 0)


def _config(file: GGUFFile) -> dict[str, Any]:
    """What config.json of the model would say about the rows of its matrices."""
    name = file.metadata.get("general.architecture")
    config: dict[str, Any] = {"architectures": [_class_of(str(name))]}
    for ours, theirs in _SIZES.items():
        value = file.metadata.get(f"{name}.{ours}")
        if isinstance(value, int):
            config[theirs] = value
    if "num_local_experts" in config:
        config |= dict.fromkeys(("num_experts", "n_routed_experts", "moe_num_experts"), config["num_local_experts"])
    return config


def _class_of(architecture: str) -> str:
    """A class of transformers whose checkpoints become files of this architecture."""
    import importlib

    for theirs, ours in FAMILIES.items():
        module, _, kind = ours.partition(".")
        family = getattr(importlib.import_module(f"llamacpu.tools.convert.families.{module}"), kind)
        if family.architecture == architecture:
            return theirs
    raise CheckpointError(
        f"the base model has the architecture {architecture!r:.60}, whose checkpoints are not converted"
    )
