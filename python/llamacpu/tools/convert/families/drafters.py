"""Drafters that have the tokenizer of the model they were made for: DFlash and EAGLE-3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.llama import Llama
from llamacpu.tools.convert.families.qwen import Qwen3
from llamacpu.tools.convert.source import Source, Target
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["DFlash", "Eagle3", "MuseGlimmerAssistant"]

_LAYERS = "eagle_aux_hidden_state_layer_ids"


class _Drafter(Family):
    """What these have in common: a target, which the file describes and must fit."""

    drafts = True

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        if source.target is None:
            raise CheckpointError(
                f"{source.checkpoint.folder}: a drafter, whose file holds the tokenizer of the model that it was made "
                "for; give that model, its folder, GGUF file or name (target_model, --target-model)"
            )
        self.target: Target = source.target
        size = self.config.get("vocab_size")
        if size is not None and size != self.target.vocabulary:
            raise self._other("vocab_size", size, self.target.vocabulary, "tokens")

    def set_vocabulary(self) -> None:
        self.target.set_vocabulary(self.keys)

    def check_width(self, key: str) -> None:
        """Refuse a target whose hidden states have another size than the configuration says."""
        size = self.source.integer(key)
        if size != self.target.width:
            raise self._other(key, size, self.target.width, "elements of a hidden state")

    def targets(self, layers: Any, shift: int, what: str) -> list[int]:
        """Numbers of the layers of the target whose inputs are read, given those in the configuration less `shift`."""
        if (
            not isinstance(layers, list)
            or not layers
            or not all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers)
        ):
            raise CheckpointError(f"config.json: {what} is {layers!r:.60}; expected a list of numbers of layers")
        found = [layer + shift for layer in layers]
        if min(found) < 1 or max(found) > self.target.layers:
            raise CheckpointError(
                f"config.json: {what} is {layers!r:.60}, but the model in {self.target.name} has {self.target.layers} "
                "layers; expected the target that the drafter was made for"
            )
        return found

    def _other(self, key: str, own: Any, theirs: int, what: str) -> CheckpointError:
        return CheckpointError(
            f"config.json: {key} is {own!r:.40}, but the model in {self.target.name} has {theirs} {what}; expected the "
            "target that the drafter was made for"
        )


class DFlash(_Drafter, Qwen3):
    """DFlash, which fills a block of masked positions at once; its layers are those of Qwen 3."""

    architecture = "dflash"
    names: ClassVar[Mapping[str, str]] = {"model.fc": "fc", "model.hidden_norm": "enc.output_norm"}

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        found = self.config.get("dflash_config", {})
        if not isinstance(found, dict):
            raise CheckpointError(f"config.json: dflash_config is {found!r:.60}; expected an object")
        self.settings: dict[str, Any] = found
        if "conv_kernel_size" in found or "selector_rank" in found:
            raise CheckpointError("config.json: a selector of candidates (DFlash 2), which does not run here")
        if source.checkpoint.file("mask_embedding.pt") is not None:
            raise CheckpointError("mask_embedding.pt: an embedding of the mask of its own, which is not supported")
        self.check_width("hidden_size")

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, size = self.keys, self.source.head_size
        share = self.source.rope.get("partial_rotary_factor")
        if share is not None:
            keys.set("rope.dimension_count", int(size * self.source.rope_number("partial_rotary_factor")))
        if self.settings.get("attention_value_scale") is not None:
            keys.set("attention.value_scale", self.settings["attention_value_scale"])
        keys.set("block_size", self.settings.get("block_size", self.config.get("block_size", 16)))
        self._set_scales()
        keys.set("target_layers", self.targets(self._setting("target_layer_ids"), 1, "target_layer_ids"))
        self._set_window()
        causal = self.config.get("is_causal")
        causal = self.settings.get("causal") if causal is None else causal
        if causal is not None:
            keys.set("attention.causal", causal)
        if self.target.sections:  # a text has the same position in all of them
            keys.set("rope.dimension_sections", [size // 2, 0, 0, 0])

    def _setting(self, name: str) -> Any:
        return self.settings.get(name, self.config.get(name))

    def _set_scales(self) -> None:
        activation = self.config.get("hidden_act", "silu")
        if activation != "silu":
            self.keys.set("hidden_activation", activation)
        for key, name in (
            ("logit_scale", "output_multiplier"),
            ("final_logit_softcapping", "final_logit_softcapping"),
            ("embedding_scale", "input_embedding_scale"),
        ):
            value = self._setting(name)
            if value is not None and (value != 0 or name != "final_logit_softcapping"):
                self.keys.set(key, value)

    def _set_window(self) -> None:
        everywhere = bool(self.settings.get("use_swa"))
        window = self.settings.get("swa_window_size") or self.config.get("sliding_window")
        if not window or not (everywhere or self.config.get("use_sliding_window")):
            return
        kinds = self.config.get("layer_types")
        if kinds is None:
            first = self.config.get("max_window_layers", 28)
            kinds = ["sliding_attention" if at >= first else "" for at in range(self.layers)]
        if not isinstance(kinds, list) or len(kinds) != self.layers:
            raise CheckpointError(f"config.json: layer_types is {kinds!r:.60}; expected one for each layer")
        self.keys.set("attention.sliding_window", window)
        near = [everywhere or kind == "sliding_attention" for kind in kinds]
        self.keys.set("attention.sliding_window_pattern", near)

    def set_vocabulary(self) -> None:
        super().set_vocabulary()
        self.keys.add("tokenizer.ggml.mask_token_id", self.settings.get("mask_token_id"), "uint32")

    def renamed(self, name: str) -> str | None:
        name = name if name.startswith("model.") else f"model.{name}"
        if "sink" in name and not name.endswith(".weight"):
            name = f"{name}.weight"
        if name == "model.embed_tokens.weight" and not self.config.get("has_embed_tokens", True):
            return None
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        rotated = ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "q_norm.weight", "k_norm.weight")
        if name.endswith(rotated) and not self.config.get("rope_is_neox_style", True):
            array = _halves(array, self.source.head_size, name)
        yield from super().converted(name, array, layer)


def _halves(array: Array, size: int, name: str) -> Array:
    """The rows of each head with those of even numbers first, then those of odd ones."""
    if size % 2 or not array.shape or array.shape[0] % size:
        raise CheckpointError(
            f"the tensor {name!r:.120} has the shape {array.shape}; expected rows for heads of {size}: is config.json "
            "sound?"
        )

    def order(values: Floats) -> Floats:
        pairs = values.reshape(-1, size // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)

    return array.whole(array.shape, order)


class MuseGlimmerAssistant(_Drafter):
    """The drafter of Muse Glimmer: DFlash in the form of transformers."""

    architecture = "dflash"
    names: ClassVar[Mapping[str, str]] = {"encoder.fc": "fc", "encoder.output_norm_enc": "enc.output_norm"}

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        self.check_width("hidden_size")

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config, source = self.keys, self.config, self.source
        keys.set("block_size", source.integer("block_size"))
        layers = config.get("target_layer_ids")
        given = [1, 13, 25, 37, 49] if layers is None else layers
        keys.set("target_layers", self.targets(given, 1, "target_layer_ids"))
        if config.get("sliding_window"):
            kinds = config.get("layer_types")
            kinds = ["sliding_attention"] * self.layers if kinds is None else kinds
            if not isinstance(kinds, list) or len(kinds) != self.layers:
                raise CheckpointError(f"config.json: layer_types is {kinds!r:.60}; expected one for each layer")
            keys.set("attention.sliding_window", config["sliding_window"])
            keys.set("attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])

    def set_vocabulary(self) -> None:
        super().set_vocabulary()
        self.keys.add("tokenizer.ggml.mask_token_id", self.config.get("mask_token_id"), "uint32")


class Eagle3(_Drafter, Llama):
    """EAGLE-3: one layer of Llama that reads three hidden states and continues its own."""

    architecture = "eagle3"
    names: ClassVar[Mapping[str, str]] = {
        "fc": "fc", "input_norm": "enc.output_norm", "hidden_norm": "attn_norm_2", "d2t": "d2t",
    }  # fmt: skip
    drops: ClassVar[tuple[str, ...]] = ("t2d",)

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        keys, config = self.keys, self.config
        if config.get("target_hidden_size") is None:
            config["target_hidden_size"] = self.target.width
        self.check_width("target_hidden_size")
        keys.set("target_layers", self._target_layers())
        keys.set("target_hidden_size", config["target_hidden_size"])
        for name in ("norm_before_residual", "norm_before_fc"):
            keys.set(name, config.get(name, False))

    def _target_layers(self) -> list[int]:
        layers = self.config.get(_LAYERS)
        if layers:
            return self.targets(layers, 0, _LAYERS)
        inner = self.config.get("eagle_config")
        layers = inner.get(_LAYERS) if isinstance(inner, dict) else None
        if layers:  # there they are numbers of the layers whose outputs are read
            return self.targets(layers, 1, f"{_LAYERS} of eagle_config")
        count = self.target.layers
        return self.targets([2, count // 2, count - 3], 0, f"{_LAYERS}, which is not given,")

    def set_vocabulary(self) -> None:
        if isinstance(self.target.prefix, bool):
            self.keys.add("tokenizer.ggml.add_space_prefix", self.target.prefix, "bool")
        super().set_vocabulary()

    def tensors(self) -> Named:
        held = []
        for name, array in super().tensors():
            if name == "d2t":
                held.append((name, self._map(array)))
            else:
                yield name, array
        yield from held

    def renamed(self, name: str) -> str | None:
        if name.startswith("midlayer."):
            name = f"model.layers.0.{name.removeprefix('midlayer.')}"
        elif name.startswith("layers.0."):
            name = f"model.{name}"
        return super().renamed(name)

    def _map(self, array: Array) -> Array:
        """The tokens of the target for the rows of the output matrix, of which checkpoints have the distances."""
        stored, size = array.untouched, self.target.vocabulary
        if stored is None or stored.dtype not in ("I64", "I32") or len(array.shape) != 1 or array.shape[0] > size:
            raise CheckpointError(
                f"the tensor 'd2t' has the type {array.dtype} and the shape {array.shape}; expected integers, at most "
                f"{size}"
            )
        tokens: NDArray[np.int64] = stored.read_raw().astype(np.int64) + np.arange(array.shape[0], dtype=np.int64)
        if ((tokens < 0) | (tokens >= size)).any():
            raise CheckpointError(
                f"the tensor 'd2t' names tokens outside the {size} of the model in {self.target.name}; expected the "
                "target that the drafter was made for"
            )
        if np.unique(tokens).size != tokens.size:
            raise CheckpointError("the tensor 'd2t' names a token twice; the checkpoint is damaged")
        data = tokens.astype("<i8").view(np.uint8)
        return Array.stored(array.shape, "I64", lambda: iter([data]))
