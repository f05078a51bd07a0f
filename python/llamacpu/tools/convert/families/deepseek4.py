"""DeepSeek V4: the names of DeepSeek's own code, experts in MXFP4, which stay as they are, matrices in 8 bits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.scaled import ScaledTensor
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.formats import mxfp4_blocks
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["Deepseek4"]

_PARTS = {"w1": "gate", "w2": "down", "w3": "up"}
_EXPERT = re.compile(r"layers\.(\d+)\.ffn\.experts\.\d+\.w[123]\.(weight|scale)")
_BLOCK = 32
_FILE_TYPE = 38  # mostly MXFP4, as files with such experts say whatever else they hold
_COMPRESSIONS = {"sliding_attention": 0, "compressed_sparse_attention": 4, "heavily_compressed_attention": 128}


class Deepseek4(Family):
    """DeepSeek V4 Flash and Pro, without the layers that predict further tokens and without what is for pictures."""

    architecture = "deepseek4"
    names: ClassVar[Mapping[str, str]] = {
        "embed": "token_embd",
        "head": "output",
        "hc_head_fn": "output_hc_fn",
        "hc_head_base": "output_hc_base",
        "hc_head_scale": "output_hc_scale",
        "attn.attn_sink": "attn_sinks",
        "attn.wq_a": "attn_q_a",
        "attn.wq_b": "attn_q_b",
        "attn.q_norm": "attn_q_a_norm",
        "attn.wkv": "attn_kv",
        "attn.kv_norm": "attn_kv_a_norm",
        "attn.norm": "attn_kv_a_norm",
        "attn.wo_a": "attn_output_a",
        "attn.wo_b": "attn_output_b",
        "attn.indexer.wq_b": "indexer.attn_q_b",
        "attn.indexer.weights_proj": "indexer.proj",
        "ffn.gate": "ffn_gate_inp",
        "ffn.experts.w1": "ffn_gate_exps",
        "ffn.experts.w2": "ffn_down_exps",
        "ffn.experts.w3": "ffn_up_exps",
        "ffn.shared_experts.w1": "ffn_gate_shexp",
        "ffn.shared_experts.w2": "ffn_down_shexp",
        "ffn.shared_experts.w3": "ffn_up_shexp",
        **{name: name for part in ("attn", "ffn") for name in (f"hc_{part}_{end}" for end in ("fn", "base", "scale"))},
        **{
            f"{theirs}.{part}": f"{ours}_{end}"
            for theirs, ours in (
                ("attn.compressor", "attn_compressor"),
                ("attn.indexer.compressor", "indexer_compressor"),
            )
            for part, end in (("wkv", "kv"), ("wgate", "gate"), ("ape", "ape"), ("norm", "norm"))
        },
    }

    def renamed(self, name: str) -> str | None:
        name = _plain(name)
        if name.startswith(("mtp.", "aligner.", "image_")):
            return None
        if name.endswith((".attn_sink", ".ape")) or ".hc_" in name or name.startswith("hc_head_"):
            name = f"{name}.weight"
        return super().renamed(name)

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        if "num_hash_layers" in self.config:
            hashed = self.config["num_hash_layers"]
        else:
            kinds = self._each_layer("mlp_layer_types", {"hash_moe": True, "moe": False})
            hashed = sum(kinds)
            if any(kinds[hashed:]):
                raise CheckpointError("config.json: mlp_layer_types: expected hash_moe before moe, never behind it")
        if type(hashed) is not int or not 0 <= hashed <= self.layers:
            raise CheckpointError(f"config.json: num_hash_layers is {hashed!r:.60}; expected up to {self.layers}")
        self.hashed: int = hashed
        self._flatten_rope()

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config, source = self.keys, self.config, self.source
        keys.set("rope.dimension_count", self._rotated())
        keys.set("attention.q_lora_rank", config.get("q_lora_rank"))
        keys.set("attention.sliding_window", config.get("sliding_window"))
        keys.set("expert_feed_forward_length", config.get("moe_intermediate_size"))
        keys.set("expert_shared_count", config.get("n_shared_experts"))
        keys.set("expert_weights_scale", config.get("routed_scaling_factor"))
        keys.set("expert_weights_norm", config.get("norm_topk_prob"))
        for part in ("exp", "shexp"):
            keys.add(f"deepseek4.swiglu_clamp_{part}", [source.number("swiglu_limit")] * self.layers, "uint32")
        keys.set("attention.indexer.head_count", config.get("index_n_heads"))
        keys.set("attention.indexer.key_length", config.get("index_head_dim"))
        keys.set("attention.indexer.top_k", config.get("index_topk"))
        keys.set("attention.output_group_count", config.get("o_groups"))
        keys.set("attention.output_lora_rank", config.get("o_lora_rank"))
        ratios = config.get("compress_ratios")
        keys.set("attention.compress_ratios", self._ratios() if ratios is None else ratios)
        keys.set("attention.compress_rope_freq_base", config.get("compress_rope_theta"))
        keys.set("hyper_connection.count", config.get("hc_mult"))
        keys.set("hyper_connection.sinkhorn_iterations", config.get("hc_sinkhorn_iters"))
        keys.set("hyper_connection.epsilon", config.get("hc_eps"))
        keys.set("hash_layer_count", self.hashed)
        keys.set("embedding_length_out", source.integer("hidden_size") * source.integer("hc_mult"))

    def _rotated(self) -> int:
        """Elements of a head that are rotated; transformers writes their share."""
        if "qk_rope_head_dim" in self.config:
            return self.source.integer("qk_rope_head_dim")
        return int(self.source.head_size * self.source.number("partial_rotary_factor"))

    def _each_layer(self, key: str, values: Mapping[str, Any]) -> list[Any]:
        kinds = self.config.get(key)
        if not isinstance(kinds, list) or len(kinds) < self.layers or any(kind not in values for kind in kinds):
            raise CheckpointError(
                f"config.json: {key} is {kinds!r:.60}; expected {' or '.join(values)} for each of {self.layers} layers"
            )
        return [values[kind] for kind in kinds[: self.layers]]

    def _ratios(self) -> list[int]:
        """Compressions, where transformers wrote the kinds of layers in their place."""
        rates = self.config.get("compress_rates")
        found = _COMPRESSIONS | (rates if isinstance(rates, dict) else {})
        return self._each_layer("layer_types", {kind: found[kind] for kind in _COMPRESSIONS})

    def _flatten_rope(self) -> None:
        """One table of the rotary embedding in place of those that transformers has for the two kinds of layers."""
        rope = self.source.rope
        main, compressed = rope.get("main"), rope.get("compress")
        if not isinstance(main, dict) or not isinstance(compressed, dict):
            return
        if main.get("rope_type", "default") != "default":
            raise CheckpointError("config.json: rope_parameters scale the rotation of layers without compression")
        self.config["compress_rope_theta"] = compressed.get("rope_theta")
        flat = {key: value for key, value in compressed.items() if key != "attention_factor"}
        self.source.rope = flat | {"rope_theta": main.get("rope_theta")}

    def extra(self) -> Named:
        """The tables of experts, and experts in MXFP4."""
        tensors = {_plain(name): tensor for name, tensor in self.source.tensors()}
        for layer in range(self.hashed):
            table = tensors.get(f"layers.{layer}.ffn.gate.tid2eid")
            if table is None:
                raise CheckpointError(f"the checkpoint lacks layers.{layer}.ffn.gate.tid2eid, a table of experts")
            yield f"blk.{layer}.ffn_gate_tid2eid.weight", Array.stored(table.shape, "I32", _integers(table))
        count = self.source.integer("n_routed_experts")
        for layer in range(self.layers):
            if f"layers.{layer}.ffn.experts.0.w1.scale" not in tensors:
                continue
            self.file_type = _FILE_TYPE
            for part, ours in _PARTS.items():
                stem = f"layers.{layer}.ffn.experts.{{}}.{part}"
                blocks = [_blocks(tensors, stem.format(expert)) for expert in range(count)]
                yield f"blk.{layer}.ffn_{ours}_exps.weight", Array.stacked(blocks, f"layer {layer}, {part}")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".tid2eid"):
            return
        if name.endswith((".ffn.gate.bias", ".ffn.gate.bias_vl")):
            # Layers with a table do not use it.
            if layer >= self.hashed or name.endswith("_vl"):
                ending = "exp_probs_b_vl" if name.endswith("_vl") else "exp_probs_b"
                yield f"blk.{layer}.{ending}.bias", array
        elif _EXPERT.fullmatch(name) is None:
            yield name, array
        elif array.dtype in ("F32", "F16", "BF16"):
            count = self.source.integer("n_routed_experts")
            yield from self.stacked_experts(name, array, layer, _PARTS, count, "ffn.experts")

    def format_of(self, name: str, array: Array, chosen: str) -> str:
        """As llama.cpp's converter: what has 8 bits becomes Q8_0, what has 16 or 32 stays."""
        if len(array.shape) < 2 or name.endswith("_norm.weight") or "_exps." in name:
            return super().format_of(name, array, chosen)
        if isinstance(array.untouched, ScaledTensor):
            return "F16" if array.shape[-1] % _BLOCK else "Q8_0"
        return array.dtype if array.dtype in ("F32", "BF16") else super().format_of(name, array, chosen)


def _plain(name: str) -> str:
    """The name in DeepSeek's own checkpoints of a tensor of one that transformers wrote."""
    return name.removeprefix("model.").replace("hc_head.hc_", "hc_head_")


def _integers(table: LazyTensor) -> Callable[[], Iterator[NDArray[Any]]]:
    def pieces() -> Iterator[NDArray[Any]]:
        values = table.raw_rows(0, table.shape[0])
        # What does not fit stays a wrong number, which is found when the file is opened.
        yield np.clip(values, -1, 2**31 - 1).astype("<i4")

    return pieces


def _blocks(tensors: Mapping[str, LazyTensor], stem: str) -> Array:
    """An expert's matrix as MXFP4 blocks of a file."""
    weight, scale = tensors.get(f"{stem}.weight"), tensors.get(f"{stem}.scale")
    if weight is None or scale is None:
        raise CheckpointError(f"the checkpoint lacks {stem}.weight or its scales; it is incomplete")
    if weight.dtype not in ("I8", "U8") or len(weight.shape) != 2 or weight.shape[1] % (_BLOCK // 2):
        raise CheckpointError(f"{stem}.weight has the type {weight.dtype} and the shape {weight.shape}; expected MXFP4")
    rows, groups = weight.shape[0], weight.shape[1] // (_BLOCK // 2)
    if scale.shape != (rows, groups):
        raise CheckpointError(f"{stem}.scale has the shape {scale.shape}; expected {(rows, groups)}")

    def pieces() -> Iterator[NDArray[np.uint8]]:
        codes = weight.raw_rows(0, rows).view(np.uint8).reshape(rows, groups, _BLOCK // 2)
        yield mxfp4_blocks(codes, scale.raw_rows(0, rows).view(np.uint8))

    return Array.stored((rows, groups * _BLOCK), "MXFP4", pieces)
