"""What is asked of every row, and the columns of its answer."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from llamacpu.sampling import Sampling

__all__ = ["COLUMNS", "Answering", "plain"]

COLUMNS: dict[str, Any] = {
    "answer": None,
    "reasoning": None,
    "tool_calls": None,
    "finish_reason": None,
    "prompt_tokens": 0,
    "cached_tokens": 0,
    "completion_tokens": 0,
    "error": None,
}
"""The columns of an answer, with their values if there is none. tool_calls: JSON, a list in OpenAI's format."""

_SAMPLING = {one.name for one in fields(Sampling)}
_STRUCTURED = ("response_format", "tools", "logit_bias", "dry_sequence_breakers")
_OF_ROWS = {"system", "max_tokens", "stop", "response_format", "tools", "tool_choice", "timeout", *_SAMPLING}
_WHOLE = {"max_tokens", "top_k", "penalty_last_n", "dry_allowed_length", "dry_last_n", "mirostat", "min_keep", "seed"}


@dataclass(frozen=True, kw_only=True)
class Answering:
    """What is asked of every row.

    prompt, messages  the columns with a text to continue, and with a conversation to answer (a list of messages as in
                      the OpenAI API, or the same as JSON text); if a row has both, the conversation is answered
    system            the system prompt for every conversation that has no system message
    max_tokens        the most tokens of an answer; None for as many as the context holds
    sampling          settings of `llamacpu.Sampling` (temperature, seed, top_p ...), overriding those that the file
                      recommends
    stop              texts that end an answer
    response_format, tools, tool_choice  as in the OpenAI API
    timeout           seconds that a row may take; its answer then ends with the finish reason "timeout"
    row_settings      columns with per-row settings: names of the fields above from `system` on, and of the settings of
                      `llamacpu.Sampling`. A row without a value uses the common one; lists and objects may be JSON
                      text. An invalid value is reported in the row's column "error"
    column_prefix     a prefix for the names of the answer's columns, in case the input has a column of the same name
    """

    prompt: str = "prompt"
    messages: str = "messages"
    system: str | None = None
    max_tokens: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = None
    timeout: float | None = None
    row_settings: Sequence[str] = ()
    column_prefix: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without a model. Raises ValueError or TypeError."""
        Sampling(**self.sampling)
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; expected 1 or more, or None")
        if isinstance(self.stop, str):
            raise TypeError("stop is a text; expected a tuple of texts")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout}; expected seconds above 0, or None")
        wrong = [name for name in self.row_settings if name not in _OF_ROWS]
        if isinstance(self.row_settings, str) or wrong:
            raise ValueError(f"row_settings is {self.row_settings!r}; expected some of {', '.join(sorted(_OF_ROWS))}")

    @property
    def columns(self) -> list[str]:
        """The names of the answer's columns."""
        return [self.column_prefix + name for name in COLUMNS]

    def described(self) -> dict[str, Any]:
        """Return, for JSON, what two runs must agree on for their answers to share a folder."""
        return json.loads(json.dumps(asdict(self), default=str))  # type: ignore[no-any-return]

    def for_row(self, row: Mapping[str, Any]) -> Answering:
        """Return these settings with a row's own applied. Raises ValueError or TypeError for invalid ones."""
        own = {name: _cell(name, row.get(name)) for name in self.row_settings}
        own = {name: value for name, value in own.items() if value is not None}
        if not own:
            return self
        sampling = {**self.sampling, **{name: own.pop(name) for name in list(own) if name in _SAMPLING}}
        return replace(self, sampling=sampling, **own)


def _cell(name: str, value: Any) -> Any:
    """Convert a cell to a setting, since a column cannot always hold the setting's own type."""
    value = plain(value)
    if value is None:
        return None
    if isinstance(value, float):
        # A column of integers with missing values becomes one of floats, in which the missing values are NaN.
        if math.isnan(value):
            return None
        return int(value) if name in _WHOLE and value.is_integer() else value
    if isinstance(value, str) and (name in _STRUCTURED or (name in ("stop", "tool_choice") and value[:1] in "[{")):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{name} holds text that is no JSON: {error}") from None
    if name == "stop":
        return (value,) if isinstance(value, str) else tuple(value)
    if name == "logit_bias" and isinstance(value, dict):
        return {int(token): bias for token, bias in value.items()}
    return value


def plain(value: Any) -> Any:
    """Convert a cell to lists and dictionaries, whatever kind of table it comes from; null fields are left out."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items() if item is not None}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
