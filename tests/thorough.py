"""How much the tests do: everything with LLAMACPU_THOROUGH=1, otherwise a part of what many examples would show."""

from __future__ import annotations

import os

from llamacpu import _native

THOROUGH = bool(os.environ.get("LLAMACPU_THOROUGH"))


def examples(number: int) -> int:
    """How many of a property's `number` examples are drawn: a third, and half of these with a lesser instruction set.

    Hypothesis draws other examples in every run.
    """
    if THOROUGH:
        return number
    best = _native.cpu_facts()["available"][-1]
    return number // (3 if os.environ.get("LLAMACPU_ISA", best) == best else 6)
