"""GLM 4, and GLM 4.5 with experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import FOUR_NORMS, Family, Named
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["Glm4", "Glm4Moe"]


class Glm4(Family):
    """GLM 4 (0414)."""

    architecture = "glm4"
    names: ClassVar[Mapping[str, str]] = {"post_self_attn_layernorm": "post_attention_norm"}

    def set_parameters(self) -> None:
        super().set_parameters()
        share = self.source.rope_number("partial_rotary_factor", 0.5)
        self.keys.set("rope.dimension_count", int(self.source.head_size * share))

    def set_vocabulary(self) -> None:
        special = SpecialTokens(self.folder, self.source.root, merges=True)
        ids = {token.text: id for id, token in self.folder.added.items()}
        for kind, text in self.special_texts():
            if text not in ids:
                raise CheckpointError(f"tokenizer.json: the token {text!r} of GLM models is missing")
            special.set(kind, ids[text])
        set_byte_pair(self.folder, self.config, self.keys, special)

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        """The kinds of special tokens and their texts, where the tokenizer does not name them."""
        end = "<|endoftext|>"
        return ("eos", end), ("eot", "<|user|>"), ("unk", end), ("bos", end)


class Glm4Moe(Glm4):
    """GLM 4.5 and 4.6."""

    architecture = "glm4moe"
    names: ClassVar[Mapping[str, str]] = FOUR_NORMS

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        further = self.config.get("num_nextn_predict_layers", 0)
        self.layers: int = source.layers + (further if isinstance(further, int) and 0 <= further < 100 else 0)

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        return ("bos", "[gMASK]"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("eom", "<|observation|>")

    def set_parameters(self) -> None:
        super().set_parameters()
        for key, name in (
            ("expert_count", "n_routed_experts"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_count", "n_shared_experts"),
            ("leading_dense_block_count", "first_k_dense_replace"),
        ):
            if self.config.get(name) is not None:
                self.keys.set(key, self.config[name])
        self.keys.set("expert_gating_func", 2)
        for key, name in (
            ("expert_weights_scale", "routed_scaling_factor"),
            ("expert_weights_norm", "norm_topk_prob"),
            ("nextn_predict_layers", "num_nextn_predict_layers"),
        ):
            if self.config.get(name) is not None:
                self.keys.set(key, self.config[name])

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts" in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.source.integer("n_routed_experts"))
        else:
            yield from super().converted(name, array, layer)
