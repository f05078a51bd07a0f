"""The nodes of a parsed template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Action", "Argument", "Branch", "Chain", "Command", "Constant", "Dot", "Field", "Function", "Invocation", "Jump",
    "Nil", "Node", "Pipeline", "Text", "Variable",
]  # fmt: skip


@dataclass(frozen=True)
class Text:
    """Text that is output unchanged."""

    place: int
    text: str


@dataclass(frozen=True)
class Dot:
    """The current value, `.`."""

    place: int


@dataclass(frozen=True)
class Nil:
    """The constant nil."""

    place: int


@dataclass(frozen=True)
class Constant:
    """A constant string, number or boolean."""

    place: int
    value: Any


@dataclass(frozen=True)
class Field:
    """.Name.Name: fields of the current value."""

    place: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """$name.Name.Name: a variable and fields of it."""

    place: int
    name: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Function:
    """The name of a function."""

    place: int
    name: str


@dataclass(frozen=True)
class Chain:
    """(pipeline).Name.Name: fields of another value."""

    place: int
    value: Argument
    names: tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """A value, or a function with its arguments."""

    place: int
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Pipeline:
    """Commands, each of which receives the value of the previous one; the last value is assigned to the variables.

    declares  whether the variables are new (:=) or already exist (=)
    """

    place: int
    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    declares: bool = True


@dataclass(frozen=True)
class Action:
    """A pipeline whose value is output, unless it is assigned to a variable."""

    place: int
    pipeline: Pipeline


@dataclass(frozen=True)
class Branch:
    """An `if`, `with` or `range` action."""

    place: int
    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] | None = None


@dataclass(frozen=True)
class Jump:
    """A `break` or `continue` action."""

    place: int
    kind: str


@dataclass(frozen=True)
class Invocation:
    """An invocation of another template, `template "name" pipeline`, with the pipeline's value as its dot."""

    place: int
    name: str
    pipeline: Pipeline | None


Argument: TypeAlias = "Dot | Nil | Constant | Field | Variable | Function | Chain | Pipeline"
Node: TypeAlias = "Text | Action | Branch | Jump | Invocation"
