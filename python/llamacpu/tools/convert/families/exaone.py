"""EXAONE 3 and 4, and K-EXAONE, which has experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import FOUR_NORMS, Family, Named
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["Exaone", "Exaone4", "ExaoneMoe"]


MAX_PREDICTORS = 100


class Exaone(Family):
    """EXAONE 3 and 3.5."""

    architecture = "exaone"

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.config.get("activation_function", "silu") != "silu":
            raise CheckpointError(
                f"config.json: activation_function is {self.config['activation_function']!r:.40}; expected silu"
            )
        share = self.source.rope_number("partial_rotary_factor", 1.0)
        self.keys.set("rope.dimension_count", int(share * (self.source.integer("hidden_size") // self.source.heads)))


class Exaone4(Family):
    """EXAONE 4."""

    architecture = "exaone4"
    names: ClassVar[Mapping[str, str]] = FOUR_NORMS

    def set_parameters(self) -> None:
        super().set_parameters()
        config = self.config
        self.keys.set("vocab_size", config.get("vocab_size"))
        if config.get("sliding_window") is None:
            return
        self.keys.set("attention.sliding_window", config["sliding_window"])
        kinds, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
        if isinstance(kinds, list):
            self.keys.set("attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])
        elif isinstance(pattern, str) and pattern:
            windows = [pattern[layer % len(pattern)] == "L" for layer in range(self.layers)]
            self.keys.set("attention.sliding_window_pattern", windows)
        elif isinstance(pattern, int) and pattern > 0:
            windows = [(layer + 1) % pattern != 0 for layer in range(self.layers)]
            self.keys.set("attention.sliding_window_pattern", windows)


class ExaoneMoe(Exaone4):
    """K-EXAONE: EXAONE 4's attention with norms before the blocks, experts, layers that predict further tokens."""

    architecture = "exaone-moe"
    names: ClassVar[Mapping[str, str]] = {}

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        further = self.config.get("num_nextn_predict_layers", 0)
        if not isinstance(further, int) or not 0 <= further <= MAX_PREDICTORS:
            raise CheckpointError(
                f"config.json: num_nextn_predict_layers is {further!r:.40}; expected a number up to {MAX_PREDICTORS}"
            )
        self._further = further
        self.layers: int = source.layers + further

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config, source = self.keys, self.config, self.source
        width, shared = source.integer("moe_intermediate_size"), source.integer("num_shared_experts")
        keys.set("expert_feed_forward_length", width)
        keys.set("expert_shared_count", shared)
        keys.set("expert_shared_feed_forward_length", width * shared)
        keys.set("expert_weights_scale", source.number("routed_scaling_factor"))
        keys.set("expert_weights_norm", config.get("norm_topk_prob"))
        dense = source.find("first_k_dense_replace", "first_last_k_dense_replace")
        keys.set("leading_dense_block_count", 0 if dense is None else dense)
        keys.set("nextn_predict_layers", self._further)
        keys.set("rope.scaling.type", "none")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.startswith("mtp.") and "layers." not in name:
            stem, _, suffix = name.removeprefix("mtp.").rpartition(".")
            part = {
                "fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm",
                "norm": "shared_head.norm",
            }.get(stem)  # fmt: skip
            if part is None:
                yield name, array
                return
            for further in range(self.source.layers, self.layers):
                yield f"model.layers.{further}.{part}.{suffix}", array
            return
        if name.startswith("mtp."):
            place = layer + self.source.layers
            name, layer = name.replace(f"mtp.layers.{layer}.", f"model.layers.{place}."), place
        if "mlp.experts" in name:
            yield from self.stacked_experts(
                name, array, layer, ("down_proj", "gate_proj", "up_proj"), self.number_of_experts()
            )
        else:
            yield from super().converted(name, array, layer)
