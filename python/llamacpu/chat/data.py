"""Messages and tools as plain values: all that a chat template can see of the caller's objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from llamacpu.chat.limits import ELEMENT_COST
from llamacpu.chat.traced import Traced
from llamacpu.errors import TemplateError

_DEEPEST = 100
# The names under which a message's reasoning is passed; templates read the first.
_REASONING = ("reasoning_content", "thinking", "reasoning")


class PlainData:
    """Rebuilds values from None, bool, int, float, str, list, tuple and dict; `size` is their total size in bytes.

    With `trace`, every string is marked as the caller's data.
    """

    def __init__(self, trace: bool = False) -> None:
        self.trace = trace
        self.size: int = 0

    def text(self, value: str) -> str:
        """`value` as a plain `str`, or as a `Traced` one."""
        plain = str.__str__(value)
        self.size += len(plain) if plain.isascii() else 4 * len(plain)
        return Traced(plain) if self.trace else "".join((plain,))

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Rebuild `value`; an object of any other kind becomes a string that names its type.

        Raises TemplateError if the value is nested too deeply.
        """
        if depth > _DEEPEST:
            raise TemplateError(f"messages and tools may not be nested more than {_DEEPEST} levels deep")
        self.size += ELEMENT_COST
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value)
        if isinstance(value, Mapping):
            return {self.plain(key, depth + 1): self.plain(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.plain(item, depth + 1) for item in value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: self.plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
        if callable(getattr(value, "model_dump", None)):  # pydantic
            return self.plain(value.model_dump(), depth + 1)
        if callable(getattr(value, "item", None)):  # a NumPy scalar
            return self.plain(value.item(), depth + 1) if getattr(value, "ndim", 1) == 0 else self._placeholder(value)
        return self._placeholder(value)

    def _placeholder(self, value: Any) -> str:
        return f"<{type(value).__name__}>"

    def messages(self, messages: Any) -> list[dict[str, Any]]:
        """The conversation, each message a dict, with its reasoning under every name that templates read.

        Raises TemplateError for a string or dict in place of the list, and for a message that cannot become a dict.
        """
        if isinstance(messages, (str, bytes, Mapping)):
            raise TemplateError("messages must be a list of dicts with 'role' and 'content'")
        rebuilt = []
        for index, message in enumerate(messages):
            plain = self.plain(message)
            if not isinstance(plain, dict):
                raise TemplateError(
                    f"message {index} is a {type(message).__name__}; a dict with 'role' and 'content' was expected"
                )
            reasoning = next((plain[name] for name in _REASONING if plain.get(name) is not None), None)
            if reasoning is not None:
                plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
            rebuilt.append(plain)
        return rebuilt
