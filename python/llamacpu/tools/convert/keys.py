"""The metadata of a file that is being made: keys in llama.cpp's spelling, values of its types."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.gguf.values import Typed

__all__ = ["Keys"]

# Keys of an architecture are uint32 unless they are listed here.
_FLOATS = re.compile(
    r"attention\.(clamp_kqv|max_alibi_bias|layer_norm_epsilon|layer_norm_rms_epsilon|scale|temperature_scale)|.*_scale|.*_softcapping"
    r"|rope\.freq_base(_swa)?|attention\.compress_rope_freq_base|hyper_connection\.epsilon|rope\.scaling\.(factor|attn_factor|yarn_.*)|expert_weights_scale"
)
_BOOLS = (
    "attention.causal", "expert_weights_norm", "use_parallel_residual", "norm_before_residual", "norm_before_fc",
)  # fmt: skip
_STRINGS = ("rope.scaling.type", "tensor_data_layout", "hidden_activation")


class Keys:
    """Metadata in the order in which it is written; a key that is set again keeps its place.

    architecture  general.architecture, and the beginning of the keys of `set`
    values        key to value
    """

    def __init__(self, architecture: str) -> None:
        self.architecture = architecture
        self.values: dict[str, Typed] = {}
        self.add("general.architecture", architecture, "string")

    def set(self, name: str, value: Any) -> None:
        """Set a key of the architecture ("rope.freq_base"): a number, or one for each layer.

        Raises CheckpointError for a value that it cannot have.
        """
        self.add(f"{self.architecture}.{name}", value, _type_of(name))

    def add(self, key: str, value: Any, kind: str) -> None:
        """Set a key of any kind, unless the value is an empty text or list.

        Raises CheckpointError for a value that is not of the type.
        """
        if isinstance(value, (list, tuple)):
            kind = _element_type(value, kind)
            wrong = next((element for element in value if not _fits(element, kind)), None)
        else:
            wrong = None if _fits(value, kind) else value
            if value is None:
                raise CheckpointError(f"the configuration does not say what {key} is; expected a value of type {kind}")
        if wrong is not None:
            raise CheckpointError(
                f"{key} would be {wrong!r:.60}; expected a value of type {kind}: is config.json sound?"
            )
        if not isinstance(value, (str, list, tuple)) or len(value):
            self.values[key] = Typed(
                float(value) if kind == "float32" and not isinstance(value, (list, tuple)) else value, kind
            )


def _type_of(name: str) -> str:
    if name in _BOOLS:
        return "bool"
    if name in _STRINGS:
        return "string"
    return "float32" if _FLOATS.fullmatch(name) else "uint32"


def _element_type(values: Sequence[Any], kind: str) -> str:
    # As every writer of the gguf package does it: the type follows from the first element.
    if kind in ("uint32", "int32") and values:
        if isinstance(values[0], bool):
            return "bool"
        return "float32" if isinstance(values[0], float) else "int32"
    return kind


_RANGES = {"uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1), "uint8": (0, 255)}


def _fits(value: Any, kind: str) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "string":
        return isinstance(value, (str, bytes))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    if kind == "float32":
        return isinstance(value, float) or abs(value) <= sys.float_info.max
    low, high = _RANGES[kind]
    return isinstance(value, int) and low <= value <= high
