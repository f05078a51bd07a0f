"""Muse Glimmer's text model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named

__all__ = ["MuseGlimmer"]


class MuseGlimmer(Family):
    """Muse Glimmer: norms are stored less one, and the scale of queries becomes the weight of a norm."""

    architecture = "muse-glimmer"
    permutes = True
    names: ClassVar[Mapping[str, str]] = {
        "post_attention_layernorm": "post_attention_norm",
        "self_attn.gate_proj": "attn_gate",
    }

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, source = self.keys, self.source
        keys.set("final_logit_softcapping", source.number("final_logit_softcapping"))
        keys.set("logit_scale", source.number("output_multiplier"))
        keys.set("attention.sliding_window", source.integer("sliding_window"))
        kinds = self.config.get("layer_types")
        if kinds is None:  # every fourth layer attends to everything, counted from the last
            kinds = ["" if (self.layers - 1 - at) % 4 == 0 else "sliding_attention" for at in range(self.layers)]
        if not isinstance(kinds, list) or len(kinds) != self.layers:
            raise CheckpointError(f"config.json: layer_types is {kinds!r:.60}; expected one for each layer")
        near = [kind == "sliding_attention" for kind in kinds]
        keys.set("attention.sliding_window_pattern", near)
        self._check_rotation(near)

    def _check_rotation(self, near: list[bool]) -> None:
        """A file says nothing of the rotation: layers with a window have the one there is, the others none."""
        bases = self.config.get("layer_rope_theta")
        base = self.source.rope_number("rope_theta", 0.0)
        if bases is not None and bases != [base if local else 0 for local in near]:
            raise CheckpointError(
                f"config.json: layer_rope_theta is {bases!r:.60}; expected {base:g} for layers with a window and 0 for "
                "the others, which is all that a file can express"
            )

    def set_vocabulary(self) -> None:
        super().set_vocabulary()
        ids = {token.text: id for id, token in self.folder.added.items()}
        end = ids.get("<|eot|>", self.folder.model.get("vocab", {}).get("<|eot|>"))
        if end is not None:
            self.keys.add("tokenizer.ggml.eot_token_id", end, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith("layernorm.weight"):
            array = array.each(lambda values: values + 1)
        if name.endswith(".self_attn.q_proj.weight"):
            size = self.source.integer("head_dim")
            scale = self.source.number("qk_scale_factor")
            yield f"blk.{layer}.attn_q_norm.weight", Array.values([scale] * size)
            yield f"blk.{layer}.attn_k_norm.weight", Array.values([1.0] * size)
        yield from super().converted(name, array, layer)
