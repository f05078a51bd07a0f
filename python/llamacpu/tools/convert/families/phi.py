"""Phi 2, 3 and 4."""

from __future__ import annotations

import math

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.rope import long_factors
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import has_pieces, is_merged_pieces, set_merged_pieces, set_pieces

__all__ = ["Phi2", "Phi3"]


class Phi2(Family):
    """Phi 1, 1.5 and 2."""

    architecture = "phi2"

    def set_parameters(self) -> None:
        source, keys = self.source, self.keys
        width, heads = source.integer("hidden_size", "n_embd"), source.heads
        keys.set("context_length", source.integer("n_positions", "max_position_embeddings"))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", heads)
        keys.set("attention.head_count_kv", heads)
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon", "layer_norm_eps"))
        keys.set("rope.dimension_count", int(source.rope_number("partial_rotary_factor") * width) // heads)
        keys.add("general.file_type", self.file_type, "uint32")
        keys.add("tokenizer.ggml.add_bos_token", False, "bool")


class Phi3(Family):
    """Phi 3, 3.5 and 4."""

    architecture = "phi3"

    def set_parameters(self) -> None:
        source, keys = self.source, self.keys
        keys.set("context_length", source.integer("n_positions", "max_position_embeddings"))
        keys.set("rope.scaling.original_context_length", self._original)
        keys.set("embedding_length", source.integer("hidden_size", "n_embd"))
        keys.set("feed_forward_length", source.integer("intermediate_size"))
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", source.key_value_heads)
        keys.set("attention.layer_norm_rms_epsilon", source.number("rms_norm_eps"))
        keys.set("rope.dimension_count", self._rotated)
        keys.set("rope.freq_base", source.global_rope.get("rope_theta"))
        keys.add("general.file_type", self.file_type, "uint32")
        window = self.config.get("sliding_window")
        keys.set("attention.sliding_window", 0 if window is None else window)  # 0 tells Phi 4 from Phi 3

    @property
    def _original(self) -> int:
        return int(self.source.rope_number("original_max_position_embeddings"))

    @property
    def _rotated(self) -> int:
        share = self.source.rope_number("partial_rotary_factor", 1.0)
        return int(share * self.source.integer("hidden_size", "n_embd")) // self.source.heads

    def extra(self) -> Named:
        rope = self.source.rope
        factors = long_factors(rope, self._rotated)
        if factors is None:
            return
        scale = self.source.integer("n_positions", "max_position_embeddings") / self._original
        kind = str(rope.get("rope_type", "")).lower()
        if kind in ("su", "longrope"):
            scaled = math.sqrt(1 + math.log(scale) / math.log(self._original)) if scale > 1.0 else 1.0
        elif kind == "yarn":
            scaled = 0.1 * math.log(scale) + 1.0 if scale > 1.0 else 1.0
        else:
            raise CheckpointError(f"config.json: the rope type {kind!r:.40} has no factors; expected longrope or yarn")
        self.keys.set("rope.scaling.attn_factor", scaled)
        yield "rope_factors_long.weight", Array.values(factors[0])
        yield "rope_factors_short.weight", Array.values(factors[1])

    def set_vocabulary(self) -> None:
        if self.folder.config.get("tokenizer_class") == "GPT2Tokenizer":
            set_byte_pair(self.folder, self.config, self.keys)
        elif has_pieces(self.folder):
            set_pieces(self.folder, self.config, self.keys, spaces=False, listed=True)
        elif is_merged_pieces(self.folder):
            set_merged_pieces(self.folder, self.config, self.keys)
        else:
            set_byte_pair(self.folder, self.config, self.keys)
