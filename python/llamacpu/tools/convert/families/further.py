"""Families with forms of their own: Baichuan, CodeShell, Jais, OpenELM, Pangu, PLaMo, the first Qwen, Refact."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named, permuted, split_rows
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces
from llamacpu.tools.convert.tokenizers.special import SpecialTokens
from llamacpu.tools.convert.tokenizers.tiktoken_files import set_coded_ranks

__all__ = ["Baichuan", "CodeShell", "Jais", "Jais2", "OpenElm", "Pangu", "Plamo", "Qwen", "Refact"]

BAICHUAN_2_SIZE = 125696
_MULTIPLE = 256


class Baichuan(Family):
    """Baichuan 1 and 2.

    The output matrix of Baichuan 2 is divided by the length of its rows, as its code does at run time: no key says it.
    """

    architecture = "baichuan"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("tensor_data_layout", "Meta AI original pth")
        self.keys.set("rope.dimension_count", self.source.integer("hidden_size") // self.source.heads)

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        heads, key_heads = self.source.heads, self.source.key_value_heads
        if name.endswith("self_attn.W_pack.weight"):
            rows = array.shape[0] // 3
            parts = split_rows(array, {"q": rows, "k": rows, "v": rows}, name)
            yield f"blk.{layer}.attn_q.weight", permuted(parts["q"], heads, name)
            each = heads if heads == key_heads else heads // key_heads
            yield f"blk.{layer}.attn_k.weight", permuted(parts["k"], each, name)
            yield f"blk.{layer}.attn_v.weight", parts["v"]
        elif name == "lm_head.weight" and self.config.get("vocab_size") == BAICHUAN_2_SIZE:
            yield name, array.each(_unit_rows)
        else:
            yield name, array


def _unit_rows(values: Floats) -> Floats:
    lengths = np.sqrt(np.sum(np.square(values, dtype=np.float64), axis=-1, keepdims=True))
    result: Floats = (values / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result


class CodeShell(Family):
    """CodeShell."""

    architecture = "codeshell"

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        width = source.integer("n_embd")
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.head_count_kv", source.integer("num_query_groups"))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")
        keys.set("rope.freq_base", 10000.0)
        keys.set("rope.scaling.type", "linear")
        keys.set("rope.scaling.factor", 1.0)


class Jais(Family):
    """Jais, whose matrices are stored transposed; the scales of embedding and output become part of them."""

    architecture = "jais"

    def tensors(self) -> Named:
        self._check()
        self._bias = 8.0
        yield from super().tensors()
        self.keys.set("attention.max_alibi_bias", self._bias)

    def _check(self) -> None:
        for key, expected in (("activation_function", "swiglu"), ("position_embedding_type", "alibi")):
            if self.config.get(key) != expected:
                raise CheckpointError(
                    f"config.json: {key} is {self.config.get(key)!r:.40}; Jais is only supported with {expected!r}"
                )

    def renamed(self, name: str) -> str | None:
        return None if name.endswith(".attn.bias") else super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith("relative_pe.slopes"):
            # The slope of the first of n heads is 2 ** (-b / n), where n is a power of 2.
            heads = 1 << (self.source.heads.bit_length() - 1)
            first = float(array.read().reshape(-1)[0]) if math.prod(array.shape) else 0.0
            if not 0 < first < 1:
                raise CheckpointError(f"the tensor {name!r:.120} begins with {first}; expected a slope between 0 and 1")
            self._bias = float(-round(math.log2(first) * heads))
            return
        if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight", ".c_fc2.weight")):
            array = array.transposed()
        if name == "transformer.wte.weight":
            array = _scaled(array, self.source.number("mup_embeddings_scale", "embeddings_scale"))
        elif name == "lm_head.weight":
            if "mup_output_alpha" in self.config:
                scale = self.source.number("mup_output_alpha") * self.source.number("mup_width_scale")
            else:
                scale = self.source.number("width_scale")
            array = _scaled(array, scale)
        yield name, array

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("block_count", self.layers)
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", source.integer("n_embd"))
        keys.set("feed_forward_length", source.integer("n_inner"))
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")


def _scaled(array: Array, scale: float) -> Array:
    return array.each(lambda values: values * np.float32(scale))


class Jais2(Family):
    """Jais 2."""

    architecture = "jais2"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("rope.dimension_count", self.source.head_size)


class OpenElm(Family):
    """OpenELM. Its checkpoints come without a tokenizer: Llama 2's tokenizer.model belongs into the folder."""

    architecture = "openelm"

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def _per_layer(self, key: str) -> list[Any]:
        found = self.config.get(key)
        if not isinstance(found, list) or len(found) != self.layers:
            raise CheckpointError(f"config.json: {key} is {found!r:.60}; expected a number for each layer")
        return found

    def _widths(self) -> list[int]:
        divisor, width = self.source.integer("ffn_dim_divisor"), self.source.integer("model_dim")
        return [_divisible(float(each) * width, divisor) for each in self._per_layer("ffn_multipliers")]

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        size = source.integer("head_dim")
        keys.set("block_count", self.layers)
        keys.set("context_length", source.integer("max_context_length"))
        keys.set("embedding_length", source.integer("model_dim"))
        keys.set("feed_forward_length", self._widths())
        keys.set("attention.head_count", self._per_layer("num_query_heads"))
        keys.set("attention.head_count_kv", self._per_layer("num_kv_heads"))
        keys.set("rope.freq_base", source.number("rope_freq_constant"))
        keys.set("attention.layer_norm_rms_epsilon", 1e-6)
        keys.set("rope.dimension_count", size)
        keys.set("attention.key_length", size)
        keys.set("attention.value_length", size)
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".ffn.proj_1.weight"):
            width = self._widths()[layer] if layer < self.layers else 0
            parts = split_rows(array, {"gate": width, "up": width}, name)
            yield f"blk.{layer}.ffn_gate.weight", parts["gate"]
            yield f"blk.{layer}.ffn_up.weight", parts["up"]
        else:
            yield name, array


def _divisible(value: float, divisor: int) -> int:
    """The multiple of the divisor next to the value, but not more than a tenth below it."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * value else near


class Pangu(Family):
    """openPangu Embedded."""

    architecture = "pangu-embedded"

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
        prefix = self.folder.config.get("add_prefix_space")
        if prefix is not None:
            self.keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")

    def set_parameters(self) -> None:
        super().set_parameters()
        size = self.source.head_size
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        self.keys.set("rope.dimension_count", size)
        self.keys.set("attention.key_length", size)
        self.keys.set("attention.value_length", size)

    def renamed(self, name: str) -> str | None:
        if name == "lm_head.weight" and self.config.get("tie_word_embeddings"):
            return None
        return super().renamed(name)


class Plamo(Family):
    """PLaMo 13B: query head h belongs to key head h mod n, where others count the heads of a group in turn."""

    architecture = "plamo"
    names: ClassVar[Mapping[str, str]] = {"norm": "attn_norm"}
    shared: ClassVar[int] = 8
    """query heads for each key head, unless the configuration says it"""

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    @property
    def _groups(self) -> tuple[int, int]:
        """Query heads for each key head, and key heads (the configuration's num_key_value_heads is that of queries)."""
        each = self.config.get("n_shared_head", self.shared)
        heads = self.source.heads
        if not isinstance(each, int) or each <= 0 or heads % each:
            raise CheckpointError(f"config.json: {heads} heads cannot be shared by n_shared_head {each!r:.40}")
        return each, heads // each

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("context_length", 4096)  # no configuration says it
        keys.set("embedding_length", source.integer("hidden_size"))
        keys.set("feed_forward_length", source.integer("intermediate_size"))
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", self._groups[1])
        keys.set("attention.layer_norm_rms_epsilon", source.number("rms_norm_eps"))
        keys.add("general.file_type", self.file_type, "uint32")

    def renamed(self, name: str) -> str | None:
        return super().renamed(name.replace("model.layers.layers.", "model.layers."))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        each, groups = self._groups
        if name.endswith(("self_attn.q_proj.weight", "self_attn.o_proj.weight")):
            rows, columns = array.shape
            size = (rows if "q_proj" in name else columns) // self.source.heads
            if "q_proj" in name:
                grouped: tuple[int, ...] = (each, groups, size, columns)
                axes: tuple[int, ...] = (1, 0, 2, 3)
            else:
                grouped, axes = (rows, each, groups, size), (0, 2, 1, 3)
            if math.prod(grouped) != math.prod(array.shape):
                raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")
            shape = array.shape
            array = array.whole(shape, lambda values: values.reshape(grouped).transpose(axes).reshape(shape))
        yield name, array


class Qwen(Family):
    """The first Qwen."""

    architecture = "qwen"
    names: ClassVar[Mapping[str, str]] = {"mlp.w1": "ffn_up", "mlp.w2": "ffn_gate"}

    def set_parameters(self) -> None:
        super().set_parameters()
        # Its norms are RMS norms, which no runtime finds under the name that the configuration has for the number.
        self.keys.set("attention.layer_norm_rms_epsilon", self.source.number("rms_norm_eps", "layer_norm_epsilon"))

    def set_vocabulary(self) -> None:
        set_coded_ranks(self.folder, self.config, self.keys, "qwen")


class Refact(Family):
    """Refact: one head of keys and values."""

    architecture = "refact"

    def set_vocabulary(self) -> None:
        super().set_vocabulary()
        special = SpecialTokens(self.folder, self.source.root, kinds=("eot",))
        special.template = None
        special.write(self.keys)

    @property
    def _width(self) -> int:
        inner = int(2 * 4 * self.source.integer("n_embd") / 3)
        return -(-inner // _MULTIPLE) * _MULTIPLE

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", source.integer("n_embd"))
        keys.set("feed_forward_length", self._width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.head_count_kv", 1)
        keys.set("attention.layer_norm_rms_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        size = self.source.integer("n_embd") // self.source.heads
        if name.endswith(".attn.kv.weight"):
            for part, rows in split_rows(array, {"k": size, "v": size}, name).items():
                yield f"blk.{layer}.attn_{part}.weight", rows
        elif name.endswith(".attn.q.weight"):
            yield f"blk.{layer}.attn_q.weight", array
        elif name.endswith(".mlp.gate_up_proj.weight"):
            for part, rows in split_rows(array, {"gate": self._width, "up": self._width}, name).items():
                yield f"blk.{layer}.ffn_{part}.weight", rows
        else:
            yield name, array
