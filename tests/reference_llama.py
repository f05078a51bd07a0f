"""Files of the `llama` architecture for the NumPy reference: what their metadata means, read once more."""

from __future__ import annotations

import os
from typing import Any

from reference_functions import silu, softmax
from reference_model import ReferenceModel

__all__ = ["ReferenceLlama", "silu", "softmax"]


class ReferenceLlama(ReferenceModel):
    """One model file; call `logits(tokens)`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path, {})
        width, layers = self.key("embedding_length"), self.key("block_count")
        heads = self._per_layer("attention.head_count")
        key_size = self.key("attention.key_length", width // heads[0])
        self.config = {
            "layers": layers,
            "context_length": self.key("context_length"),
            "norm_epsilon": self.key("attention.layer_norm_rms_epsilon"),
            "feed_forward": self._per_layer("feed_forward_length"),
            "heads": heads,
            "kv_heads": self._per_layer("attention.head_count_kv", heads),
            "key_size": key_size,
            "value_size": self.key("attention.value_length", width // heads[0]),
            "attention_scale": self.key("attention.scale", 0.0),
            "window": [self.key("attention.sliding_window", 0)] * layers,
            "embedding_scale": self.key("embedding_scale", 0.0) or 1.0,
            "residual_scale": self.key("residual_scale", 0.0) or 1.0,
            "logit_scale": 1 / (self.key("logit_scale", 0.0) or 1.0),
            "experts": self.key("expert_count", 0),
            "experts_used": self.key("expert_used_count", 0),
            "expert_gating": {1: "softmax", 2: "sigmoid", 3: "softmax_selected"}[self.key("expert_gating_func", 1)],
            "expert_weights_norm": self.key("expert_weights_norm", True),
            "expert_weights_scale": self.key("expert_weights_scale", 0.0) or 1.0,
            **self._rope(key_size),
        }

    def key(self, name: str, default: Any = None) -> Any:
        """The value of `llama.NAME`."""
        field = self.reader.fields.get(f"llama.{name}")
        return default if field is None else field.contents()

    def _per_layer(self, name: str, default: list[int] | None = None) -> list[int]:
        value = self.key(name, default)
        return list(value) if isinstance(value, list) else [value] * self.key("block_count")

    def _rope(self, key_size: int) -> dict[str, Any]:
        """How queries and keys are rotated."""
        kind = self.key("rope.scaling.type", "linear")
        factor = self.key("rope.scaling.factor", self.key("rope.scale_linear", 1.0)) or 1.0
        extrapolated = self.key("rope.scaling.yarn_ext_factor", 1.0)
        attention = self.key("rope.scaling.attn_factor", 1.0) * self.key("rope.scaling.yarn_attn_factor", 1.0)
        return {
            "rope_size": self.key("rope.dimension_count", key_size),
            "rope_base": self.key("rope.freq_base", 10000.0),
            "rope_scaling": kind,
            "rope_factor": factor,
            "rope_original_context": self.key("rope.scaling.original_context_length", self.key("context_length")),
            "yarn_ext_factor": 1.0 if extrapolated < 0 else extrapolated,
            "yarn_attn_factor": attention,
            "yarn_log_multiplier": self.key("rope.scaling.yarn_log_multiplier", 0.0),
            "yarn_beta_fast": self.key("rope.scaling.yarn_beta_fast", 32.0),
            "yarn_beta_slow": self.key("rope.scaling.yarn_beta_slow", 1.0),
        }
