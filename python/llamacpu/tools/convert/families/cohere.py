"""Command R, Command R7B and Command A."""

from __future__ import annotations

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named

__all__ = ["Cohere2", "CommandR"]


class CommandR(Family):
    """Command R and Aya 23."""

    architecture = "command-r"

    def set_parameters(self) -> None:
        # The context of published models is in model_max_length.
        if "model_max_length" in self.config:
            self.config["max_position_embeddings"] = self.config["model_max_length"]
        super().set_parameters()
        self.keys.set("logit_scale", self.config.get("logit_scale"))
        self.keys.set("rope.scaling.type", "none")


class Cohere2(Family):
    """Command R7B and Command A."""

    architecture = "cohere2"

    def set_parameters(self) -> None:
        super().set_parameters()
        source = self.source
        self.keys.set("logit_scale", self.config.get("logit_scale"))
        self.keys.set("attention.sliding_window", self.config.get("sliding_window"))
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        share = source.number("rotary_pct") if "rotary_pct" in self.config else 1.0
        self.keys.set("rope.dimension_count", int(share * (source.integer("hidden_size") // source.heads)))
        self.keys.set("rope.scaling.type", "none")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".bias"):
            if array.read().any():
                raise CheckpointError(f"the tensor {name!r:.120} is not zero; the architecture has no biases")
            return
        yield from super().converted(name, array, layer)
