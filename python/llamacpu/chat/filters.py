"""The filters and functions that chat templates may use, each charged to the budget of its rendering.

They are Jinja's own, wrapped in a guard that counts their operands and results, plus the few that Hugging Face defines
differently or whose cost cannot be bounded from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, cast

from jinja2 import filters as jinja_filters
from jinja2.exceptions import SecurityError
from jinja2.exceptions import TemplateError as JinjaError
from jinja2.runtime import Context, Undefined
from jinja2.utils import Namespace, pass_context

from llamacpu.chat.clock import now
from llamacpu.chat.limits import Budget
from llamacpu.chat.operations import add, call_string_method, check_format, gather, modulo
from llamacpu.chat.traced import Traced
from llamacpu.errors import TemplateError

# Filters that process text in Python at about a microsecond per character: allowed for short text only.
_SLOW = frozenset(("title", "urlencode", "escape", "e", "forceescape", "truncate"))
_SLOW_BYTES = 256 << 10
# Markup for web pages, random text and pretty-printing have no place in a prompt, and their cost is hard to bound.
_LEFT_OUT = frozenset(("pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"))
_LARGEST_COUNT = 100_000


def budget_of(context: Context) -> Budget:
    """The budget of the rendering that `context` belongs to."""
    return cast(Budget, context.environment.budget)  # type: ignore[attr-defined]


def raise_exception(message: object) -> None:
    """Raise Jinja's TemplateError with `message`; templates call this to reject a conversation."""
    raise JinjaError(str(message))


def strftime_now(format: str) -> str:
    """The local date and time in the given `strftime` format."""
    if len(format) > 1000:
        raise TemplateError("the chat template asks for the date in a format of more than 1000 characters")
    check_format(format)
    return now().strftime(format)


class TemplateNamespace(Namespace):
    """Jinja's namespace, without names that begin with an underscore and with a short `repr`."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        # The object itself is `args[0]`, so that an attribute may be called "self".
        values = dict(*args[1:], **kwargs)
        for name in values:
            _check_name(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or name.startswith("_"):
        raise SecurityError(f"{name!r} cannot be an attribute of a namespace")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, (list, tuple)):
        return 1 + max(map(_depth, value), default=0)
    return 0


@pass_context
def _tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face writes it: non-ASCII characters are kept, and nothing is escaped for HTML."""
    if indent is not None and (len(indent) if isinstance(indent, str) else indent) > 32:
        raise TemplateError("the chat template indents JSON by more than 32 characters")
    if indent is not None:
        width = len(indent) if isinstance(indent, str) else indent
        budget = budget_of(context)
        # Each element adds at least eight bytes to the size, and takes a line of its own.
        budget.expect(budget.size(value) // 8 * (1 + width * _depth(value)))
    if separators is not None and sum(map(len, separators)) > 32:
        raise TemplateError("the chat template separates JSON with more than 32 characters")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@pass_context
def _join(context: Context, value: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> Any:
    budget = budget_of(context)
    if attribute is not None:
        value = map(jinja_filters.make_attrgetter(context.environment, attribute), value)
    parts = [part if isinstance(part, str) else text_of(budget, part) for part in gather(budget, value)]
    return call_string_method(budget, d if isinstance(d, str) else text_of(budget, d), "join", (parts,), {})


@pass_context
def _sum(context: Context, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    budget = budget_of(context)
    if attribute is not None:
        iterable = map(jinja_filters.make_attrgetter(context.environment, attribute), iterable)
    total = start
    for item in iterable:
        budget.tick()
        total = add(budget, total, item)
    return total


@pass_context
def _list(context: Context, value: Iterable[Any]) -> list[Any]:
    return gather(budget_of(context), value)


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    budget = budget_of(context)
    texts = [value if isinstance(value, str) else text_of(budget, value) for value in (s, old, new)]
    return call_string_method(budget, texts[0], "replace", (texts[1], texts[2], -1 if count is None else count), {})


@pass_context
def _format(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
    if args and kwargs:
        raise TemplateError("the format filter takes positional or named values, not both")
    budget = budget_of(context)
    return modulo(budget, value if isinstance(value, str) else text_of(budget, value), kwargs or args)


@pass_context
def _string(context: Context, value: Any) -> str:
    return value if isinstance(value, str) else text_of(budget_of(context), value)


def text_of(budget: Budget, value: Any) -> str:
    """``str(value)``, marked as the caller's data if anything in `value` is."""
    budget.expect(budget.size(value))
    text = budget.made(str(value))
    return Traced(text) if budget.has_data(value) else text


def _stepping(budget: Budget, values: Iterator[Any]) -> Generator[Any, None, None]:
    for value in values:
        budget.tick()
        yield value


def _check_arguments(name: str, budget: Budget, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Reject counts, widths and precisions that turn a small input into a large result."""
    if name == "round":
        limit = 300
    elif name in ("center", "indent"):
        limit = 10_000
    else:
        limit = _LARGEST_COUNT
    for value in (*args, *kwargs.values()):
        if isinstance(value, int) and abs(value) > limit:
            raise TemplateError(f"the chat template gives {value} to the filter {name}, at most {limit} is allowed")
    if name == "indent":
        text, width = args[0], (args[1] if len(args) > 1 else kwargs.get("width", 4))
        if isinstance(text, str):
            lines = 1 + text.count("\n")
            budget.expect(len(text) + lines * (budget.size(width) if isinstance(width, str) else int(width)))


def guarded(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Jinja's filter `plain` so that its operands and its result are charged to the budget."""
    wants = getattr(plain, "jinja_pass_arg", None)

    @pass_context
    def run(context: Context, *args: Any, **kwargs: Any) -> Any:
        budget = budget_of(context)
        budget.tick()
        for value in args:
            budget.expect(budget.size(value))
        if name in _SLOW and args and budget.size(args[0]) > _SLOW_BYTES:
            raise TemplateError(f"the chat template gives more than {_SLOW_BYTES} bytes to the filter {name}")
        if name not in ("int", "float", "abs", "default", "d", "first", "last"):
            _check_arguments(name, budget, args[1:] if name != "indent" else args, kwargs)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        leading = (first[wants.name],) if wants is not None else ()
        data = budget.tracking and any(map(budget.has_data, (*args, *kwargs.values())))
        if data and isinstance(args[0], str) and not isinstance(args[0], Traced):
            args = (Traced(args[0], bytes(len(args[0]))), *args[1:])
        result = plain(*leading, *args, **kwargs)
        if isinstance(result, Iterator):
            return _stepping(budget, result)
        if data and isinstance(result, str) and not isinstance(result, (Traced, Undefined)):
            result = Traced(str(result))
        return budget.made(result)

    return run


_OWN: dict[str, Callable[..., Any]] = {
    "tojson": guarded("tojson", _tojson),
    "join": _join,
    "sum": _sum,
    "list": _list,
    "replace": _replace,
    "format": _format,
    "string": _string,
}


def all_filters() -> dict[str, Callable[..., Any]]:
    """All filters of the sandbox by name."""
    found = {name: guarded(name, plain) for name, plain in jinja_filters.FILTERS.items() if name not in _LEFT_OUT}
    return {**found, **_OWN}


__all__ = ["TemplateNamespace", "all_filters", "budget_of", "raise_exception", "strftime_now", "text_of"]
