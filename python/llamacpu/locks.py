"""A lock and a cached property on which neither a signal handler nor a forked child can block forever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

__all__ = ["ProcessLock", "cached_property"]

T = TypeVar("T")


class ProcessLock:
    """A lock to be used with `with` around a few lines that call nothing slow.

    The thread that holds it may acquire it again, as a signal handler that runs in the middle of those lines does. In a
    forked child the lock is free, whichever thread of the parent held it at the time of the fork.
    """

    def __init__(self) -> None:
        self._process, self._lock = os.getpid(), threading.RLock()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._process, self._lock = os.getpid(), threading.RLock()
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class cached_property(Generic[T]):  # noqa: N801 (the name in functools)
    """`functools.cached_property` without the lock that Python 3.10 and 3.11 hold while the attribute is computed.

    Without a lock, two threads may both compute the value; the first to finish stores its value, and both return that.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> cached_property[T]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> cached_property[T] | T:
        if instance is None:
            return self
        values = instance.__dict__
        if self._name in values:
            found: T = values[self._name]
        else:
            found = values.setdefault(self._name, self._function(instance))
        return found
