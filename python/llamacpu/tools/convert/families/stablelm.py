"""StableLM 2 and StableLM 3B."""

from __future__ import annotations

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named

__all__ = ["StableLm"]


class StableLm(Family):
    """StableLM 2 and StableLM 3B."""

    architecture = "stablelm"

    def set_parameters(self) -> None:
        source, keys, config = self.source, self.keys, self.config
        keys.set("context_length", config.get("max_position_embeddings"))
        keys.set("embedding_length", config.get("hidden_size"))
        keys.set("block_count", self.layers)
        keys.set("feed_forward_length", config.get("intermediate_size"))
        share = source.rope_number("partial_rotary_factor")
        keys.set("rope.dimension_count", int(share * (source.integer("hidden_size") // source.heads)))
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", source.key_value_heads)
        keys.set("use_parallel_residual", config.get("use_parallel_residual", True))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_eps", "norm_eps"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if ".norms." not in name:
            yield name, array
            return
        stem, _, number = name.removesuffix(".weight").partition(".norms.")
        count = self.source.heads if stem.endswith("q_layernorm") else self.source.key_value_heads
        found = self._gathered.setdefault((layer, stem), {})
        found[number] = array
        if len(found) == count:
            del self._gathered[layer, stem]
            if set(found) != {str(head) for head in range(count)}:
                raise CheckpointError(f"the norms {stem!r:.120} of heads are incomplete")
            yield f"{stem}.weight", Array.stacked([found[str(head)] for head in range(count)], stem)
