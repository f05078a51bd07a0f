"""Gemma 4: dense, with experts, and with an input for each layer. The weights of norms are stored as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.gemma import Gemma3
from llamacpu.tools.convert.tokenizers.merged import set_character_pairs

__all__ = ["Gemma4", "Gemma4Assistant", "Gemma4Unified"]

_UNROTATED = 1e30
"""A frequency divided by this is zero: the pairs after the rotated ones of a head with full attention."""
_FULL = "full_attention"


class Gemma4(Gemma3):
    """The text model of Gemma 4."""

    architecture = "gemma4"
    names: ClassVar[Mapping[str, str]] = {
        "post_attention_layernorm": "post_attention_norm", "layer_scalar": "layer_output_scale",
        "router.proj": "ffn_gate_inp", "experts.gate_up_proj": "ffn_gate_up_exps", "experts.down_proj": "ffn_down_exps",
        "pre_feedforward_layernorm_2": "pre_ffw_norm_2", "post_feedforward_layernorm_1": "post_ffw_norm_1",
        "post_feedforward_layernorm_2": "post_ffw_norm_2", "per_layer_input_gate": "inp_gate",
        "per_layer_projection": "proj", "post_per_layer_input_norm": "post_norm",
        "model.embed_tokens_per_layer": "per_layer_token_embd",
        "model.per_layer_model_projection": "per_layer_model_proj",
        "model.per_layer_projection_norm": "per_layer_proj_norm",
    }  # fmt: skip

    def check_scale(self) -> None:
        """Scores are not scaled."""

    @property
    def kinds(self) -> list[str]:
        """For each layer whether it attends to everything or has a window."""
        found = self.config.get("layer_types")
        if found is None:
            found = ["sliding_attention" if (at + 1) % 6 else _FULL for at in range(self.layers)]
        if not isinstance(found, list) or len(found) != self.layers:
            raise CheckpointError(f"config.json: layer_types is {found!r:.60}; expected one for each layer")
        return [*found[:-1], _FULL]

    def _of_full(self, name: str, key: str, default: Any) -> Any:
        """A value of layers with full attention, by its own name or from the configuration for single layers."""
        if self.config.get(name) is not None:
            return self.config[name]
        overrides = self.config.get("per_layer_config")
        kinds = self.kinds
        for layer, values in overrides.items() if isinstance(overrides, dict) else ():
            at = int(layer) if str(layer).isdecimal() else len(kinds)
            if at < len(kinds) and kinds[at] == _FULL and isinstance(values, dict) and key in values:
                return values[key]
        return default

    @property
    def _full_size(self) -> int:
        # Newer configurations list what differs from the other layers; older ones without a size mean 512.
        listed = isinstance(self.config.get("per_layer_config"), dict)
        size = self._of_full("global_head_dim", "head_dim", self.source.integer("head_dim") if listed else 512)
        if isinstance(size, bool) or not isinstance(size, int) or size <= 0:
            raise CheckpointError(f"config.json: global_head_dim is {size!r:.40}; expected a number above 0")
        return size

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config, source = self.keys, self.config, self.source
        shared = config.get("num_kv_shared_layers", 0)
        keys.set("attention.shared_kv_layers", shared)
        keys.set("embedding_length_per_layer_input", config.get("hidden_size_per_layer_input") or 0)
        near = [kind == "sliding_attention" for kind in self.kinds]
        keys.set("attention.sliding_window_pattern", near)
        full, size = self._full_size, source.integer("head_dim")
        keys.set("attention.key_length", full)
        keys.set("attention.value_length", full)
        keys.set("attention.key_length_swa", size)
        keys.set("attention.value_length_swa", size)
        width = source.find("expert_intermediate_size", "moe_intermediate_size")
        if width is not None:
            keys.set("expert_feed_forward_length", width)
        if config.get("use_double_wide_mlp"):
            inner, first = source.integer("intermediate_size"), self.layers - shared
            keys.set("feed_forward_length", [inner * (1 + (at >= first)) for at in range(self.layers)])
        own = config.get("num_global_key_value_heads") if config.get("attention_k_eq_v", True) else None
        heads = own if own is not None else self._of_full("", "num_key_value_heads", None)
        if heads is not None and config.get("num_key_value_heads") is not None:
            local = source.integer("num_key_value_heads")
            keys.set("attention.head_count_kv", [local if is_near else heads for is_near in near])
        keys.set("rope.dimension_count", full)
        keys.set("rope.dimension_count_swa", int(size * source.rope_number("partial_rotary_factor", 1.0)))

    def extra(self) -> Named:
        rope = self.source.rope.get(_FULL)
        if not isinstance(rope, dict) or rope.get("rope_type") != "proportional":
            raise CheckpointError("config.json: rope_parameters of full_attention; expected the type proportional")
        share, size = rope.get("partial_rotary_factor"), self._full_size
        if not isinstance(share, (int, float)) or not 0 <= share <= 1:
            raise CheckpointError(f"config.json: partial_rotary_factor is {share!r:.40}; expected a number up to 1")
        rotated = int(size * share / 2)
        yield "rope_freqs.weight", Array.values([1.0] * rotated + [_UNROTATED] * (size // 2 - rotated))

    def set_vocabulary(self) -> None:
        set_character_pairs(self.folder, self.keys)

    def renamed(self, name: str) -> str | None:
        if name.endswith("layer_scalar") or (".experts." in name and not name.endswith(".weight")):
            name = f"{name}.weight"
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith("router.scale"):
            yield f"blk.{layer}.ffn_gate_inp.scale", array
        elif name.endswith("router.per_expert_scale"):
            yield f"blk.{layer}.ffn_down_exps.scale", array
        else:
            if name.endswith("embed_tokens.weight"):
                array = self.with_tokens(array)
            yield from Family.converted(self, name, array, layer)


class Gemma4Unified(Gemma4):
    """Gemma 4 without encoders for pictures and sound, whose generation must not choose some tokens."""

    def set_parameters(self) -> None:
        super().set_parameters()
        found = (self.source.checkpoint.json("generation_config.json") or {}).get("suppress_tokens")
        if found is not None:
            self.keys.add("tokenizer.ggml.suppress_tokens", found, "int32")


class Gemma4Assistant(Gemma4):
    """The drafter of a Gemma 4, whose layers have no keys and values. The index of its vocabulary is left out."""

    architecture = "gemma4-assistant"
    drafts = True
    names: ClassVar[Mapping[str, str]] = {
        **Gemma4.names, "pre_projection": "nextn.pre_projection", "post_projection": "nextn.post_projection",
    }  # fmt: skip
    drops: ClassVar[tuple[str, ...]] = ("lm_head.weight",)

    def set_parameters(self) -> None:
        self.config.setdefault("num_kv_shared_layers", self.layers)
        super().set_parameters()
        self.keys.set("embedding_length_out", self.source.integer("backbone_hidden_size"))
        self.keys.set("nextn_predict_layers", self.layers)

    def renamed(self, name: str) -> str | None:
        return None if "masked_embedding" in name else super().renamed(name)
