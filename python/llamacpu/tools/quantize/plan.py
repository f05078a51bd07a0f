"""The plan of a quantization: which type every tensor gets, and the size of the file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from llamacpu import kernels
from llamacpu.errors import ModelError
from llamacpu.gguf.writer import tensor_nbytes
from llamacpu.tools.quantize.presets import Preset, format_named
from llamacpu.tools.quantize.rules import Rules, facts_of
from llamacpu.tools.quantize.tensors import category, in_order, is_embedding, is_quantizable

if TYPE_CHECKING:
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.gguf.header import Tensor

__all__ = ["Options", "Step", "needs_importance", "plan", "with_fallback"]

_PLAIN = ("F32", "F16", "BF16")
_FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0", "NVFP4", "Q1_0", "Q2_0"), "Q4_0"),
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip
_NEED_IMPORTANCE = ("IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S")


class Step(NamedTuple):
    """What becomes of one tensor."""

    tensor: Tensor
    format: str
    """its new type"""

    @property
    def converts(self) -> bool:
        """Whether the tensor gets another type."""
        return self.format != self.tensor.type_name

    @property
    def nbytes(self) -> int:
        """Size of the new tensor in bytes."""
        return tensor_nbytes(self.tensor.shape[::-1], self.format) if self.converts else self.tensor.nbytes


@dataclass(frozen=True)
class Options:
    """What a caller asks for beside the preset."""

    patterns: tuple[tuple[re.Pattern[str], str], ...] = ()
    output_type: str | None = None
    embedding_type: str | None = None
    leave_output: bool = False
    pure: bool = False
    allow_requantize: bool = False

    @classmethod
    def of(
        cls,
        tensor_types: Mapping[str, str] | Sequence[tuple[str, str]] | None,
        output_type: str | None,
        embedding_type: str | None,
        leave_output: bool,
        pure: bool,
        allow_requantize: bool,
    ) -> Options:
        """Check and prepare the options.

        Raises ValueError for a pattern that is no regular expression and for types that cannot be written.
        """
        pairs = tensor_types.items() if isinstance(tensor_types, Mapping) else tensor_types or ()
        patterns = []
        for pattern, name in pairs:
            try:
                patterns.append((re.compile(pattern.lower()), format_named(name)))
            except (re.error, AttributeError) as error:
                raise ValueError(f"the pattern {pattern!r:.60} is no regular expression: {error}") from None
        output = None if output_type is None else format_named(output_type)
        embedding = None if embedding_type is None else format_named(embedding_type)
        return cls(tuple(patterns), output, embedding, bool(leave_output), bool(pure), bool(allow_requantize))

    def named(self, name: str) -> str | None:
        """The type that a pattern gives to a tensor."""
        return next((kind for pattern, kind in self.patterns if pattern.search(name)), None)


def plan(file: GGUFFile, preset: Preset, options: Options, has_importance: bool) -> list[Step]:
    """The types of all tensors, in the order of the new file."""
    tensors = in_order(file.tensors)
    facts = facts_of(file.metadata)
    names = [tensor.name for tensor in tensors]
    rules = Rules(preset.name, facts, has_importance, names, options.output_type, options.embedding_type)
    return [Step(tensor, _type_of(tensor, preset, options, rules)) for tensor in tensors]


def _type_of(tensor: Tensor, preset: Preset, options: Options, rules: Rules) -> str:
    if not preset.format or not is_quantizable(tensor, options.leave_output):
        return tensor.type_name
    kind, named = category(tensor.name), options.named(tensor.name)
    if options.embedding_type and kind == "token_embd" and not (named and tensor.name.startswith("per_layer")):
        return _checked(tensor, options.embedding_type)
    if options.output_type and kind == "output":
        return _checked(tensor, options.output_type)
    if preset.format in _PLAIN:
        return preset.format
    if named is not None:
        return with_fallback(tensor, named)
    return with_fallback(tensor, preset.format if options.pure else rules.type_of(tensor, preset.format))


def _checked(tensor: Tensor, format: str) -> str:
    elements = kernels.FORMATS[format].block_elements
    if tensor.shape[0] % elements:
        raise ValueError(
            f"tensor {tensor.name!r} has rows of {tensor.shape[0]} weights, which cannot be {format} (a multiple of "
            f"{elements}); choose another type for it"
        )
    return format


def with_fallback(tensor: Tensor, format: str) -> str:
    """The type, or a near one if the rows of the tensor are not a multiple of its blocks."""
    for found in (format, _FALLBACKS.get(format, "F16")):
        if tensor.shape[0] % kernels.FORMATS[found].block_elements == 0:
            return found
    return "F16"


def needs_importance(step: Step, preset: Preset) -> bool:
    """Whether a type is too coarse to be written without an importance matrix."""
    if not step.converts or is_embedding(step.tensor.name) or step.tensor.name == "output.weight":
        return False
    return step.format in _NEED_IMPORTANCE or (step.format == "Q2_K" and preset.name == "Q2_K_S")


def check(steps: Sequence[Step], preset: Preset, options: Options, importance: Mapping[str, object] | None) -> None:
    """Raise ModelError for what must not or cannot be converted."""
    for step in steps:
        if not step.converts:
            continue
        name, source = step.tensor.name, step.tensor.type_name
        if source not in kernels.FORMATS:
            raise ModelError(f"tensor {name!r} is {source}, which cannot be read here; use COPY to keep it as it is")
        if source not in _PLAIN and not options.allow_requantize:
            raise ModelError(
                f"tensor {name!r} is quantized already ({source}): quantizing it again loses more quality than "
                "quantizing the original; get an F32, F16 or BF16 file, or allow it (--allow-requantize, "
                "allow_requantize=True)"
            )
        if needs_importance(step, preset) and (importance is None or name not in importance):
            missing = "" if importance is None else f", and the one given has no entry for {name!r}"
            raise ModelError(
                f"{step.format} for {name!r} needs an importance matrix{missing}; give one (--imatrix FILE, "
                "imatrix=...) or choose a type of more bits"
            )


def elements(steps: Sequence[Step]) -> int:
    """Number of weights."""
    return sum(math.prod(step.tensor.shape) for step in steps)
