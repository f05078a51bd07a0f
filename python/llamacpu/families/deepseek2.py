"""DeepSeek V2, V3 and R1 (arXiv:2405.04434, arXiv:2412.19437): latent attention, experts in groups; GLM 4.7 Flash."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.latent import latent
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek2"]


def deepseek2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture.

    Files of GLM 4.7 Flash do not say how experts are scored. What tells them from those of V2, which do not either, is
    the bias by which experts are chosen.
    """
    fields = latent(file, name)
    chosen = any(parts.has(file, f"blk.{layer}.exp_probs_b.bias") for layer in range(fields["layers"]))
    if chosen and f"{name}.expert_gating_func" not in file.metadata:
        fields["expert_gating"] = "sigmoid"
        if "expert_groups" in fields:
            fields["expert_group_score"] = "two_best"
    return Config(**fields)
