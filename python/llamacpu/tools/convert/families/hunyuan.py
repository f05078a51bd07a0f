"""Hunyuan, dense and with experts."""

from __future__ import annotations

from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.special import KINDS, SpecialTokens
from llamacpu.tools.convert.tokenizers.tiktoken_files import has_coded_ranks, set_coded_ranks

__all__ = ["Hunyuan", "HunyuanMoe"]

CONTEXT = 256 * 1024
"""What the scaling of the published models is made for, whatever their configurations say."""
_STATED_CONTEXTS = (32 * 1024, CONTEXT)
LARGEST_WIDTH = 4096
"""The width of the dense model of 7 billion parameters, whose vocabulary is an older one."""


class Hunyuan(Family):
    """Hunyuan 0.5B, 1.8B, 4B and 7B."""

    architecture = "hunyuan-dense"
    default_alpha: ClassVar[int] = 50

    def renamed(self, name: str) -> str | None:
        if name == "lm_head.weight" and self.config.get("tie_word_embeddings"):
            return None
        return super().renamed(name)

    def set_parameters(self) -> None:
        experts = self.config.pop("num_experts", None)  # 1 in some configurations, which means none
        super().set_parameters()
        if experts is not None:
            self.config["num_experts"] = experts
        if self.source.rope.get("rope_type") == "dynamic":
            self.set_dynamic_rope(self.source.integer("head_dim"))

    def set_dynamic_rope(self, size: int) -> None:
        """Set the base of the rotation, enlarged by a factor (NTK-aware scaling). size: of a head."""
        keys, rope = self.keys, self.source
        alpha, base = rope.rope_number("alpha", self.default_alpha), rope.rope_number("rope_theta", 10000.0)
        if base != 10000.0 or rope.find("max_position_embeddings") not in _STATED_CONTEXTS or size <= 2:
            stated = rope.find("max_position_embeddings")
            raise CheckpointError(
                f"config.json: dynamic scaling of a rotation with the base {base} for a context of {stated!r:.40} is "
                f"not known; expected 10000 and one of {_STATED_CONTEXTS}"
            )
        keys.set("rope.freq_base", base * (alpha ** (size / (size - 2))))
        keys.set("rope.scaling.type", "none")
        keys.set("rope.scaling.factor", 1)
        keys.set("rope.scaling.original_context_length", CONTEXT)
        keys.set("context_length", CONTEXT)

    def set_vocabulary(self) -> None:
        keys, config, root = self.keys, self.config, self.source.root
        if self.folder.json or not has_coded_ranks(self.folder, "hunyuan"):
            pad = config.get("pad_token_id")
            kinds = [kind for kind in KINDS if kind != "pad"] if isinstance(pad, int) and pad < 0 else KINDS
            set_byte_pair(self.folder, config, keys, SpecialTokens(self.folder, root, merges=True, kinds=kinds))
        else:
            ids = set_coded_ranks(self.folder, config, keys, "hunyuan")
            if config.get("hidden_size") == LARGEST_WIDTH:
                keys.add("tokenizer.ggml.bos_token_id", ids["<|startoftext|>"], "uint32")
        if config.get("eod_token_id") is not None:
            keys.add("tokenizer.ggml.eos_token_id", config["eod_token_id"], "uint32")
        ends = (self.source.checkpoint.json("generation_config.json") or {}).get("eos_token_id")
        if isinstance(ends, list) and len(ends) >= 2:
            keys.add("tokenizer.ggml.eot_token_id", ends[0], "uint32")


class HunyuanMoe(Hunyuan):
    """Hunyuan A13B."""

    architecture = "hunyuan-moe"
    default_alpha: ClassVar[int] = 1000

    def _same(self, key: str) -> int:
        """A number that configurations give once or for each layer."""
        found: Any = self.config.get(key)
        values = found if isinstance(found, list) else [found]
        if not values or any(value != values[0] for value in values):
            raise CheckpointError(f"config.json: {key} is {found!r:.80}; expected the same number for all layers")
        value = values[0]
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise CheckpointError(f"config.json: {key} is {found!r:.60}; expected a number above 0")
        return value

    def set_parameters(self) -> None:
        Family.set_parameters(self)
        self.keys.set("expert_shared_feed_forward_length", self.source.integer("intermediate_size"))
        self.keys.set("expert_feed_forward_length", self._same("moe_intermediate_size"))
        self.keys.set("expert_used_count", self._same("moe_topk"))
        self.keys.set("expert_shared_count", self._same("num_shared_expert"))
        if self.source.rope.get("rope_type") == "dynamic":
            if self.source.rope_number("alpha", self.default_alpha) != self.default_alpha:
                raise CheckpointError("config.json: dynamic scaling with another alpha than 1000 is not known")
            self.set_dynamic_rope(self.source.integer("hidden_size") // self.source.heads)

    def set_vocabulary(self) -> None:
        if self.folder.json or not has_coded_ranks(self.folder, "hunyuan"):
            set_byte_pair(self.folder, self.config, self.keys)
        else:
            ids = set_coded_ranks(self.folder, self.config, self.keys, "hunyuan")
            self.keys.add("tokenizer.ggml.bos_token_id", ids["<|bos|>"], "uint32")  # configurations have another

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts" in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.number_of_experts())
        else:
            yield name, array
