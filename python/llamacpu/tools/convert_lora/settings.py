"""adapter_config.json of PEFT: the scale of each matrix, and what an adapter of GGUF cannot express."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from llamacpu.errors import CheckpointError

__all__ = ["CONFIG", "Settings"]

CONFIG = "adapter_config.json"
# Ways to begin a training that change the weights of the base model: the adapter fits none but that changed model.
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "mica")
_LITERAL = re.compile(r"\^?(?:[\w-]|\\?\.)+\$?")


class Settings:
    """What the configuration of an adapter says.

    alpha       for all matrices, as runtimes use it: they multiply B A by alpha / rank
    invocation  token ids that switch the adapter on (activated LoRA); [] if it is always on

    Raises CheckpointError for other methods than LoRA, and for variants that are more than a scaled product B A.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        kind = config.get("peft_type")
        if kind != "LORA":
            raise CheckpointError(
                f"{CONFIG}: peft_type is {kind!r:.40}; expected 'LORA', the one that GGUF files can hold"
            )
        _refuse_variants(config)
        self._alpha = _number(config, "lora_alpha")
        self._rank = _number(config, "r")
        self._by_root = config.get("use_rslora") is True
        self._alphas, self._ranks = _table(config, "alpha_pattern"), _table(config, "rank_pattern")
        # rsLoRA divides alpha by the root of the rank: alpha · sqrt(r) / r.
        self.alpha: float = self._alpha * (math.sqrt(self._rank) if self._by_root else 1.0)
        tokens = config.get("alora_invocation_tokens") or []
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < 1 << 32 for token in tokens):
            raise CheckpointError(f"{CONFIG}: alora_invocation_tokens is {tokens!r:.60}; expected a list of token ids")
        if config.get("invocation_string") and not tokens:
            raise CheckpointError(
                f"{CONFIG}: the adapter is switched on by a text; add the ids of its tokens as alora_invocation_tokens"
            )
        self.invocation: list[int] = tokens

    def factor(self, module: str, rank: int) -> float:
        """Return what B of a module must be multiplied by, since GGUF has one alpha for all; 1 for most.

        module: its name ("model.layers.0.self_attn.q_proj"). rank: of its A and B.
        """
        alpha = _chosen(self._alphas, module, self._alpha)
        stated = _chosen(self._ranks, module, self._rank)
        if rank != stated:
            raise CheckpointError(f"{module}: the rank is {rank}, but {CONFIG} says {stated:g}")
        return alpha / self._alpha * (math.sqrt(rank) / math.sqrt(self._rank) if self._by_root else 1.0)


def _refuse_variants(config: Mapping[str, Any]) -> None:
    merge = "merge it into its base model with PEFT (merge_and_unload), and convert the result"
    if config.get("use_dora"):
        raise CheckpointError(f"{CONFIG}: this is DoRA, which also scales each row; GGUF has no such adapters: {merge}")
    for key, what in (
        ("lora_bias", "has a bias beside B"),
        ("layer_replication", "repeats layers of its base model"),
        ("target_parameters", "changes parameters that are not matrices of a layer"),
        ("trainable_token_indices", "replaces rows of the embeddings"),
        ("use_qalora", "is QA-LoRA"),
        ("arrow_config", "chooses among others for each token"),
    ):
        if config.get(key):
            raise CheckpointError(f"{CONFIG}: the adapter {what} ({key}), which GGUF cannot express: {merge}")
    if config.get("bias") not in (None, "none"):
        raise CheckpointError(f"{CONFIG}: the adapter has trained biases (bias: {config['bias']!r:.40}): {merge}")
    begin = config.get("init_lora_weights")
    if isinstance(begin, str) and begin.lower().startswith(_CHANGED_BASES):
        raise CheckpointError(
            f"{CONFIG}: the training began with {begin!r:.40}, which changes the base model; save the adapter again "
            "with path_initial_model_for_weight_conversion, or merge it"
        )


def _number(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
        raise CheckpointError(f"{CONFIG}: {key} is {value!r:.40}; expected a positive number")
    return float(value)


def _table(config: Mapping[str, Any], key: str) -> dict[str, float]:
    """Patterns of names to numbers. PEFT's are regular expressions; names and their ends are what is used of them."""
    table = config.get(key) or {}
    if not isinstance(table, dict):
        raise CheckpointError(f"{CONFIG}: {key} is not a table")
    for pattern in table:
        if not _LITERAL.fullmatch(pattern):
            raise CheckpointError(
                f"{CONFIG}: the pattern {pattern!r:.80} in {key} is more than the name of modules; write the names out"
            )
    return {pattern.replace("\\.", "."): _number(table, pattern) for pattern in table}


def _chosen(table: Mapping[str, float], module: str, otherwise: float) -> float:
    for pattern, value in table.items():
        name = pattern.removeprefix("^").removesuffix("$")
        if module == name or (not pattern.startswith("^") and module.endswith(f".{name}")):
            return value
    return otherwise
