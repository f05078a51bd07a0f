"""What a template consists of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Action", "Argument", "Branch", "Chain", "Command", "Constant", "Dot", "Field", "Function", "Invocation", "Jump",
    "Nil", "Node", "Pipeline", "Text", "Variable",
]  # fmt: skip


@dataclass(frozen=True)
class Text:
    """Text that is written as it is."""

    place: int
    text: str


@dataclass(frozen=True)
class Dot:
    """The value that `.` means here."""

    place: int


@dataclass(frozen=True)
class Nil:
    """The word nil."""

    place: int


@dataclass(frozen=True)
class Constant:
    """A text, a number or true or false."""

    place: int
    value: Any


@dataclass(frozen=True)
class Field:
    """.Name.Name: fields of the value that `.` means."""

    place: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Variable:
    """$name.Name.Name: a variable, and fields of it."""

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
    """Commands, each of which gets the value of the one before; the last value goes to the variables.

    declares  whether the variables are new (:=) or have been there before (=)
    """

    place: int
    commands: tuple[Command, ...]
    variables: tuple[str, ...] = ()
    declares: bool = True


@dataclass(frozen=True)
class Action:
    """A pipeline whose value is written, unless it goes to a variable."""

    place: int
    pipeline: Pipeline


@dataclass(frozen=True)
class Branch:
    """if, with or range."""

    place: int
    kind: str
    pipeline: Pipeline
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...] | None = None


@dataclass(frozen=True)
class Jump:
    """break or continue."""

    place: int
    kind: str


@dataclass(frozen=True)
class Invocation:
    """template "name" pipeline: another template, with the pipeline's value as its dot."""

    place: int
    name: str
    pipeline: Pipeline | None


Argument: TypeAlias = "Dot | Nil | Constant | Field | Variable | Function | Chain | Pipeline"
Node: TypeAlias = "Text | Action | Branch | Jump | Invocation"
