"""The parameters of a Modelfile, under Ollama's names, and what each of them sets here.

https://docs.ollama.com/modelfile#parameter
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = [
    "KNOWN",
    "as_text",
    "context_of",
    "limit_of",
    "plain",
    "sampling_of",
    "stops_of",
    "value_of",
    "without_effect",
]


class Parameter(NamedTuple):
    """A parameter. field: a field of `Sampling`, or what else it sets; None for a parameter without effect here."""

    kind: type
    field: str | None = None
    low: float = -math.inf
    high: float = math.inf


KNOWN: Mapping[str, Parameter] = {
    "temperature": Parameter(float, "temperature", 0, 1000),
    "top_k": Parameter(int, "top_k", -1),
    "top_p": Parameter(float, "top_p", 0, 1),
    "min_p": Parameter(float, "min_p", 0, 1),
    "typical_p": Parameter(float, "typical_p", 0, 1),
    "repeat_last_n": Parameter(int, "penalty_last_n", -1),
    "repeat_penalty": Parameter(float, "repeat_penalty", 1e-9),
    "presence_penalty": Parameter(float, "presence_penalty"),
    "frequency_penalty": Parameter(float, "frequency_penalty"),
    "mirostat": Parameter(int, "mirostat", 0, 2),
    "mirostat_tau": Parameter(float, "mirostat_tau", 0),
    "mirostat_eta": Parameter(float, "mirostat_eta", 0),
    "seed": Parameter(int, "seed"),
    "num_ctx": Parameter(int, "context", 1, 1 << 30),
    "num_predict": Parameter(int, "max_tokens", -2),
    "stop": Parameter(str, "stop"),
    **dict.fromkeys(
        ("num_keep", "num_gpu", "num_thread", "num_batch", "main_gpu", "num_gqa", "draft_num_predict"), Parameter(int)
    ),
    **dict.fromkeys(("tfs_z", "rope_frequency_base", "rope_frequency_scale"), Parameter(float)),
    **dict.fromkeys(
        (
            "numa", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mmap", "use_mlock", "penalize_newline",
            "embedding_only",
        ),
        Parameter(bool),
    ),
}  # fmt: skip
"""Ollama's name -> the parameter here. `stop` may be given several times."""
_NOT_SAMPLING = ("context", "max_tokens", "stop", None)
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def value_of(name: str, given: Any) -> Any:
    """Return the value of a parameter given in a Modelfile or JSON. Raises ValueError for an invalid value."""
    known = KNOWN.get(name)
    if known is None:
        raise ValueError(f"there is no parameter {name!r:.60}; expected one of {', '.join(KNOWN)}")
    value: Any = None
    if known.kind is str or (isinstance(given, bool) != (known.kind is bool) and not isinstance(given, str)):
        value = given if isinstance(given, str) and known.kind is str and given else None
    elif known.kind is bool:
        words = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
        value = given if isinstance(given, bool) else words.get(str(given).lower())
    else:
        try:
            number = float(given)
            value = (int(given) if isinstance(given, str) else int(number)) if known.kind is int else number
            value = value if value == number or isinstance(given, str) else None
        except (ValueError, TypeError, OverflowError):
            value = None
        if value is not None and not math.isfinite(value):
            value = None
    if value is None:
        raise ValueError(f"{name} is {given!r:.60}; expected {_NAMES[known.kind]}")
    if known.kind in (int, float) and not known.low <= value <= known.high:
        raise ValueError(f"{name} is {value}; expected {_range(known)}")
    return value


def _range(known: Parameter) -> str:
    if known.high == math.inf:
        return "more than 0" if 0 < known.low < 1 else f"{known.low:g} or more"
    return f"{known.low:g} to {known.high:g}"


def _valid(parameters: Mapping[str, Any], name: str) -> Any:
    if name not in parameters:
        return None
    try:
        return value_of(name, parameters[name])
    except ValueError:
        return None


def sampling_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `Sampling`; invalid values are left out."""
    found = {}
    for name, known in KNOWN.items():
        value = None if known.field in _NOT_SAMPLING else _valid(parameters, name)
        if value is not None:
            found[str(known.field)] = value
    return found


def context_of(parameters: Mapping[str, Any]) -> int | None:
    """Return the most tokens of a conversation; None if unspecified."""
    found: int | None = _valid(parameters, "num_ctx")
    return found


def limit_of(parameters: Mapping[str, Any]) -> int | None:
    """Return the most tokens of an answer; None for no limit."""
    found: int | None = _valid(parameters, "num_predict")
    return found if found is not None and found >= 0 else None


def stops_of(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts that end an answer."""
    given = parameters.get("stop")
    texts = [given] if isinstance(given, str) else given if isinstance(given, (list, tuple)) else []
    return tuple(text for text in texts if isinstance(text, str) and text)


def without_effect(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of parameters without effect: of another engine, unknown, or with an invalid value."""
    return [
        name
        for name in parameters
        if name not in KNOWN or KNOWN[name].field is None or (name != "stop" and _valid(parameters, name) is None)
    ]


def plain(value: Any) -> str:
    """Return a number or Boolean as written in a Modelfile."""
    return str(value).lower() if isinstance(value, bool) else f"{value}".removesuffix(".0")


def as_text(parameters: Mapping[str, Any]) -> str:
    """Format parameters as Ollama does: one per line, the values in a column, texts in quotes."""
    lines = []
    for name, value in parameters.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            shown = f'"{one}"' if isinstance(one, str) else plain(one)
            lines.append(f"{name:<30} {shown}")
    return "\n".join(lines)
