"""What every family shares: from the tensors of a checkpoint to those of a file, one generator of both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.formats import format_of
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.names import gguf_name
from llamacpu.tools.convert.parameters import set_common
from llamacpu.tools.convert.rope import llama3_factors
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["FOUR_NORMS", "Family", "Named", "permuted", "split_rows"]

Named = Iterator[tuple[str, Array]]
FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm"}
"""What this name means in families whose norms follow attention, too."""

# Tensors of the parts for pictures and sound, which are files of their own, and buffers.
_OTHER_STARTS = (
    "mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder.", "sound_projection.",
    "speech_embeddings.",
)  # fmt: skip
_OTHER_PARTS = (
    "visual.", "vision.", "audio.", "talker.", "vision_", "audio_", "token2wav.", "code2wav.", "projector.",
    "pre_mm_projector_norm", "image_newline", "view_seperator", "patch_embed", "patch_embedding", "patch_merger.",
    "patch_merge_mlp.", "model.connector.",
)  # fmt: skip
_BUFFERS = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")


class Family:
    """How the checkpoints of one architecture become a file.

    Subclasses name the architecture and override what differs: `renamed`, `converted`, `extra`, `set_parameters`,
    `set_vocabulary`.

    architecture  general.architecture
    names         parts of names that mean something else here than elsewhere (see names.py)
    permutes      whether rows of queries and keys are put into the order in which pairs are rotated
    drops         names of tensors that are left out
    reduces_routers  whether the matrices that choose experts have the type of the others
    drafts        whether it is a drafter
    """

    architecture: ClassVar[str] = ""
    names: ClassVar[Mapping[str, str]] = {}
    permutes: ClassVar[bool] = False
    drops: ClassVar[tuple[str, ...]] = ()
    reduces_routers: ClassVar[bool] = False
    drafts: ClassVar[bool] = False

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        self.source = source
        self.config: dict[str, Any] = source.config
        self.folder = folder
        self.file_type = file_type
        self.layers: int = source.layers
        self.keys: Keys = Keys(self.architecture)
        self._gathered: dict[tuple[int, str], dict[str, Array]] = {}

    def tensors(self) -> Named:
        """The tensors of the file, in order.

        Raises CheckpointError for a tensor that has no place in the architecture, and if experts are missing.
        """
        yield from self.extra()
        for name, tensor in self.source.tensors():
            renamed = self.renamed(name)
            if renamed is None or renamed.endswith(_BUFFERS):
                continue
            layer = next((int(part) for part in renamed.split(".") if part.isdecimal()), None)
            for theirs, array in self.converted(renamed, Array.of(tensor), -1 if layer is None else layer):
                ours = gguf_name(theirs, self.names)
                if ours is None:
                    raise CheckpointError(
                        f"the tensor {name!r:.120} has no place in the architecture {self.architecture!r}; "
                        "is config.json that of this checkpoint?"
                    )
                yield ours, array
                yield from _factors(ours, array)
        left = [name for found in self._gathered.values() for name in found]
        if left:
            raise CheckpointError(f"the checkpoint lacks experts: {left[0]!r:.120} and others have no counterpart")

    def renamed(self, name: str) -> str | None:
        """The name of a tensor in the words of the family; None for one that is left out."""
        if name.startswith(_OTHER_STARTS) or any(part in name for part in _OTHER_PARTS) or name in self.drops:
            return None
        if name.endswith("e_score_correction_bias"):
            name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        return name.replace("language_model.", "")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        """What a tensor becomes: names of the checkpoint's kind, or of the file's, and the tensors."""
        if self.permutes and name.endswith(("q_proj.weight", "q_proj.bias")):
            array = permuted(array, self.source.heads, name)
        if self.permutes and name.endswith(("k_proj.weight", "k_proj.bias")):
            array = permuted(array, self.source.key_value_heads, name)
        yield name, array

    def format_of(self, name: str, array: Array, chosen: str) -> str:
        """The format of a tensor in a file whose matrices have the chosen one."""
        return format_of(name, array.shape, chosen, self.reduces_routers)

    def extra(self) -> Named:
        """Tensors that follow from the configuration: the factors of llama 3's rotary position embedding."""
        rope = self.source.global_rope
        if str(rope.get("rope_type", "")).lower() == "llama3":
            yield "rope_freqs.weight", Array.values(llama3_factors(rope, self.source.head_size))

    def set_parameters(self) -> None:
        """Set the keys of the architecture."""
        set_common(self.source, self.keys, self.file_type, self.layers)

    def set_vocabulary(self) -> None:
        """Set the keys of the tokenizer."""
        set_byte_pair(self.folder, self.config, self.keys)

    def adapters(self) -> Iterator[tuple[str, Keys, list[tuple[str, Array]]]]:
        """LoRA adapters that the checkpoint brings along: their names, keys and tensors, once `tensors` has ended."""
        return iter(())

    def stacked_experts(
        self, name: str, array: Array, layer: int, parts: Iterable[str], count: int, merged: str = "mlp.experts"
    ) -> Named:
        """Gather the matrices of a layer's experts; when all are there, one tensor for each part, in this order.

        parts: "down_proj" ...; merged: what precedes the part in the resulting name.
        """
        match = re.search(r"experts\.(\d+)\.(\w+)\.(\w+)$", name)
        if match is None or not 0 <= int(match[1]) < count:
            raise CheckpointError(f"the tensor {name!r:.120} is not one of {count} experts; is config.json sound?")
        found = self._gathered.setdefault((layer, match[3]), {})
        found[f"{int(match[1])}.{match[2]}"] = array
        order = list(parts)
        if len(found) < count * len(order):
            return
        del self._gathered[layer, match[3]]
        for part in order:
            missing = [expert for expert in range(count) if f"{expert}.{part}" not in found]
            if missing:
                raise CheckpointError(f"layer {layer}: expert {missing[0]} has no {part}; the checkpoint is incomplete")
            arrays = [found[f"{expert}.{part}"] for expert in range(count)]
            yield f"model.layers.{layer}.{merged}.{part}.{match[3]}", Array.stacked(arrays, f"layer {layer}, {part}")

    def number_of_experts(self) -> int:
        """The number of experts of a layer."""
        return self.source.integer("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def _factors(name: str, array: Array) -> Named:
    """What NVFP4 weights are multiplied by, and their input where it is rounded to four bits as well."""
    if array.factors:
        for place, ending in enumerate(("scale", "input_scale")):
            numbers = [factors[place] for factors in array.factors]
            yield f"{name.removesuffix('.weight')}.{ending}", Array.values(numbers)


def permuted(array: Array, heads: int, name: str) -> Array:
    """The rows of each head in the order of the pairs that are rotated together: (first, second) halves interleaved."""
    rows = array.shape[0] if array.shape else 0
    if rows == 0 or rows % (2 * heads):
        raise CheckpointError(
            f"the tensor {name!r:.120} has the shape {array.shape}; expected rows for {heads} heads: is config.json "
            "sound?"
        )

    def order(values: NDArray[np.float32]) -> NDArray[np.float32]:
        halves = values.reshape(heads, 2, rows // heads // 2, *values.shape[1:])
        return halves.swapaxes(1, 2).reshape(values.shape)

    return array.whole(array.shape, order)


def split_rows(array: Array, sizes: Mapping[str, int], name: str) -> dict[str, Array]:
    """A tensor cut into named ranges of rows; CheckpointError if the sizes are not those of the tensor."""
    if not array.shape or sum(sizes.values()) != array.shape[0]:
        raise CheckpointError(
            f"the tensor {name!r:.120} has the shape {array.shape}; expected {sum(sizes.values())} rows: is "
            "config.json sound?"
        )
    result, start = {}, 0
    for key, size in sizes.items():
        result[key] = array.rows(start, start + size)
        start += size
    return result
