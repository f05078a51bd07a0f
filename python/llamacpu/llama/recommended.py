"""Arguments of completions that are not given: the settings that came with the model's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

__all__ = ["recommended"]

P = ParamSpec("P")
T = TypeVar("T")
_OTHER_NAMES = {"mirostat": "mirostat_mode"}


def recommended(method: Callable[P, T]) -> Callable[P, T]:
    """Decorator: arguments that are not given default to the settings that came with the model's name, if any."""
    signature = inspect.signature(method)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        preset = args[0]._conversation.preset  # type: ignore[attr-defined]
        if preset.parameters:
            given = signature.bind_partial(*args, **kwargs).arguments
            wanted = {_OTHER_NAMES.get(name, name): value for name, value in preset.sampling.items()}
            wanted |= {"stop": list(preset.stop) or None, "max_tokens": preset.max_tokens}
            for name, value in wanted.items():
                if name not in given and name in signature.parameters and value is not None:
                    kwargs[name] = value
        return method(*args, **kwargs)

    return call
