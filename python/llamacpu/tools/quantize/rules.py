"""The type of each tensor by the rules of a preset, the same as llama-quantize chooses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llamacpu.errors import ModelError
from llamacpu.tools.quantize.tensors import category, layer_of, takes_factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamacpu.gguf.header import Tensor
    from llamacpu.gguf.metadata import Metadata

__all__ = ["Facts", "Rules", "facts_of"]

_LOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
_VALUES = ("attn_v", "attn_qkv", "attn_kv_b")
# Layers of the Llama 2 shape that other programs call 70B.
_LAYERS_OF_70B = {"llama": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}
_OUTPUT_BY_EXPERTS = (
    "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS",
)  # fmt: skip


@dataclass(frozen=True)
class Facts:
    """What the rules need to know about a model."""

    architecture: str
    layers: int
    experts: int
    shared_heads: int
    """query heads for each key and value head; 0 without any"""
    is_70b: bool


def _first(value: object) -> int:
    if hasattr(value, "__getitem__") and not isinstance(value, str):
        value = value[0] if len(value) else 0  # type: ignore[arg-type]
    return int(value) if isinstance(value, (int, float)) or hasattr(value, "__int__") else 0


def facts_of(metadata: Metadata) -> Facts:
    """Read the facts from a file's metadata. Raises ModelError for a file without an architecture."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ModelError("the file has no general.architecture: it is not a model; give the GGUF file of a model")
    layers, experts, heads = (
        _first(metadata.get(f"{architecture}.{key}", 0))
        for key in ("block_count", "expert_count", "attention.head_count")
    )
    keys = _first(metadata.get(f"{architecture}.attention.head_count_kv", heads))
    large = _LAYERS_OF_70B.get(architecture) == layers
    if architecture == "llama":
        large = large and heads != keys and experts != 8
    return Facts(architecture, layers, experts, heads // keys if keys else 0, large)


@dataclass
class Rules:
    """The rules of one preset for one file; tensors must be asked for in their order."""

    preset: str
    facts: Facts
    has_importance: bool
    names: Sequence[str]
    output_type: str | None = None
    embedding_type: str | None = None
    _seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tied: bool = "output.weight" not in self.names
        self.values: int = sum(category(name) in _VALUES for name in self.names)

    def type_of(self, tensor: Tensor, base: str) -> str:
        """The type for a tensor that is not named otherwise; `base` is the preset's."""
        kind = category(tensor.name)
        if kind == "output" or (self.tied and kind == "token_embd"):
            return self.output_type or self._output(tensor, base)
        if self.preset == "MXFP4_MOE":
            return "MXFP4" if len(tensor.shape) > 2 and tensor.shape[2] > 1 else "Q8_0"
        if kind == "token_embd":
            return self.embedding_type or self._embedding(base)
        if self.preset == "NVFP4":
            return base if takes_factor(tensor.name) else "Q4_K"
        if self.preset in _LOW:
            return self._low(kind, base)
        if kind in _VALUES:
            return self._value(base)
        if kind in ("attn_k", "attn_q"):
            return self._key_or_query(kind, base)
        if kind == "ffn_down":
            return self._down(tensor.name, base)
        if kind == "attn_output":
            return self._attention_output(base)
        if kind in ("ffn_gate", "ffn_up"):
            return self._gate_or_up(kind, tensor.name, base)
        return base

    def _output(self, tensor: Tensor, base: str) -> str:
        from llamacpu import kernels

        if self.preset == "MXFP4_MOE" or self.facts.architecture == "falcon":
            return "Q8_0"
        if tensor.shape[0] % kernels.FORMATS[base].block_elements:
            return "Q8_0"
        if self.preset in _LOW or self.preset == "IQ3_XXS":
            return "Q5_K"
        return base if base == "Q8_0" else "Q6_K"

    def _embedding(self, base: str) -> str:
        if self.preset in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
            return "Q2_K"
        if self.preset in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
            return "IQ3_S"
        return "Q4_K" if self.preset in ("TQ1_0", "TQ2_0", "Q2_0", "NVFP4") else base

    def _low(self, kind: str, base: str) -> str:
        facts = self.facts
        better = "IQ3_S" if self.preset in ("IQ2_S", "IQ2_M") else "Q2_K"
        if kind in _VALUES:
            self._count("values")
            return "Q4_K" if facts.shared_heads >= 4 or facts.experts >= 4 else better
        if kind == "attn_k" and facts.experts == 8:
            return "Q4_K"
        if kind == "ffn_down":
            return better if self._count("ffn_down") < facts.layers // 8 else base
        if kind == "attn_output":
            if facts.experts == 8:
                return "Q5_K"
            if self.preset in ("IQ1_S", "IQ1_M"):
                return "IQ2_XXS"
            return "IQ3_S" if self.preset in ("IQ2_S", "IQ2_M") else base
        return base

    def _value(self, base: str) -> str:
        preset, number, shared = self.preset, self._count("values"), self.facts.shared_heads
        chosen = base
        if preset == "Q2_K":
            chosen = "Q4_K" if shared >= 4 else "Q3_K"
        elif preset in ("Q2_K_S", "IQ3_XS", "IQ3_S") and shared >= 4:
            chosen = "Q4_K"
        elif preset == "IQ3_XXS":
            chosen = "Q4_K" if shared >= 4 else base if self.has_importance else "IQ3_S"
        elif preset == "IQ3_M":
            chosen = "Q4_K"
        elif preset == "Q3_K_M":
            chosen = "Q5_K" if number < 2 else "Q4_K"
        elif preset == "Q3_K_L" or (preset in ("IQ4_NL", "IQ4_XS") and shared >= 4):
            chosen = "Q5_K"
        elif preset in ("Q4_K_M", "Q5_K_M") and _more_bits(number, self.values):
            chosen = "Q6_K"
        elif preset == "Q4_K_S" and number < 4:
            chosen = "Q5_K"
        if self.facts.is_70b and chosen in ("Q3_K", "Q4_K"):
            chosen = "Q5_K"
        return "Q8_0" if self.facts.experts == 8 else chosen

    def _key_or_query(self, kind: str, base: str) -> str:
        if kind == "attn_k" and self.facts.experts == 8:
            return "Q8_0"
        return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self.preset, base)

    def _down(self, name: str, base: str) -> str:
        preset, falcon = self.preset, self.facts.architecture == "falcon"
        layer, layers = self._layer("ffn_down", name), self.facts.layers
        early, more = layer < layers // 8, _more_bits(layer, layers)
        if preset == "Q2_K":
            return "Q3_K"
        if preset == "Q2_K_S":
            return "Q4_K" if early else base
        if preset == "IQ3_XXS" and not self.has_importance:
            return "Q4_K" if early else "Q3_K"
        if preset == "Q3_K_M":
            return "Q5_K" if layer < layers // 16 else "Q4_K" if not falcon or more else "Q3_K"
        if preset == "IQ3_M" and (early or (self.facts.experts == 8 and more)):
            return "Q4_K"
        if preset == "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        if preset == "Q4_K_M":
            if falcon:
                return "Q6_K" if layer < layers // 16 else "Q5_K" if more else "Q4_K"
            return "Q6_K" if more else base
        if preset in ("IQ4_NL", "IQ4_XS") and early and not self.has_importance:
            return "Q5_K"
        if preset == "Q5_K_M" and more:
            return "Q6_K"
        if preset == "Q4_K_S" and not falcon and early:
            return "Q5_K"
        if preset in ("Q4_0", "Q5_0") and self.has_importance and early:
            return "Q4_1" if preset == "Q4_0" else "Q5_1"
        return base

    def _attention_output(self, base: str) -> str:
        if self.facts.architecture == "falcon":
            return "Q4_K" if self.preset == "Q3_K_L" else base
        if self.facts.experts == 8:
            return "Q5_K" if self.preset in _OUTPUT_BY_EXPERTS else base
        return {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}.get(
            self.preset, base
        )

    def _gate_or_up(self, kind: str, name: str, base: str) -> str:
        layer, layers = self._layer(kind, name), self.facts.layers
        middle = layers // 8 <= layer < 7 * layers // 8
        return "IQ3_XXS" if self.preset == "IQ3_XS" and middle else base

    def _layer(self, kind: str, name: str) -> int:
        """The number of a tensor among those of its kind; with experts, its layer, since their order is arbitrary."""
        number = self._count(kind)
        if self.facts.experts <= 1:
            return number
        layer = layer_of(name)
        if not 0 <= layer < self.facts.layers:
            raise ModelError(f"tensor {name!r} is in layer {layer} of {self.facts.layers}; the file is damaged")
        return layer

    def _count(self, kind: str) -> int:
        number = self._seen.get(kind, 0)
        self._seen[kind] = number + 1
        return number


def _more_bits(layer: int, layers: int) -> bool:
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
