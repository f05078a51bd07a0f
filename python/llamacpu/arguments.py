"""Argument checks: a wrong type is reported in one sentence that names the argument, before any work begins.

None passes every check but `path` and `token_ids`: its meaning is up to the callee.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeAlias

__all__ = [
    "Kinds", "check_kinds", "described", "flag", "function", "integer", "listed", "meant", "number", "path",
    "refuse", "texts", "token_ids",
]  # fmt: skip


def described(value: object) -> str:
    """Return a value and its type for use in a sentence, shortened: `'4096' (str)`."""
    shown = repr(value)
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"


def meant(given: str, known: Iterable[str]) -> str:
    """Return a guess at the intended spelling, to be appended to a sentence; "" if there is none."""
    close = difflib.get_close_matches(given, list(known), 1)
    return f"; did you mean {close[0]!r}?" if close else ""


_FIELDS_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "seed", "repeat_penalty", "mirostat", "logit_bias")


def refuse(name: str, other: Mapping[str, object], known: Iterable[str]) -> None:
    """Raise TypeError, suggesting what was meant, for arguments that the function or class `name` does not take."""
    for given, value in other.items():
        hint = meant(given, known)
        if given in _FIELDS_OF_SAMPLING:
            hint = f"; it is part of the sampling: sampling=llamacpu.Sampling({given}={value!r})"
        elif given in ("n_predict", "num_predict", "max_new_tokens"):
            hint = "; did you mean 'max_tokens'?"
        raise TypeError(f"{name} takes no argument {given!r}{hint}")


def integer(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a whole number."""
    if value is not None and (not isinstance(value, Integral) or isinstance(value, bool)):
        raise TypeError(f"{name} is {described(value)}; expected a whole number")


def number(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a number."""
    if value is not None and (not isinstance(value, Real) or isinstance(value, bool)):
        raise TypeError(f"{name} is {described(value)}; expected a number")


def flag(name: str, value: object) -> None:
    """Raise TypeError for a string: "false" would count as true."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} is {described(value)}; expected True or False")


def path(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a file path."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise TypeError(f"{name} is {described(value)}; expected the path of a file")


def texts(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a text or an iterable of texts."""
    if value is None or isinstance(value, str):
        return
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {described(value)}; expected a text or a list of texts")


def listed(name: str, value: object) -> None:
    """Raise TypeError unless `value` is a list of functions."""
    if value is not None and (isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable)):
        raise TypeError(f"{name} is {described(value)}; expected a list of functions")


def function(name: str, value: object) -> None:
    """Raise TypeError unless `value` is callable."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} is {described(value)}; expected a function")


def token_ids(name: str, value: object) -> list[int]:
    """Return the token ids that were passed in place of a text. Raises TypeError for anything else."""
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {described(value)}; expected a text or a list of token ids")
    ids = list(value)
    wrong = next((entry for entry in ids if not isinstance(entry, Integral) or isinstance(entry, bool)), None)
    if isinstance(wrong, Mapping):
        raise TypeError(f"{name} is a list of messages; expected a text or token ids: messages are for a chat")
    if wrong is not None:
        raise TypeError(f"{name} holds {described(wrong)}; expected a text or a list of token ids")
    return [int(entry) for entry in ids]


Kinds: TypeAlias = Mapping[Callable[[str, object], None], Iterable[str]]
"""Maps each of the checks above to the names of the arguments that it applies to."""


def check_kinds(given: Mapping[str, Any], kinds: Kinds) -> None:
    """Run the checks in `kinds` on the arguments in `given`, by name."""
    for check, names in kinds.items():
        for name in names:
            if name in given:
                check(name, given[name])
