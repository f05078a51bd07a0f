"""OLMo 1 to 3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.tools.convert.families.base import FOUR_NORMS, Family

__all__ = ["Olmo", "Olmo2"]


class Olmo(Family):
    """OLMo 1."""

    architecture = "olmo"
    permutes = True

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("attention.layer_norm_epsilon", 1e-5)
        if self.config.get("clip_qkv") is not None:
            self.keys.set("attention.clamp_kqv", self.config["clip_qkv"])


class Olmo2(Family):
    """OLMo 2 and 3: norms follow the blocks."""

    architecture = "olmo2"
    names: ClassVar[Mapping[str, str]] = FOUR_NORMS

    def set_parameters(self) -> None:
        super().set_parameters()
        if "sliding_window" in self.config:
            self.keys.set("attention.sliding_window", self.config["sliding_window"])
            kinds = self.config.get("layer_types")
            windows = (
                [kind == "sliding_attention" for kind in kinds]
                if isinstance(kinds, list)
                else [(layer + 1) % 4 != 0 for layer in range(self.layers)]
            )
            self.keys.set("attention.sliding_window_pattern", windows)
