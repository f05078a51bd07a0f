"""The encoders of Qwen 2 VL, 2.5 VL and 3 VL, which Qwen 3.5 has, too."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import split_rows
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.towers.base import Tower

__all__ = ["Qwen2VlTower", "Qwen3VlTower"]

Named = Iterator[tuple[str, Array]]


class _QwenTower(Tower):
    """What they share: kernels for two frames, which are equal in pictures."""

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        return name.removeprefix("visual.") if name.startswith("visual.") else None

    def converted(self, name: str, array: Array) -> Named:
        if name != "patch_embed.proj.weight":
            yield name, array
            return
        if len(array.shape) != 5 or array.shape[2] != 2:
            raise CheckpointError(f"the tensor {name!r} has the shape {array.shape}; expected kernels for two frames")
        shape = (*array.shape[:2], *array.shape[3:])
        yield "v.patch_embd.weight", array.whole(shape, lambda kernels: kernels[:, :, 0])
        yield "v.patch_embd.weight.1", array.whole(shape, lambda kernels: kernels[:, :, 1])


class Qwen2VlTower(_QwenTower):
    """Qwen 2 VL and 2.5 VL."""

    projector = "qwen2vl_merger"
    whole: ClassVar[Mapping[str, str]] = {"merger.ln_q": "v.post_ln", "merger.mlp.0": "mm.0", "merger.mlp.2": "mm.2"}

    def __init__(self, source: Source, file_type: int) -> None:
        super().__init__(source, file_type)
        self._newer = source.root.get("model_type") == "qwen2_5_vl"
        defaults = {"depth": 32, "num_heads": 16, "patch_size": 14, "image_size": 560, "hidden_size": 3584}
        defaults |= {"intermediate_size": 3420} if self._newer else {"embed_dim": 1280}
        for key, value in defaults.items():
            self.config.setdefault(key, value)
        if "embed_dim" in self.config:
            self.config.update(intermediate_size=self.config["hidden_size"], hidden_size=self.config["embed_dim"])

    def converted(self, name: str, array: Array) -> Named:
        if ".qkv." in name:
            rows = array.shape[0] // 3
            for part, piece in split_rows(array, {"q": rows, "k": rows, "v": rows}, name).items():
                yield name.replace("qkv", part), piece
        else:
            yield from super().converted(name, array)

    def set_parameters(self) -> None:
        super().set_parameters()
        if self._newer:
            self.set_kind("qwen2.5vl_merger")
            self.use("silu")
            full = self.config.get("fullatt_block_indexes", [7, 15, 23, 31])
            steps = {after - before for before, after in itertools.pairwise(full)} if full else {0}
            if not full or steps - {full[0] + 1}:
                raise CheckpointError(f"config.json: fullatt_block_indexes is {full!r:.60}; expected equal distances")
            self.keys.add("clip.vision.n_wa_pattern", full[0] + 1, "uint32")
            if self.config.get("window_size", 112) != 112:
                self.keys.add("clip.vision.window_size", self.integer("window_size"), "uint32")
        else:
            self.set_kind()
        self.set_epsilon(self.source.root.get("rms_norm_eps", 1e-6))


class Qwen3VlTower(_QwenTower):
    """Qwen 3 VL and Qwen 3.5: layers in the middle make parts of the rows (DeepStack), if any."""

    projector = "qwen3vl_merger"
    whole: ClassVar[Mapping[str, str]] = {
        "merger.norm": "v.post_ln", "merger.linear_fc1": "mm.0", "merger.linear_fc2": "mm.2",
        "pos_embed": "v.position_embd", "patch_embed.proj": "v.patch_embd",
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {"num_position_embeddings": 2304, "patch_size": 16}

    def __init__(self, source: Source, file_type: int) -> None:
        super().__init__(source, file_type)
        side = math.isqrt(self.integer("num_position_embeddings"))
        self.config.setdefault("image_size", side * self.integer("patch_size"))

    def converted(self, name: str, array: Array) -> Named:
        parts = name.split(".")
        if parts[0] == "deepstack_merger_list" and len(parts) == 4 and parts[1].isdecimal():
            layers = self._deep_layers()
            if int(parts[1]) >= len(layers):
                raise CheckpointError(
                    f"the tensor {name!r:.120} is of a layer that deepstack_visual_indexes in config.json does not name"
                )
            part = parts[2].removeprefix("linear_")
            yield f"v.deepstack.{layers[int(parts[1])]}.{part}.{parts[3]}", array
        else:
            yield from super().converted(name, array)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.require_usual_rotation()
        function = self.config.get("hidden_act", "gelu_pytorch_tanh")
        if function != "gelu_pytorch_tanh":
            raise CheckpointError(
                f"config.json: hidden_act of vision_config is {function!r:.40}; expected gelu_pytorch_tanh, since "
                "files of such encoders cannot say another"
            )
        self.set_kind()
        self.use("gelu")
        if "spatial_merge_size" in self.config:
            self.keys.add("clip.vision.spatial_merge_size", self.integer("spatial_merge_size"), "uint32")
        text = self.source.root.get("text_config")
        self.set_epsilon(text.get("rms_norm_eps", 1e-6) if isinstance(text, dict) else 1e-6)
        layers = self._deep_layers()
        flags = [layer in layers for layer in range(self.integer("depth"))]
        self.keys.add("clip.vision.is_deepstack_layers", flags, "bool")

    def _deep_layers(self) -> list[int]:
        found, layers = self.config.get("deepstack_visual_indexes", []), self.integer("depth")
        if not isinstance(found, list) or not all(type(layer) is int and 0 <= layer < layers for layer in found):
            raise CheckpointError(
                f"config.json: deepstack_visual_indexes is {found!r:.60}; expected numbers of {layers} layers"
            )
        return found
