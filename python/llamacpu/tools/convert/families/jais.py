"""Jais 1 and 2."""

from __future__ import annotations

import math

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named

__all__ = ["Jais", "Jais2"]


class Jais(Family):
    """Jais, whose matrices are stored transposed; the scales of embedding and output become part of them."""

    architecture = "jais"

    def tensors(self) -> Named:
        self._check()
        self._bias = 8.0
        yield from super().tensors()
        self.keys.set("attention.max_alibi_bias", self._bias)

    def _check(self) -> None:
        for key, expected in (("activation_function", "swiglu"), ("position_embedding_type", "alibi")):
            if self.config.get(key) != expected:
                raise CheckpointError(
                    f"config.json: {key} is {self.config.get(key)!r:.40}; Jais is only supported with {expected!r}"
                )

    def renamed(self, name: str) -> str | None:
        return None if name.endswith(".attn.bias") else super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith("relative_pe.slopes"):
            # The slope of the first of n heads is 2 ** (-b / n), where n is a power of 2.
            heads = 1 << (self.source.heads.bit_length() - 1)
            first = float(array.read().reshape(-1)[0]) if math.prod(array.shape) else 0.0
            if not 0 < first < 1:
                raise CheckpointError(f"the tensor {name!r:.120} begins with {first}; expected a slope between 0 and 1")
            self._bias = float(-round(math.log2(first) * heads))
            return
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".c_fc2.weight")):
            array = array.transposed()
        if name == "transformer.wte.weight":
            array = _scaled(array, self.source.number("mup_embeddings_scale", "embeddings_scale"))
        elif name == "lm_head.weight":
            if "mup_output_alpha" in self.config:
                scale = self.source.number("mup_output_alpha") * self.source.number("mup_width_scale")
            else:
                scale = self.source.number("width_scale")
            array = _scaled(array, scale)
        yield name, array

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("block_count", self.layers)
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", source.integer("n_embd"))
        keys.set("feed_forward_length", source.integer("n_inner"))
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")


def _scaled(array: Array, scale: float) -> Array:
    return array.each(lambda values: values * np.float32(scale))


class Jais2(Family):
    """Jais 2."""

    architecture = "jais2"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("rope.dimension_count", self.source.head_size)
