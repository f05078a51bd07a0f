"""The settings of a conversation that `/set` shows and changes."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from llamacpu.cli import options

if TYPE_CHECKING:
    from llamacpu.cli.chat.conversation import Conversation

__all__ = ["change", "choices", "names", "shown"]

_OVERFLOW = ("error", "truncate", "shift")


def names() -> list[str]:
    """The names of all settings."""
    return [*options.SAMPLING_NAMES, "max_tokens", "context", "overflow"]


def choices(name: str) -> tuple[str, ...]:
    """The values that a setting can take, if they can be listed; empty for any other setting."""
    return _OVERFLOW if name == "overflow" else ()


def shown(conversation: Conversation, name: str) -> str:
    """The value of a setting, in the form that `/set` accepts."""
    if name == "max_tokens":
        limit = conversation.settings["max_tokens"]
        return "-1" if limit is None else str(limit)
    if name == "context":
        return str(conversation.session.context)
    if name == "overflow":
        return str(conversation.how.get("overflow", "error"))
    value = getattr(conversation.settings["sampling"], options.field_of(name))
    if name == "seed" and value is None:
        return "-1"
    return ";".join(value) if isinstance(value, tuple) else str(value)


def change(conversation: Conversation, name: str, value: str) -> str:
    """Change a setting; returns its canonical name.

    Raises ValueError, with a message of one sentence, for an unknown setting and for a value that it cannot take.
    """
    name = name.replace("-", "_")
    if name == "max_tokens":
        limit = _whole(name, value, -1, "expected -1 (no limit) or more")
        conversation.settings["max_tokens"] = None if limit == -1 else limit
    elif name == "context":
        most = options.MOST_TOKENS
        conversation.resize(_whole(name, value, 1, f"expected the number of tokens, 1 to {most}", most))
    elif name == "overflow":
        if value not in _OVERFLOW:
            raise ValueError(f"overflow is {value!r}; expected one of {', '.join(_OVERFLOW)}")
        conversation.how["overflow"] = value
    elif name in options.SAMPLING_NAMES:
        try:
            conversation.settings["sampling"] = options.changed(conversation.settings["sampling"], name, value)
        except ValueError as error:
            raise ValueError(str(error).replace(options.field_of(name), name, 1)) from None
    else:
        close = difflib.get_close_matches(name, names(), 1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"there is no setting {name!r}; {meant}/set shows all")
    return name


def _whole(name: str, value: str, low: int, expected: str, high: int = (1 << 63) - 1) -> int:
    try:
        number = int(value)
    except ValueError:
        raise ValueError(f"{name} is {value[:40]!r}; {expected}, a whole number") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {value[:40]}; {expected}")
    return number
