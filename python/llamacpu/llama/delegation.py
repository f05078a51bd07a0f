"""Delegation from `Llama` to its parts: methods with the signature and docstring of the part's, fields of a part."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast, overload

P = ParamSpec("P")
Part = TypeVar("Part")
Result = TypeVar("Result")
Field = TypeVar("Field")
Constructor = TypeVar("Constructor", bound=Callable[..., None])


def method_of(part: str, method: Callable[Concatenate[Part, P], Result]) -> Callable[Concatenate[Any, P], Result]:
    """A method that calls `method` of the object's attribute named `part`."""

    @functools.wraps(method)
    def call(self: Any, *args: P.args, **kwargs: P.kwargs) -> Result:
        return method(getattr(self, part), *args, **kwargs)

    return cast("Callable[Concatenate[Any, P], Result]", call)


def with_signature_of(
    method: Callable[Concatenate[Part, P], Result],
) -> Callable[[Callable[..., Any]], Callable[Concatenate[Any, P], Result]]:
    """Decorator: the function gets the signature of `method`, and its docstring unless it has one."""

    def decorate(function: Callable[..., Any]) -> Callable[Concatenate[Any, P], Result]:
        name, text = function.__name__, function.__doc__ or method.__doc__
        found = functools.wraps(method)(function)
        found.__name__, found.__doc__ = name, text
        return found

    return decorate


class FieldOf(Generic[Field]):
    """A field of an object that is stored in one of its parts."""

    def __init__(self, part: str, name: str) -> None:
        self._part = part
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> FieldOf[Field]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Field: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else getattr(getattr(instance, self._part), self._name)

    def __set__(self, instance: Any, value: Field) -> None:
        setattr(getattr(instance, self._part), self._name, value)


def keeping_arguments(initialize: Constructor) -> Constructor:
    """Decorator of the constructor that stores its arguments, from which a copy of the object is made."""

    @functools.wraps(initialize)
    def call(self: Any, *args: Any, **kwargs: Any) -> None:
        self._arguments = named(initialize, args, kwargs)
        self._given = frozenset(kwargs)
        self._arguments.pop("on_load")
        initialize(self, *args, **kwargs)

    return cast(Constructor, call)


def named(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, including the defaults of those not given, without the object itself."""
    bound = _signature(method).bind(None, *args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


_signature = functools.lru_cache(maxsize=64)(inspect.signature)
