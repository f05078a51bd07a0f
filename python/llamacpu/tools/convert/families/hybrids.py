"""Qwen 3 Next and Qwen 3.5: layers with linear attention (Gated DeltaNet) between layers with full attention."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Named
from llamacpu.tools.convert.families.qwen import Qwen2Moe
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["Qwen3Next", "Qwen35", "Qwen35Moe"]

_PREDICTOR = {
    "fc": "eh_proj", "pre_fc_norm_embedding": "enorm", "pre_fc_norm_hidden": "hnorm", "norm": "shared_head.norm",
}  # fmt: skip
_SECTIONS = [11, 11, 10, 0]
"""Dimensions of the rotation for time, height and width, where the configuration does not say them."""


class Qwen3Next(Qwen2Moe):
    """Qwen 3 Next."""

    architecture = "qwen3next"
    names: ClassVar[Mapping[str, str]] = {
        "post_attention_layernorm": "post_attention_norm", "linear_attn.A_log": "ssm_a",
        "linear_attn.dt_proj": "ssm_dt", "linear_attn.conv1d": "ssm_conv1d", "linear_attn.norm": "ssm_norm",
        "linear_attn.out_proj": "ssm_out",
        "linear_attn.in_proj_ba": "ssm_ba", "linear_attn.in_proj_a": "ssm_alpha", "linear_attn.in_proj_b": "ssm_beta",
        "linear_attn.in_proj_qkv": "attn_qkv", "linear_attn.in_proj_z": "attn_gate",
    }  # fmt: skip

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        # Layers that predict further tokens: as many as the checkpoint has; not every configuration says it.
        found = [name.removeprefix("model.").split(".") for name in source.checkpoint.tensors]
        numbers = [int(parts[2]) for parts in found if parts[:2] == ["mtp", "layers"] and parts[2].isdecimal()]
        self._further = max(numbers, default=-1) + 1
        self.layers: int = source.layers + self._further

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, source, config = self.keys, self.source, self.config
        if self._further:
            keys.set("nextn_predict_layers", self._further)
        values = source.integer("linear_num_value_heads")
        keys.set("ssm.conv_kernel", source.integer("linear_conv_kernel_dim"))
        keys.set("ssm.state_size", source.integer("linear_key_head_dim"))
        keys.set("ssm.group_count", source.integer("linear_num_key_heads"))
        keys.set("ssm.time_step_rank", values)
        keys.set("ssm.inner_size", source.integer("linear_value_head_dim") * values)
        interval = config.get("full_attention_interval", 4)
        kinds = config.get("layer_types")
        if not isinstance(kinds, list):
            if not isinstance(interval, int) or interval <= 0:
                raise CheckpointError(f"config.json: full_attention_interval is {interval!r:.40}; expected a number")
            kinds = ["linear_attention" if (at + 1) % interval else "" for at in range(source.layers)]
            interval = 4
        if len(kinds) != source.layers:
            raise CheckpointError(f"config.json: layer_types has {len(kinds)} entries for {source.layers} layers")
        recurrent = [kind == "linear_attention" for kind in kinds]
        keys.set("attention.recurrent_layers", recurrent + [False] * self._further)
        keys.set("full_attention_interval", interval)
        share = source.rope_number("partial_rotary_factor", 0.25)
        keys.set("rope.dimension_count", int(source.head_size * share))

    def renamed(self, name: str) -> str | None:
        renamed = super().renamed(name)
        if renamed is None:
            return None
        renamed = renamed.removeprefix("model.") if renamed.startswith("model.mtp.") else renamed
        parts = renamed.split(".", 3)
        if parts[0] == "mtp" and len(parts) == 4 and parts[1] == "layers" and parts[2].isdecimal():
            return f"model.layers.{self.source.layers + int(parts[2])}.{parts[3]}"
        if parts[0] == "mtp" and len(parts) == 3 and parts[1] in _PREDICTOR:
            return f"model.layers.{self.source.layers}.{_PREDICTOR[parts[1]]}.{parts[2]}"
        return renamed

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".A_log"):
            array = array.each(_negative_exponential)
        elif name.endswith(".dt_bias"):
            name = name.removesuffix(".dt_bias") + ".dt_proj.bias"
        elif "conv1d" in name:
            array = array.reshaped([size for size in array.shape if size != 1])
        elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
            array = array.each(lambda values: values + 1)
        if "in_proj_qkvz.weight" in name:
            yield from self._by_kind(name, array, layer)
        else:
            yield from super().converted(name, array, layer)

    def _by_kind(self, name: str, array: Array, layer: int) -> Named:
        """Rows that are stored by key head (query, key, values, gates of each) as all of one kind after the other."""
        source = self.source
        heads, size = source.integer("linear_num_key_heads"), source.integer("linear_key_head_dim")
        values = source.integer("linear_num_value_heads") // heads * source.integer("linear_value_head_dim")
        width = array.shape[-1]
        if array.shape != (heads * 2 * (size + values), width):
            raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")

        def rows(*cuts: tuple[int, int]) -> Array:
            def cut(stored: Floats) -> Floats:
                by_head = stored.reshape(heads, -1, width)
                return np.concatenate([by_head[:, start:stop].reshape(-1, width) for start, stop in cuts])

            return array.whole((heads * sum(stop - start for start, stop in cuts), width), cut)

        ends = (0, size, 2 * size, 2 * size + values, 2 * (size + values))
        yield f"blk.{layer}.attn_qkv.weight", rows(*itertools.pairwise(ends[:4]))
        yield f"blk.{layer}.attn_gate.weight", rows((ends[3], ends[4]))


def _negative_exponential(values: Floats) -> Floats:
    result: Floats = -np.exp(values.astype(np.float64)).astype(np.float32)
    return result


class Qwen35(Qwen3Next):
    """Qwen 3.5: value head h belongs to key head h mod n, where checkpoints count those of a key head in turn."""

    architecture = "qwen35"

    def set_parameters(self) -> None:
        super().set_parameters()
        if "mrope_section" not in self.source.rope:
            self.keys.set("rope.dimension_sections", _SECTIONS)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        keys, values = self.source.integer("linear_num_key_heads"), self.source.integer("linear_num_value_heads")
        if "linear_attn." in name and keys != values:
            if values % keys:
                raise CheckpointError(f"config.json: {values} value heads for {keys} key heads of linear attention")
            array = self._turned(name, array, keys, values // keys)
        yield from super().converted(name, array, layer)

    def _turned(self, name: str, array: Array, keys: int, each: int) -> Array:
        size, shape = self.source.integer("linear_value_head_dim"), array.shape

        def turn(stored: Floats, head: int) -> Floats:
            """The first dimension, `head` rows for each value head, in the order of the file."""
            grouped = stored.reshape(keys, each, head, *stored.shape[1:])
            return grouped.swapaxes(0, 1).reshape(stored.shape)

        def whole(head: int, rows: int, function: Any) -> Array:
            if rows != keys * each * head:
                raise CheckpointError(f"the tensor {name!r:.120} has the shape {shape}; is config.json sound?")
            return array.whole(shape, function)

        if ".in_proj_qkv." in name or ".conv1d" in name:
            first = 2 * self.source.integer("linear_key_head_dim") * keys

            def last_rows(stored: Floats) -> Floats:
                return np.concatenate([stored[:first], turn(stored[first:], size)])

            return whole(size, shape[0] - first, last_rows)
        if ".in_proj_z." in name:
            return whole(size, shape[0], lambda stored: turn(stored, size))
        if ".in_proj_a." in name or ".in_proj_b." in name or name.endswith((".A_log", ".dt_bias")):
            return whole(1, shape[0], lambda stored: turn(stored, 1))
        if ".out_proj." in name:
            rows = math.prod(shape[1:])
            return whole(size, rows, lambda stored: np.ascontiguousarray(turn(stored.T, size).T))
        return array


class Qwen35Moe(Qwen35):
    """Qwen 3.5 with experts."""

    architecture = "qwen35moe"
