"""String methods and operators of templates, each rejected before its result exceeds the budget."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2.exceptions import SecurityError

from llamacpu.chat.limits import ELEMENT_COST, LARGEST_NUMBER_BITS, Budget
from llamacpu.chat.traced import Traced
from llamacpu.errors import TemplateError

# Widths or precisions of four or more digits in a format: three digits are more than any prompt needs.
_LONG_NUMBER = re.compile(r"\d{4,}")
_PERCENT_STAR = re.compile(r"%[^a-zA-Z%]*\*")

# The methods that a template may call on the values it is given; nothing else of these types is reachable.
_STRING_METHODS = (
    "capitalize casefold center count endswith expandtabs find format format_map index isalnum isalpha isascii "
    "isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join ljust lower lstrip "
    "partition removeprefix removesuffix replace rfind rindex rjust rpartition rsplit rstrip split splitlines "
    "startswith strip swapcase title upper zfill"
)
STRING_METHODS = frozenset(_STRING_METHODS.split())
MAPPING_METHODS = frozenset(("copy", "get", "items", "keys", "values"))
SEQUENCE_METHODS = frozenset(("copy", "count", "index"))
NUMBER_METHODS = frozenset(("bit_length", "conjugate", "denominator", "imag", "is_integer", "numerator", "real"))


def allowed_attribute(value: object, name: str) -> bool:
    """Whether a template may read attribute `name` of `value`; limited for types whose methods could do harm."""
    if isinstance(value, str):
        return name in STRING_METHODS
    if isinstance(value, dict):
        return name in MAPPING_METHODS
    if isinstance(value, (list, tuple, set, frozenset)):
        return name in SEQUENCE_METHODS
    if isinstance(value, (int, float, complex)):
        return name in NUMBER_METHODS
    return not isinstance(value, (bytes, bytearray))


def check_format(text: str) -> None:
    """Raise TemplateError for a format string with a very large or variable width or precision."""
    if _LONG_NUMBER.search(text) or _PERCENT_STAR.search(text):
        raise TemplateError("the chat template formats with a width that is too large or not known")


def gather(budget: Budget, values: Iterable[Any]) -> list[Any]:
    """``list(values)``, with each element counted as a step."""
    found: list[Any] = []
    for value in values:
        budget.tick()
        found.append(value)
        if not len(found) & 1023:
            budget.expect(ELEMENT_COST * len(found))
    return budget.made(found)


def call_string_method(budget: Budget, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``getattr(text, name)(*args, **kwargs)`` within the budget, keeping track of the origin of characters."""
    if budget.tracking and not isinstance(text, Traced) and any(map(budget.has_data, (*args, *kwargs.values()))):
        text = Traced(text, bytes(len(text)))
    if name == "join" and args:
        args = (gather(budget, args[0]), *args[1:])
    budget.expect(_result_bound(budget, text, name, args))
    result = getattr(text, name)(*args, **kwargs)
    if isinstance(result, (str, list, tuple)):
        budget.made(result)
    return result


def _result_bound(budget: Budget, text: str, name: str, args: tuple[Any, ...]) -> int:
    """An upper bound on the result of the method in bytes; 0 if it is at most a few times its operands."""
    size = budget.size(text)
    if name in ("center", "ljust", "rjust", "zfill") and args:
        return max(0, int(args[0])) * 4
    if name == "expandtabs":
        return size + str.count(text, "\t") * 4 * max(0, int(args[0]) if args else 8)
    if name == "replace" and len(args) >= 2:
        return size + str.count(text, args[0]) * max(0, budget.size(args[1]) - len(args[0]))
    if name == "join" and args:
        return budget.size(args[0]) + len(args[0]) * size
    if name in ("split", "rsplit", "splitlines"):
        # The plain method counts the pieces first: tracking the origin of each piece costs more than finding it.
        return size + len(getattr(str, name)(text, *args)) * ELEMENT_COST
    return 0


def add(budget: Budget, left: Any, right: Any) -> Any:
    """``left + right`` within the budget."""
    budget.expect(budget.size(left) + budget.size(right))
    return budget.made(left + right)


def multiply(budget: Budget, left: Any, right: Any) -> Any:
    """``left * right`` within the budget."""
    for value, count in ((left, right), (right, left)):
        if isinstance(value, (str, list, tuple)) and isinstance(count, int):
            budget.expect(budget.size(value) * max(0, count))
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() + right.bit_length() > LARGEST_NUMBER_BITS
    ):
        raise TemplateError(f"the chat template makes a number of more than {LARGEST_NUMBER_BITS} bits")
    return budget.made(left * right)


def power(budget: Budget, left: Any, right: Any) -> Any:
    """``left ** right`` within the budget."""
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > LARGEST_NUMBER_BITS:
        raise TemplateError(f"the chat template makes a number of more than {LARGEST_NUMBER_BITS} bits")
    return left**right


def modulo(budget: Budget, left: Any, right: Any) -> Any:
    """``left % right`` within the budget: a remainder, or printf-style formatting."""
    if isinstance(left, str):
        check_format(left)
        if budget.tracking and not isinstance(left, Traced) and budget.has_data(right):
            left = Traced(left, bytes(len(left)))
        budget.expect(budget.size(left) + str.count(left, "%") * (1000 + budget.size(right)))
    return budget.made(left % right)


BINARY: dict[str, Callable[[Budget, Any, Any], Any]] = {"+": add, "*": multiply, "**": power, "%": modulo}
PLAIN_BINARY: dict[str, Callable[[Any, Any], Any]] = {"-": operator.sub, "/": operator.truediv, "//": operator.floordiv}


def forbidden(what: str) -> SecurityError:
    """The error for access to something that templates may not use."""
    return SecurityError(f"the chat template uses {what}, which is not allowed")
