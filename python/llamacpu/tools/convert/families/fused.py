"""Families whose queries, keys and values, or gates and ups, are one matrix: they are rearranged or taken apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named, permuted, split_rows
from llamacpu.tools.convert.tokenizers.pieces import piece_model, piece_vocabulary, set_any_pieces, write_pieces
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["Ernie", "ErnieMoe", "Falcon", "Gpt2", "InternLm2"]


class Ernie(Family):
    """ERNIE 4.5."""

    architecture = "ernie4_5"

    def renamed(self, name: str) -> str | None:
        return super().renamed(name.replace("ernie.", "model."))

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
        prefix = self.folder.config.get("add_prefix_space")
        if prefix is not None:
            self.keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        heads, key_heads, size = self.source.heads, self.source.key_value_heads, self.source.head_size
        if "qkv_proj" in name:
            sizes = {"q_proj": heads * size, "k_proj": key_heads * size, "v_proj": key_heads * size}
            for part, rows in split_rows(array, sizes, name).items():
                yield name.replace("qkv_proj", part), rows
        elif "up_gate_proj" in name:
            half = array.shape[0] // 2
            for part, rows in split_rows(array, {"gate_proj": half, "up_proj": half}, name).items():
                yield name.replace("up_gate_proj", part), rows
        else:
            yield name, array


class ErnieMoe(Ernie):
    """ERNIE 4.5 with experts."""

    architecture = "ernie4_5-moe"

    def set_parameters(self) -> None:
        super().set_parameters()
        config, keys = self.config, self.keys
        keys.set("expert_count", config.get("moe_num_experts"))
        keys.set("expert_used_count", config.get("moe_k"))
        keys.set("interleave_moe_layer_step", config.get("moe_layer_interval"))
        keys.set("leading_dense_block_count", config.get("moe_layer_start_index"))
        if config.get("moe_intermediate_size") is not None:
            keys.set("expert_feed_forward_length", config["moe_intermediate_size"])
        shared = config.get("moe_num_shared_experts")
        if shared is not None:
            keys.set("expert_shared_count", shared)
            if shared > 0:
                length = self.source.integer("intermediate_size") // self.source.key_value_heads
                keys.set("expert_shared_feed_forward_length", length)

    def renamed(self, name: str) -> str | None:
        if name.startswith(("model.mtp_", "ernie.mtp_")):
            return None
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts" in name:
            parts = ("gate_proj", "up_proj", "down_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.source.integer("moe_num_experts"))
        else:
            yield name, array


class InternLm2(Family):
    """InternLM 2 and 2.5."""

    architecture = "internlm2"

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if ".attention.wqkv" not in name:
            yield name, array
            return
        heads, groups, width = self.source.heads, self.source.key_value_heads, array.shape[-1]
        each, size = heads // groups, self.source.integer("hidden_size") // heads
        if array.shape != (groups * (each + 2) * size, width):
            raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")
        grouped = (groups, each + 2, size, width)

        def part(start: int, stop: int) -> Array:
            shape = (groups * (stop - start) * size, width)
            return array.whole(shape, lambda a: a.reshape(grouped)[:, start:stop].reshape(shape))

        yield f"blk.{layer}.attn_q.weight", permuted(part(0, each), heads, name)
        yield f"blk.{layer}.attn_k.weight", permuted(part(each, each + 1), groups, name)
        yield f"blk.{layer}.attn_v.weight", part(each + 1, each + 2)

    def set_vocabulary(self) -> None:
        vocabulary = piece_vocabulary(self.folder, self.config.get("vocab_size"), spaces=False, listed=True)
        for id, token in enumerate(vocabulary.tokens):
            if token == b"\x00":  # the end of a text in C
                vocabulary.tokens[id] = "\U0001f409".encode()
            if token.startswith(b"[UNUSED"):
                vocabulary.types[id] = 5
        write_pieces(vocabulary, self.keys)
        prefix = piece_model(self.folder).add_dummy_prefix
        self.keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")
        special = SpecialTokens(self.folder, self.source.root, size=len(vocabulary.tokens))
        end = next((id for id, token in self.folder.added.items() if token.text == "<|im_end|>"), None)
        if end is not None:
            special.ids["eos"] = end  # where a turn of a chat ends
        special.write(self.keys)


class Falcon(Family):
    """Falcon 7B and 40B."""

    architecture = "falcon"
    names: ClassVar[Mapping[str, str]] = {
        "input_layernorm": "attn_norm",
        "ln_mlp": "attn_norm",
        "ln_attn": "attn_norm_2",
    }

    @property
    def _key_heads(self) -> int:
        if self.config.get("multi_query") and not self.config.get("new_decoder_architecture"):
            return 1  # whatever num_kv_heads says
        value = self.source.find("num_kv_heads", "n_head_kv")
        return value if isinstance(value, int) and value > 0 else 1

    def set_parameters(self) -> None:
        keys, width = self.keys, self.source.integer("hidden_size")
        keys.set("context_length", 2048)  # no configuration says it
        keys.set("tensor_data_layout", "jploski")
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", self.source.heads)
        keys.set("attention.head_count_kv", self._key_heads)
        keys.set("attention.layer_norm_epsilon", self.source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "query_key_value" in name:
            heads, groups, width = self.source.heads, self._key_heads, self.source.integer("hidden_size")
            size, each = width // heads, heads // groups
            if array.shape != ((heads + 2 * groups) * size, width):
                raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")

            def sorted_rows(values: Floats) -> Floats:
                grouped = values.reshape(groups, each + 2, size, width)
                parts = (grouped[:, :-2], grouped[:, -2:-1], grouped[:, -1:])
                return np.concatenate([part.reshape(-1, width) for part in parts])

            array = array.whole(array.shape, sorted_rows)
        yield name, array


class Gpt2(Family):
    """GPT-2, whose matrices are stored transposed."""

    architecture = "gpt2"

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        width = source.integer("n_embd")
        keys.set("block_count", self.layers)
        keys.set("context_length", source.integer("n_ctx", "n_positions"))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")

    def renamed(self, name: str) -> str | None:
        return None if name.endswith((".attn.bias", ".attn.masked_bias")) else super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        turned = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
        yield name, array.transposed() if turned else array
