"""Llama 3.2 Vision: text and vision in one file, in the layout of Ollama; llama.cpp has no such architecture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Named
from llamacpu.tools.convert.families.llama import Llama
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair

__all__ = ["Mllama"]

_VISION = "vision_model."
_LAYER = re.compile(r"vision_model\.(global_)?transformer\.layers\.(\d+)\.(.+)")
_WHOLE = {
    "class_embedding": "v.class_embd",
    "patch_embedding.weight": "v.patch_embd.weight",
    "gated_positional_embedding.embedding": "v.position_embd.weight",
    "gated_positional_embedding.tile_embedding.weight": "v.tile_position_embd.weight",
    "pre_tile_positional_embedding.embedding.weight": "v.pre_tile_position_embd.weight",
    "post_tile_positional_embedding.embedding.weight": "v.post_tile_position_embd.weight",
    "layernorm_pre.weight": "v.pre_ln.weight",
    "layernorm_pre.bias": "v.pre_ln.bias",
    "layernorm_post.weight": "v.post_ln.weight",
    "layernorm_post.bias": "v.post_ln.bias",
}
_GATES = {
    "pre_tile_positional_embedding.gate": "v.pre_tile_position_embd.gate",
    "post_tile_positional_embedding.gate": "v.post_tile_position_embd.gate",
}
_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_SIZES = {
    "block_count": "num_hidden_layers", "global.block_count": "num_global_layers", "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size", "image_size": "image_size", "patch_size": "patch_size",
    "max_num_tiles": "max_num_tiles", "num_channels": "num_channels",
}  # fmt: skip
_VISION_DEFAULTS: dict[str, Any] = {
    "num_hidden_layers": 32, "num_global_layers": 8, "hidden_size": 1280, "intermediate_size": 5120, "image_size": 448,
    "patch_size": 14, "max_num_tiles": 4, "num_channels": 3, "attention_heads": 16, "norm_eps": 1e-5,
    "intermediate_layers_indices": [3, 7, 15, 23, 30],
}  # fmt: skip


class Mllama(Llama):
    """Llama 3.2 Vision, 11B and 90B."""

    architecture = "mllama"
    names: ClassVar[Mapping[str, str]] = {
        f"cross_attn.{part}": f"cross_attn_{part}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    }  # fmt: skip

    def renamed(self, name: str) -> str | None:
        name = name.removeprefix("model.").replace("language_model.", "")
        if name.startswith((_VISION, "multi_modal_projector.")):
            return name
        name = name if name.startswith(("model.", "lm_head.")) else f"model.{name}"
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.startswith("multi_modal_projector."):
            yield name.replace("multi_modal_projector", "mm.0"), array
        elif name.startswith(_VISION):
            yield from self._vision(name, array)
        elif ".cross_attn_" in name:
            yield f"blk.{layer}.{name.rpartition('.')[2]}", array  # gates
        elif ".cross_attn." in name:
            yield name, array
        else:
            yield from super().converted(name, array, layer)

    def _vision(self, name: str, array: Array) -> Named:
        match, stem = _LAYER.fullmatch(name), name.removeprefix(_VISION)
        if match:
            block = f"v.global.blk.{match[2]}" if match[1] else f"v.blk.{match[2]}"
            if match[3] in ("gate_attn", "gate_ffn"):
                yield f"{block}.{match[3][5:]}_gate", array.each(np.tanh)
                return
            part, _, suffix = match[3].rpartition(".")
            if part in _PARTS:
                yield f"{block}.{_PARTS[part]}.{suffix}", array
                return
        elif stem == "gated_positional_embedding.gate":
            yield "v.position_embd.gate", array.each(lambda gate: np.float32(1) - np.tanh(gate))
            yield "v.tile_position_embd.gate", array.each(np.tanh)
            return
        elif stem in _GATES:
            yield _GATES[stem], array.each(np.tanh)
            return
        elif stem in _WHOLE:
            yield _WHOLE[stem], array
            return
        yield name, array

    def set_parameters(self) -> None:
        super().set_parameters()
        found = self.source.root.get("vision_config")
        vision = {**_VISION_DEFAULTS, **(found if isinstance(found, dict) else {})}
        keys = self.keys
        for key, name in _SIZES.items():
            keys.set(f"vision.{key}", vision[name])
        keys.set("vision.attention.head_count", vision["attention_heads"])
        keys.add("mllama.vision.attention.layer_norm_epsilon", vision["norm_eps"], "float32")
        crossing = self.config.get("cross_attention_layers") or list(range(3, 40, 5))
        for key, layers in (
            ("attention.cross_attention_layers", crossing),
            ("vision.intermediate_layers_indices", vision["intermediate_layers_indices"]),
        ):
            if not isinstance(layers, list) or not layers:
                raise CheckpointError(
                    f"config.json: the layers of {key} are {layers!r:.60}; expected a list of numbers"
                )
            keys.add(f"mllama.{key}", layers, "int32")

    def set_vocabulary(self) -> None:
        # The token for an image has an embedding and no row of the output.
        size = self.source.integer("vocab_size") + 1
        set_byte_pair(self.folder, {**self.config, "vocab_size": size}, self.keys)
