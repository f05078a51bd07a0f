"""Dataclasses that are mappings, too: `config["layers"]` is `config.layers`, and `dict(config)` has all fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

__all__ = ["FieldMapping"]


class FieldMapping(Mapping[str, Any]):
    """The fields of a dataclass by name; a base class for dataclasses."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)
