"""The encoder of InternVL, in its own form and in that of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.towers.base import Tower

__all__ = ["InternVlTower"]

_PROJECTOR = {"layer_norm": "0", "linear_1": "1", "linear_2": "3"}
# Parts of layers in transformers to those of its own form.
_PARTS = {
    ".layernorm_before.": ".norm1.", ".layernorm_after.": ".norm2.", ".attention.projection_layer.": ".attn.proj.",
    ".attention.q_norm.": ".attn.q_norm.", ".attention.k_norm.": ".attn.k_norm.", ".lambda_": ".ls",
}  # fmt: skip


class InternVlTower(Tower):
    """InternVL 2 to 3.5."""

    projector = "internvl"
    whole: ClassVar[Mapping[str, str]] = {
        "embeddings.class_embedding": "v.class_embd", "embeddings.cls_token": "v.class_embd",
        "embeddings.patch_embedding": "v.patch_embd", "embeddings.patch_embeddings.projection": "v.patch_embd",
        "embeddings.position_embedding": "v.position_embd", "embeddings.position_embeddings": "v.position_embd",
        **{f"mlp1.{number}": f"mm.model.mlp.{number}" for number in _PROJECTOR.values()},
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "image_size": 448, "patch_size": 14,
    }  # fmt: skip

    def __init__(self, source: Source, file_type: int) -> None:
        super().__init__(source, file_type)
        for name in ("image_size", "patch_size"):
            value = self.config[name]
            if isinstance(value, list):
                if len(value) != 2 or value[0] != value[1]:
                    raise CheckpointError(f"config.json: {name} of vision_config is {value!r:.60}; expected a square")
                self.config[name] = value[0]
        if self.config.get("norm_type", "layer_norm") != "layer_norm":
            raise CheckpointError(
                f"config.json: norm_type of vision_config is {self.config['norm_type']!r:.40}; expected layer_norm, "
                "since files of this kind have no key for another"
            )

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        if name.startswith("multi_modal_projector."):
            part, _, kind = name.removeprefix("multi_modal_projector.").partition(".")
            return f"mlp1.{_PROJECTOR.get(part, part)}.{kind}"
        if name.startswith("mlp1."):
            return name
        start = next((start for start in ("vision_model.", "vision_tower.") if name.startswith(start)), None)
        if start is None:
            return None
        name = name.removeprefix(start).replace("encoder.layer.", "encoder.layers.")
        for theirs, ours in _PARTS.items():
            name = name.replace(theirs, ours)
        if name.endswith((".ls1", ".ls2", ".position_embedding", ".position_embeddings")):
            name = f"{name}.weight"
        return name

    def converted(self, name: str, array: Array) -> Iterator[tuple[str, Array]]:
        if ".attn.qkv." not in name:
            yield name, array
            return
        if not array.shape or array.shape[0] % 3:
            raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; expected three equal parts")
        rows = array.shape[0] // 3
        for at, part in enumerate("qkv"):
            yield name.replace(".attn.qkv.", f".attn.{part}."), array.rows(at * rows, (at + 1) * rows)

    def renamed(self, name: str) -> str | None:
        # The norms of queries and keys and the scales of layers are parts that no other kind has.
        stem, _, part = name.partition(".ls")
        if part:
            return f"v.blk.{stem.rpartition('.')[2]}.ls{part}"
        if name.endswith((".attn.q_norm.weight", ".attn.k_norm.weight")):
            stem, _, part = name.partition(".attn.")
            return f"v.blk.{stem.rpartition('.')[2]}.attn_{part}"
        return super().renamed(name)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.set_kind()
        self.set_epsilon(self.number("layer_norm_eps"))
        activation = self.config["hidden_act"]
        if activation not in ("gelu", "silu"):
            raise CheckpointError(
                f"config.json: hidden_act of vision_config is {activation!r:.40}; expected gelu or silu"
            )
        self.use(str(activation))
        root = self.source.root
        ratio = root.get("downsample_ratio")
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise CheckpointError(f"config.json: downsample_ratio is {ratio!r:.40}; expected a number up to 1")
        self.keys.add("clip.vision.projector.scale_factor", int(1.0 / ratio), "uint32")
        for key, name in (("min", "min_dynamic_patch"), ("max", "max_dynamic_patch")):
            if root.get(name, 0) != 0:
                self.keys.add(f"clip.vision.preproc_{key}_tiles", root[name], "uint32")
