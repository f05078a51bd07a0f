"""The names under which files are quantized, as llama-quantize knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from llamacpu import kernels
from llamacpu.arguments import meant
from llamacpu.gguf.types import TENSOR_TYPES

__all__ = ["PRESETS", "Preset", "format_named", "preset_named", "preset_of"]


class Preset(NamedTuple):
    """One preset."""

    name: str
    file_type: int
    """value of `general.file_type` in the file"""
    format: str
    """type of most tensors; "" to copy them all"""


PRESETS: dict[str, Preset] = {
    row[0]: Preset(*row)
    for row in (
        ("F32", 0, "F32"),
        ("F16", 1, "F16"),
        ("BF16", 32, "BF16"),
        ("Q8_0", 7, "Q8_0"),
        ("Q6_K", 18, "Q6_K"),
        ("Q5_K_M", 17, "Q5_K"),
        ("Q5_K_S", 16, "Q5_K"),
        ("Q5_1", 9, "Q5_1"),
        ("Q5_0", 8, "Q5_0"),
        ("Q4_K_M", 15, "Q4_K"),
        ("Q4_K_S", 14, "Q4_K"),
        ("Q4_1", 3, "Q4_1"),
        ("Q4_0", 2, "Q4_0"),
        ("NVFP4", 39, "NVFP4"),
        ("IQ4_NL", 25, "IQ4_NL"),
        ("IQ4_XS", 30, "IQ4_XS"),
        ("Q3_K_L", 13, "Q3_K"),
        ("Q3_K_M", 12, "Q3_K"),
        ("Q3_K_S", 11, "Q3_K"),
        ("IQ3_M", 27, "IQ3_S"),
        ("IQ3_S", 26, "IQ3_S"),
        ("IQ3_XS", 22, "IQ3_S"),
        ("IQ3_XXS", 23, "IQ3_XXS"),
        ("Q2_K", 10, "Q2_K"),
        ("Q2_K_S", 21, "Q2_K"),
        ("IQ2_M", 29, "IQ2_S"),
        ("IQ2_S", 28, "IQ2_XS"),
        ("IQ2_XS", 20, "IQ2_XS"),
        ("IQ2_XXS", 19, "IQ2_XXS"),
        ("IQ1_M", 31, "IQ1_M"),
        ("IQ1_S", 24, "IQ1_S"),
        ("Q2_0", 41, "Q2_0"),
        ("TQ2_0", 37, "TQ2_0"),
        ("TQ1_0", 36, "TQ1_0"),
        ("Q1_0", 40, "Q1_0"),
        ("MXFP4_MOE", 38, "MXFP4"),
        ("COPY", -1, ""),
    )
}
"""Every preset by name, from the largest files to the smallest."""

_OTHER_NAMES = {
    "Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32", "MXFP4": "MXFP4_MOE",
}  # fmt: skip


def preset_named(name: str) -> Preset:
    """The preset of a name (in any case) or of a file type's number.

    Raises TypeError for anything but a string, ValueError for an unknown name.
    """
    if not isinstance(name, str):
        raise TypeError(f"preset is of type {type(name).__name__}; expected a name such as 'Q4_K_M'")
    upper = name.strip().upper()
    upper = _OTHER_NAMES.get(upper, upper)
    if upper in PRESETS:
        return PRESETS[upper]
    for preset in PRESETS.values():
        if upper == str(preset.file_type):
            return preset
    hint = meant(upper, PRESETS) or f"; expected one of {', '.join(PRESETS)}"
    raise ValueError(f"the preset {name!r:.40} is unknown{hint}")


def preset_of(formats: Iterable[str]) -> Preset:
    """The preset whose main type is the most frequent of these: what a file of mixed types is called."""
    counts = Counter(formats)
    for format, _ in counts.most_common():
        for preset in PRESETS.values():
            if preset.format == format:
                return preset
    return PRESETS["COPY"]


def format_named(name: str) -> str:
    """The tensor format of a name in any case.

    Raises TypeError for anything but a string, ValueError for a format that cannot be written.
    """
    if not isinstance(name, str):
        raise TypeError(f"the tensor type is of type {type(name).__name__}; expected a name such as 'Q6_K'")
    upper = name.strip().upper()
    if upper in kernels.FORMATS:
        return upper
    known = {row.name for row in TENSOR_TYPES.values()}
    problem = "cannot be written" if upper in known else "is unknown"
    raise ValueError(f"the tensor type {name!r:.40} {problem}; expected one of {', '.join(kernels.FORMATS)}")
