"""Deci and Nemotron NAS: each layer has its own numbers of heads and width, or no attention at all."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named, permuted
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import is_merged_pieces, set_merged_pieces

__all__ = ["Deci"]

_MULTIPLE = 256


class Deci(Family):
    """DeciLM 7B and Llama Nemotron Super and Ultra."""

    architecture = "deci"

    def set_parameters(self) -> None:
        keys, config = self.keys, self.config
        blocks = config.get("block_configs")
        if isinstance(blocks, list):
            if len(blocks) != self.layers:
                raise CheckpointError(f"config.json: {len(blocks)} block_configs for {self.layers} layers")
            if self.source.rope.get("rope_theta") is not None:
                keys.set("rope.freq_base", self.source.rope["rope_theta"])
            keys.set("attention.head_count_kv", [self._heads(block)[1] for block in blocks])
            keys.set("attention.head_count", [self._heads(block)[0] for block in blocks])
            keys.set("feed_forward_length", [self._width(block) for block in blocks])
            keys.set("block_count", self.layers)
            keys.set("context_length", config.get("max_position_embeddings"))
            keys.set("embedding_length", config.get("hidden_size"))
            keys.set("attention.layer_norm_rms_epsilon", config.get("rms_norm_eps"))
            size = self.source.integer("hidden_size") // self.source.heads
            keys.set("attention.key_length", size)
            keys.set("attention.value_length", size)
            keys.add("general.file_type", self.file_type, "uint32")
        else:
            super().set_parameters()
            if isinstance(config.get("num_key_value_heads_per_layer"), list):
                keys.set("attention.head_count_kv", config["num_key_value_heads_per_layer"])
        keys.set("vocab_size", config.get("vocab_size"))
        keys.set("rope.dimension_count", self.source.head_size)

    def set_vocabulary(self) -> None:
        if is_merged_pieces(self.folder):
            set_merged_pieces(self.folder, self.config, self.keys)
        else:
            set_byte_pair(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(("q_proj.weight", "q_proj.bias")):
            array = permuted(array, self.source.heads, name)
        if name.endswith(("k_proj.weight", "k_proj.bias")):
            array = permuted(array, self._key_heads(layer), name)
        yield name, array

    def _key_heads(self, layer: int) -> int:
        blocks, per_layer = self.config.get("block_configs"), self.config.get("num_key_value_heads_per_layer")
        found: Any = None
        if isinstance(per_layer, list) and layer < len(per_layer):
            found = per_layer[layer]
        elif isinstance(blocks, list) and layer < len(blocks):
            found = self._heads(blocks[layer])[1]
        else:
            return self.source.key_value_heads
        if not isinstance(found, int) or found <= 0:
            raise CheckpointError(
                f"config.json: layer {layer} has {found!r:.30} heads of keys, but the checkpoint has keys"
            )
        return found

    def _heads(self, block: Any) -> tuple[int, int]:
        """The numbers of heads of queries and of keys."""
        attention = block.get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            raise CheckpointError("config.json: an entry of block_configs has no `attention`")
        group = attention.get("n_heads_in_group")
        if group is None:
            return (self.source.heads if attention.get("replace_with_linear") is True else 0), 0
        if not isinstance(group, int) or group <= 0:
            raise CheckpointError(f"config.json: n_heads_in_group is {group!r:.30}; expected a number or null")
        return self.source.heads, self.source.heads // group

    def _width(self, block: Any) -> int:
        feed_forward = block.get("ffn") if isinstance(block, dict) else None
        factor = feed_forward.get("ffn_mult") if isinstance(feed_forward, dict) else None
        width = int(2 * (factor or 0.0) * self.source.integer("hidden_size") / 3)
        return -(-width // _MULTIPLE) * _MULTIPLE
