"""The kinds of encoders: Llama 4, Gemma 3, Idefics 3 and SmolVLM, Pixtral, Muse Glimmer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import permuted
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.towers.base import Tower

__all__ = ["Gemma3Tower", "Idefics3Tower", "Llama4Tower", "MuseGlimmerTower", "PixtralTower"]

Named = Iterator[tuple[str, Array]]
_SIGLIP = {
    "embeddings.patch_embedding": "v.patch_embd", "embeddings.position_embedding": "v.position_embd",
    "post_layernorm": "v.post_ln",
}  # fmt: skip


class Llama4Tower(Tower):
    """Llama 4."""

    projector = "llama4"
    whole: ClassVar[Mapping[str, str]] = {
        "class_embedding": "v.class_embd", "patch_embedding.linear": "v.patch_embd",
        "positional_embedding_vlm": "v.position_embd", "layernorm_pre": "v.pre_ln", "layernorm_post": "v.post_ln",
        "vision_adapter.mlp.fc1": "mm.model.mlp.1", "vision_adapter.mlp.fc2": "mm.model.mlp.2",
        "multi_modal_projector.linear_1": "mm.model.fc",
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768, "hidden_act": "gelu", "num_hidden_layers": 34, "num_attention_heads": 16,
        "intermediate_size": 5632, "image_size": 448, "patch_size": 14, "norm_eps": 1e-5, "pixel_shuffle_ratio": 0.5,
    }  # fmt: skip

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        if not name.startswith(("multi_modal_projector.", "vision_model.")):
            return None
        name = name.removeprefix("vision_model.")
        return f"{name}.weight" if name == "positional_embedding_vlm" else name

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.config.get("hidden_act") != "gelu":
            raise CheckpointError(f"config.json: hidden_act is {self.config.get('hidden_act')!r:.40}; expected gelu")
        ratio = self.number("pixel_shuffle_ratio")
        if not 0 < ratio <= 1:
            raise CheckpointError(f"config.json: pixel_shuffle_ratio is {ratio}; expected a number up to 1")
        self.require_usual_rotation()
        self.set_kind()
        self.set_epsilon(self.number("norm_eps"))
        self.keys.add("clip.vision.projector.scale_factor", int(1.0 / ratio), "uint32")
        self.use("gelu")


class Gemma3Tower(Tower):
    """Gemma 3."""

    projector = "gemma3"
    whole: ClassVar[Mapping[str, str]] = {
        **_SIGLIP,
        "multi_modal_projector.mm_input_projection": "mm.input_projection",
        "multi_modal_projector.mm_soft_emb_norm": "mm.soft_emb_norm",
    }
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6,
    }  # fmt: skip

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        if not name.startswith(("multi_modal_projector.", "vision_tower.")):
            return None
        name = name.removeprefix("vision_tower.").removeprefix("vision_model.")
        # The pooling of SigLIP, which Gemma does not use; newer versions of transformers write it without the prefix.
        return None if name.startswith("head.") else name.replace("_weight", ".weight")

    def converted(self, name: str, array: Array) -> Named:
        yield name, array.each(lambda values: values + 1) if "soft_emb_norm.weight" in name else array

    def format_of(self, ours: str, theirs: str, shape: tuple[int, ...], chosen: str) -> str:
        if "input_projection" in theirs:
            return "F16"
        return "F32" if theirs.startswith("embeddings.") else super().format_of(ours, theirs, shape, chosen)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.set_kind()
        self.set_epsilon(self.number("layer_norm_eps", 1e-6))
        self.use("gelu")
        tokens = self.settings.get("image_seq_length", 256)
        side = int(tokens**0.5) if isinstance(tokens, int) and tokens > 0 else 16
        factor = self.integer("image_size") // self.integer("patch_size") // side
        if factor > 0 and factor != 4:  # 4 is what runtimes assume
            self.keys.add("clip.vision.projector.scale_factor", factor, "uint32")


class Idefics3Tower(Tower):
    """Idefics 3 and SmolVLM."""

    projector = "idefics3"
    whole: ClassVar[Mapping[str, str]] = {**_SIGLIP, "connector.modality_projection.proj": "mm.model.fc"}
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1152, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 32, "layer_norm_eps": 1e-6,
    }  # fmt: skip

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        if not name.startswith(("vision_model.", "connector.")):
            return None
        return name.removeprefix("vision_model.")

    def format_of(self, ours: str, theirs: str, shape: tuple[int, ...], chosen: str) -> str:
        return "F32" if theirs.startswith("embeddings.") else super().format_of(ours, theirs, shape, chosen)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.set_kind()
        self.set_epsilon(self.number("layer_norm_eps", 1e-5))
        self.keys.add("clip.vision.projector.scale_factor", self.source.root.get("scale_factor", 2), "uint32")
        self.use("gelu")
        size = self.settings.get("size")
        longest = size.get("longest_edge") if isinstance(size, dict) else None
        longest = self.integer("image_size") if longest is None else longest
        self.keys.add("clip.vision.preproc_image_size", longest, "uint32")


class PixtralTower(Tower):
    """Pixtral and Mistral Small 3.1."""

    projector = "pixtral"
    whole: ClassVar[Mapping[str, str]] = {
        "patch_conv": "v.patch_embd", "ln_pre": "v.pre_ln", "multi_modal_projector.linear_1": "mm.1",
        "multi_modal_projector.linear_2": "mm.2", "multi_modal_projector.norm": "mm.input_norm",
        "multi_modal_projector.patch_merger.merging_layer": "mm.patch_merger",
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 1024, "patch_size": 16, "hidden_act": "gelu",
    }  # fmt: skip
    break_text: ClassVar[str] = "[IMG_BREAK]"

    def __init__(self, source: Source, file_type: int) -> None:
        super().__init__(source, file_type)
        if self.config.get("model_type") != "pixtral":
            raise CheckpointError(
                f"config.json: an encoder of the kind {self.config.get('model_type')!r:.40} cannot be converted; "
                "expected pixtral"
            )

    def kept(self, name: str) -> str | None:
        if name.endswith("embed_tokens.weight"):
            return "embed_tokens.weight"
        name = name.removeprefix("model.")
        if not name.startswith(("multi_modal_projector.", "vision_tower.")):
            return None
        return name.removeprefix("vision_tower.")

    def converted(self, name: str, array: Array) -> Named:
        if name == "embed_tokens.weight":
            row = self._break_id(array.shape[0])
            yield "v.token_embd.img_break", array.rows(row, row + 1).reshaped(array.shape[1:])
            return
        if name.endswith(("q_proj.weight", "q_proj.bias", "k_proj.weight", "k_proj.bias")):
            array = permuted(array, self.integer("num_attention_heads"), name)
        yield name, array

    def _break_id(self, rows: int) -> int:
        """The id of the token at the end of a row of patches, whose embedding the encoder adds."""
        checkpoint = self.source.checkpoint
        decoder = (checkpoint.json("tokenizer_config.json") or {}).get("added_tokens_decoder")
        listed = (checkpoint.json("tokenizer.json") or {}).get("added_tokens")
        found = [
            *((id, entry) for id, entry in (decoder.items() if isinstance(decoder, dict) else ())),
            *(
                (entry.get("id"), entry)
                for entry in (listed if isinstance(listed, list) else ())
                if isinstance(entry, dict)
            ),
        ]
        for id, entry in found:
            is_it = isinstance(entry, dict) and entry.get("content") == self.break_text and str(id).isdecimal()
            if is_it and int(id) < rows:
                return int(id)
        raise CheckpointError(f"tokenizer.json: there is no token {self.break_text!r} with a row in the embedding")

    def set_parameters(self) -> None:
        super().set_parameters()
        self.require_usual_rotation()
        self.set_kind()
        self.set_epsilon(self.number("layer_norm_eps", 1e-5))
        activation = self.config.get("hidden_act")
        if activation not in ("gelu", "silu"):
            raise CheckpointError(f"config.json: hidden_act is {activation!r:.40}; expected gelu or silu")
        self.use(str(activation))
        if "spatial_merge_size" in self.source.root:
            self.keys.add("clip.vision.spatial_merge_size", self.source.root["spatial_merge_size"], "uint32")


class MuseGlimmerTower(Tower):
    """Muse Glimmer."""

    projector = "muse-glimmer"
    whole: ClassVar[Mapping[str, str]] = {
        "patch_embedder.patch_embedding": "v.patch_embd", "patch_embedder.position_embedding_table": "v.position_embd",
        "ln_pre": "v.pre_ln", "ln_post": "v.post_ln", "vision_adapter.fc1": "mm.0", "vision_adapter.fc2": "mm.1",
        "vision_projection": "mm.2",
    }  # fmt: skip
    defaults: ClassVar[Mapping[str, Any]] = {
        "patch_size": 14, "pos_emb_height": 32, "num_attention_heads": 16, "num_hidden_layers": 50, "hidden_size": 1536,
        "intermediate_size": 8960, "patch_temporal": 2, "merge_size": 2, "layer_norm_eps": 1e-5,
    }  # fmt: skip

    def kept(self, name: str) -> str | None:
        name = name.removeprefix("model.")
        if not name.startswith(("vision_tower.", "vision_adapter.", "vision_projection.")):
            return None
        return name.removeprefix("vision_tower.")

    def converted(self, name: str, array: Array) -> Named:
        if ".attn.q_proj." in name or ".attn.k_proj." in name:
            array = permuted(array, self.integer("num_attention_heads"), name)
        if name == "patch_embedder.patch_embedding.weight":
            width, frames, side = array.shape[0], self.integer("patch_temporal"), self.integer("patch_size")
            if array.shape[1:] != (frames * 3 * side * side,):
                raise CheckpointError(f"the tensor {name!r} has the shape {array.shape}; is config.json sound?")
            shape = (width, 3, side, side)
            array = array.whole(shape, lambda kernels: kernels.reshape(width, frames, 3, side, side).sum(axis=1))
            array = array.each(lambda kernels: kernels)
        yield name, array

    def set_parameters(self) -> None:
        # The size of pictures is free; this is the one that the table of positions is made for.
        size = self.integer("pos_emb_height") * self.integer("patch_size") * self.integer("merge_size")
        self.config["image_size"] = size
        super().set_parameters()
        self.set_kind()
        self.set_epsilon(self.number("layer_norm_eps"))
        self.keys.add("clip.vision.spatial_merge_size", self.integer("merge_size"), "uint32")
