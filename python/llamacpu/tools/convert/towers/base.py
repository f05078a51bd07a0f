"""What the vision encoders share: the tensors before the language model, and the keys that begin with "clip."."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.keys import Keys
from llamacpu.tools.convert.source import Source

__all__ = ["Tower"]

F16_FILE = 1
_LAYER = re.compile(r"(?:.+\.)?(?:layers|blocks)\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "attn_q": "self_attn.q_proj attention.q_proj attn.q_proj attn.q",
    "attn_k": "self_attn.k_proj attention.k_proj attn.k_proj attn.k",
    "attn_v": "self_attn.v_proj attention.v_proj attn.v_proj attn.v",
    "attn_qkv": "attn.qkv",
    "attn_out": "self_attn.out_proj self_attn.o_proj attention.o_proj attn.proj",
    "ln1": "layer_norm1 input_layernorm attention_norm norm1",
    "ln2": "layer_norm2 post_attention_layernorm ffn_norm norm2",
    "ffn_up": "mlp.fc1 mlp.linear_fc1 feed_forward.up_proj mlp.up_proj",
    "ffn_gate": "feed_forward.gate_proj mlp.gate_proj",
    "ffn_down": "mlp.fc2 mlp.linear_fc2 feed_forward.down_proj mlp.down_proj",
}
_BLOCKS = {theirs: ours for ours, names in _PARTS.items() for theirs in names.split()}
_SIZES = (
    ("image_size", ("image_size",)),
    ("patch_size", ("patch_size",)),
    ("embedding_length", ("hidden_size", "width")),
    ("feed_forward_length", ("intermediate_size",)),
    ("block_count", ("num_hidden_layers", "depth")),
    ("attention.head_count", ("num_attention_heads", "num_heads")),
)


class Tower(ABC):
    """How the vision encoder of one kind of model becomes a file.

    Subclasses name the kind and override what differs: `kept`, `converted`, `format_of`, `set_parameters`.

    projector  clip.projector_type
    whole      names of the checkpoint's kind, without prefix, to those of a file
    defaults   what the configuration may leave out
    """

    projector: ClassVar[str] = ""
    whole: ClassVar[Mapping[str, str]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, source: Source, file_type: int) -> None:
        self.source = source
        self.file_type = file_type
        found = source.root.get("vision_config")
        if not isinstance(found, dict):
            raise CheckpointError("config.json: there is no vision_config; the model does not see")
        self.config: dict[str, Any] = {**self.defaults, **found}
        checkpoint = source.checkpoint
        self.settings: dict[str, Any] = dict(checkpoint.json("preprocessor_config.json") or {})
        processor = checkpoint.json("processor_config.json") or {}
        inner = processor.get("image_processor")
        self.settings |= processor | (inner if isinstance(inner, dict) else {})
        self.keys: Keys = Keys("clip")

    def integer(self, *names: str) -> int:
        """A positive number of the configuration, by the first of the names that it has."""
        value = next((self.config[name] for name in names if name in self.config), None)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise CheckpointError(
                f"config.json: {names[0]} of vision_config is {value!r:.60}; expected a number above 0"
            )
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number of the configuration."""
        value = self.config.get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CheckpointError(f"config.json: {name} of vision_config is {value!r:.60}; expected a number")
        return value

    def require_usual_rotation(self) -> None:
        """Raise CheckpointError for another base of the rotary positions than the one that readers of files assume."""
        found = self.config.get("rope_parameters") or self.config
        base = found.get("rope_theta", 10000) if isinstance(found, dict) else found
        if base != 10000:
            raise CheckpointError(
                f"config.json: rope_theta of vision_config is {base!r:.40}; expected 10000, since files of encoders "
                "have no key for another"
            )

    def tensors(self) -> Iterator[tuple[str, str, Array]]:
        """The tensors of the file: their names, those of the checkpoint, and the arrays.

        Raises CheckpointError for a tensor that has no place in the encoder.
        """
        for original, tensor in self.source.tensors():
            name = self.kept(original)
            if name is None:
                continue
            for theirs, array in self.converted(name, Array.of(tensor)):
                ours = self.renamed(theirs)
                if ours is None:
                    raise CheckpointError(
                        f"the tensor {original!r:.120} has no place in an encoder of the kind {self.projector!r}"
                    )
                yield ours, name, array

    @abstractmethod
    def kept(self, name: str) -> str | None:
        """The name of a tensor in the words of the kind; None for one of the language model."""

    def converted(self, name: str, array: Array) -> Iterator[tuple[str, Array]]:
        """What a tensor becomes: names of the checkpoint's kind, or of the file's, and the tensors."""
        yield name, array

    def renamed(self, name: str) -> str | None:
        """The name in the file."""
        if name.startswith(("v.", "mm.")):
            return name
        match = _LAYER.fullmatch(name)
        if match:
            part = _BLOCKS.get(match[2])
            return f"v.blk.{int(match[1])}.{part}.{match[3]}" if part else None
        stem, _, suffix = name.rpartition(".")
        if suffix in ("weight", "bias") and stem in self.whole:
            return f"{self.whole[stem]}.{suffix}"
        return self.whole.get(name)

    def format_of(self, ours: str, theirs: str, shape: tuple[int, ...], chosen: str) -> str:
        """The format in which a tensor is stored in a file whose matrices have the chosen one."""
        del theirs
        if len(shape) <= 1 or ours.endswith(("_norm.weight", "position_embd.weight")):
            return "F32"
        if ".patch_embd.weight" in ours or ".patch_merger.weight" in ours:
            return "F16" if self.file_type == F16_FILE else "F32"
        if not ours.endswith(".weight"):
            return "F32"
        return "F16" if chosen == "Q8_0" and shape[-1] % 32 else chosen

    def set_parameters(self) -> None:
        """Set the keys that all encoders have."""
        keys = self.keys
        keys.add("general.file_type", self.file_type, "uint32")
        keys.add("clip.has_vision_encoder", True, "bool")
        keys.add("clip.vision.projection_dim", self.source.integer("hidden_size", "n_embd"), "uint32")
        for key, names in _SIZES:
            keys.add(f"clip.vision.{key}", self.integer(*names), "uint32")
        for key in ("image_mean", "image_std"):
            values = self.settings.get(key)
            if not isinstance(values, list) or len(values) != 3:
                raise CheckpointError(
                    f"preprocessor_config.json: {key} is {values!r:.60}; expected a number for each of three colours"
                )
            keys.add(f"clip.vision.{key}", values, "float32")

    def check(self, names: Iterable[str]) -> None:
        """Raise CheckpointError if the layers in a file with these tensors are not those of the configuration."""
        found = {int(name.split(".")[2]) for name in names if name.startswith("v.blk.")}
        layers = self.integer("num_hidden_layers", "depth")
        if found != set(range(layers)):
            raise CheckpointError(
                f"the checkpoint has {len(found)} layers of the encoder, up to number {max(found, default=-1)}; "
                f"config.json says {layers}"
            )

    def set_kind(self, projector: str = "") -> None:
        """Set the kind of the projector, if it is another than that of the class."""
        self.keys.add("clip.projector_type", projector or self.projector, "string")

    def set_epsilon(self, value: float) -> None:
        """Set the epsilon of the norms."""
        self.keys.add("clip.vision.attention.layer_norm_epsilon", value, "float32")

    def use(self, activation: str) -> None:
        """Set the activation: "gelu" or "silu"."""
        self.keys.add(f"clip.use_{activation}", True, "bool")
