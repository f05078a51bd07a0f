"""The model that a drafter was made for, which gives the drafter's file a tokenizer: a checkpoint or a GGUF file."""

from __future__ import annotations

import itertools
from pathlib import Path

from llamacpu.checkpoints.checkpoint import Checkpoint
from llamacpu.checkpoints.json_files import read_object
from llamacpu.errors import CheckpointError, GGUFError, ModelError
from llamacpu.families.drafters import is_drafter
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.metadata import StringArray
from llamacpu.gguf.values import Typed, typed_metadata
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.registry import family_of
from llamacpu.tools.convert.source import Source, Target
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["target_at"]

_TOKENS, _TOKENIZER = "tokenizer.ggml.tokens", "tokenizer."
_IN_THE_WAY = "expected the model that the drafter was made for (target_model, --target-model)"


def target_at(path: Path) -> Target:
    """The facts of the model in a folder, of which config.json and the tokenizer suffice, or in a GGUF file.

    Raises CheckpointError for what is neither or no model that can be converted, GGUFError for a damaged file.
    """
    return _of_folder(path) if path.is_dir() else _of_file(path)


def _of_folder(folder: Path) -> Target:
    given = folder / "config.json"
    if not given.is_file():
        raise CheckpointError(f"{folder}: there is no config.json in this folder; {_IN_THE_WAY}")
    checkpoint = Checkpoint(folder, read_object(given), {}, {})
    try:
        source = Source(checkpoint)
        source.check_vocabulary()
        made = family_of(source)
        if made.drafts:
            raise CheckpointError(f"config.json: {source.architecture!r:.80} is a drafter itself; {_IN_THE_WAY}")
        tokenizer = TokenizerFolder(checkpoint)
        family = made(source, tokenizer, 0)
        layers, width = source.layers, source.integer("hidden_size", "n_embd", "dim", "d_model", "model_dim")
        vocabulary = source.integer("vocab_size", "padded_vocab_size")
    except CheckpointError as error:
        raise CheckpointError(f"the target model in {folder}: {error}") from None

    def set_vocabulary(keys: Keys) -> None:
        family.keys = keys
        try:
            family.set_vocabulary()
        except CheckpointError as error:
            raise CheckpointError(f"the target model in {folder}: {error}") from None

    prefix = tokenizer.config.get("add_prefix_space")
    return Target(str(folder), layers, width, vocabulary, "mrope_section" in source.rope, prefix, set_vocabulary)


def _of_file(path: Path) -> Target:
    try:
        with GGUFFile(path) as file:
            if is_drafter(file):
                raise CheckpointError(f"{path}: the file is a drafter itself; {_IN_THE_WAY}")
            metadata = file.metadata
            name = metadata.text("general.architecture")
            further = metadata.integer(f"{name}.nextn_predict_layers", 0, minimum=0)
            layers = metadata.integer(f"{name}.block_count", minimum=1) - further
            width = metadata.integer(f"{name}.embedding_length", minimum=1)
            vocabulary = len(metadata.strings(_TOKENS))
            sections = f"{name}.rope.dimension_sections" in metadata
            values = {
                key: _held(value) for key, value in typed_metadata(metadata).items() if key.startswith(_TOKENIZER)
            }
    except GGUFError as error:
        raise GGUFError(f"the target model cannot be read: {error}") from error
    except ModelError as error:
        raise CheckpointError(f"the target model {path}: {error}") from None

    def set_vocabulary(keys: Keys) -> None:
        keys.values.update(values)

    return Target(str(path), layers, width, vocabulary, sections, None, set_vocabulary)


def _held(value: Typed) -> Typed:
    """The value, independent of its file."""
    array = value.value
    if not isinstance(array, StringArray):
        return value
    data, bounds = array.data(), (array.offsets - array.offsets[0]).tolist()
    return Typed([data[start + 8 : end] for start, end in itertools.pairwise(bounds)], "string")
