"""Runs a template: turns nodes and a value into text, within the limits of chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.chat.go_template.functions import FUNCTIONS, LAZY
from llamacpu.chat.go_template.nodes import (
    Action,
    Argument,
    Branch,
    Chain,
    Command,
    Constant,
    Dot,
    Field,
    Function,
    Invocation,
    Nil,
    Node,
    Pipeline,
    Text,
    Variable,
)  # fmt: skip
from llamacpu.chat.go_template.source import GoTemplateError, Source
from llamacpu.chat.go_template.values import Record, display, is_true, kind_of
from llamacpu.chat.limits import Budget, TemplateLimit
from llamacpu.chat.traced import concatenate

__all__ = ["Evaluator"]

_NOTHING: Any = object()
"""Marks the absence of a piped value."""


class _Break(Exception):  # noqa: N818 (no error)
    pass


class _Continue(Exception):  # noqa: N818 (no error)
    pass


class Evaluator:
    """One rendering of a template. budget: the limits on its steps, time and output size."""

    def __init__(self, source: Source, templates: Mapping[str, Sequence[Node]], budget: Budget) -> None:
        self._source = source
        self._templates = templates
        self._budget = budget
        self._written: list[str] = []
        self._variables: list[tuple[str, Any]] = []

    def run(self, nodes: Sequence[Node], value: Any) -> str:
        """Render nodes with a value as dot. Raises GoTemplateError or TemplateLimit."""
        self._variables = [("$", value)]
        self._nodes(nodes, value)
        return concatenate(self._written)

    def _write(self, text: str) -> None:
        self._budget.spend(self._budget.size(text))
        self._written.append(text)

    # Nodes.

    def _nodes(self, nodes: Sequence[Node], dot: Any) -> None:
        for node in nodes:
            self._budget.tick()
            if isinstance(node, Text):
                self._write(node.text)
            elif isinstance(node, Action):
                value = self._pipeline(node.pipeline, dot)
                if not node.pipeline.variables:
                    self._write_value(value, node.place)
            elif isinstance(node, Branch):
                self._branch(node, dot)
            elif isinstance(node, Invocation):
                self._invoke(node, dot)
            else:
                raise _Break if node.kind == "break" else _Continue

    def _write_value(self, value: Any, place: int) -> None:
        if value is None:
            self._write("<no value>")
            return
        try:
            self._budget.expect(self._size(value))
            self._write(display(value))
        except TypeError as error:
            raise self._source.error(place, str(error)) from None

    def _size(self, value: Any) -> int:
        """The approximate size of a value in bytes; for a record, the sum over its fields."""
        if isinstance(value, Record):
            return sum(map(self._size, value.fields.values()))
        if isinstance(value, (list, dict)):
            return sum(map(self._size, value.values() if isinstance(value, dict) else value))
        return self._budget.size(value)

    def _branch(self, node: Branch, dot: Any) -> None:
        scope = len(self._variables)
        value = self._pipeline(node.pipeline, dot, scoped=node.kind == "range")
        try:
            if node.kind == "range":
                self._range(node, value, dot)
            elif is_true(value):
                self._nodes(node.body, value if node.kind == "with" else dot)
            else:
                self._nodes(node.otherwise or (), dot)
        finally:
            del self._variables[scope:]

    def _range(self, node: Branch, value: Any, dot: Any) -> None:
        pairs = self._pairs(node, value)
        if not pairs:
            self._nodes(node.otherwise or (), dot)
            return
        names, scope = node.pipeline.variables, len(self._variables)
        for key, item in pairs:
            self._budget.tick()
            given = ((names[0], key), (names[1], item)) if len(names) == 2 else ((names[0], item),) if names else ()
            for name, one in given:
                self._set(name, one, node.pipeline.declares)
            try:
                self._nodes(node.body, item)
            except _Break:
                break
            except _Continue:
                continue
            finally:
                del self._variables[scope:]

    def _pairs(self, node: Branch, value: Any) -> list[tuple[Any, Any]]:
        if value is None:
            return []
        if isinstance(value, dict):
            return [(key, value[key]) for key in sorted(value)]
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            if len(node.pipeline.variables) > 1:
                raise self._source.error(node.place, "range over a whole number has one variable")
            self._budget.expect(16 * max(value, 0))
            return [(number, number) for number in range(value)]
        raise self._source.error(node.place, f"range over {kind_of(value)}; expected a slice, map or whole number")

    def _invoke(self, node: Invocation, dot: Any) -> None:
        body = self._templates.get(node.name)
        if body is None:
            raise self._source.error(node.place, f"there is no template {node.name!r}")
        value = self._pipeline(node.pipeline, dot) if node.pipeline is not None else None
        self._budget.depth += 1
        if self._budget.depth > self._budget.limits.depth:
            raise TemplateLimit(f"the {self._source.name} calls templates more than {self._budget.limits.depth} deep")
        variables, self._variables = self._variables, [("$", value)]
        try:
            self._nodes(body, value)
        finally:
            self._variables = variables
            self._budget.depth -= 1

    # Values.

    def _pipeline(self, node: Pipeline, dot: Any, scoped: bool = False) -> Any:
        """Evaluate a pipeline and assign its value to its variables, unless `scoped`: then the loop sets them."""
        value = _NOTHING
        for command in node.commands:
            value = self._command(command, dot, value)
        if not scoped:
            for name in node.variables:
                self._set(name, value, node.declares)
        return value

    def _set(self, name: str, value: Any, declares: bool) -> None:
        if declares:
            self._variables.append((name, value))
            return
        place = next(index for index in range(len(self._variables) - 1, -1, -1) if self._variables[index][0] == name)
        self._variables[place] = (name, value)

    def _command(self, node: Command, dot: Any, piped: Any) -> Any:
        self._budget.tick()
        first, *rest = node.arguments
        if isinstance(first, Function):
            return self._call(first, rest, dot, piped)
        if rest or piped is not _NOTHING:
            what = "a field" if isinstance(first, (Field, Variable, Chain)) else "a value"
            raise self._source.error(first.place, f"{what} is no function and takes no arguments")
        if isinstance(first, Nil):
            raise self._source.error(first.place, "nil alone has no value")
        return self._value(first, dot)

    def _call(self, node: Function, arguments: Sequence[Argument], dot: Any, piped: Any) -> Any:
        function, fewest, most = FUNCTIONS[node.name]
        count = len(arguments) + (piped is not _NOTHING)
        if count < fewest or (most is not None and count > most):
            wanted = fewest if most == fewest else f"{fewest} at least"
            raise self._source.error(node.place, f"{node.name} has {count} arguments; expected {wanted}")
        if node.name in LAZY:
            value = None
            for argument in arguments:
                value = self._value(argument, dot)
                if is_true(value) == (node.name == "or"):
                    return value
            return value if piped is _NOTHING else piped
        values = [self._value(argument, dot) for argument in arguments]
        if piped is not _NOTHING:
            values.append(piped)
        self._budget.expect(sum(map(self._size, values)))
        try:
            found = function(*values)
        except (GoTemplateError, TemplateLimit):
            raise
        except (TypeError, ValueError) as error:
            raise self._source.error(node.place, str(error)) from None
        self._budget.spend(self._budget.size(found) if isinstance(found, str) else 16)
        return found

    def _value(self, node: Argument, dot: Any) -> Any:
        self._budget.tick()
        if isinstance(node, Constant):
            return node.value
        if isinstance(node, Dot):
            return dot
        if isinstance(node, Field):
            return self._fields(dot, node.names, node.place)
        if isinstance(node, Variable):
            value = next(value for name, value in reversed(self._variables) if name == node.name)
            return self._fields(value, node.names, node.place)
        if isinstance(node, Pipeline):
            return self._pipeline(node, dot)
        if isinstance(node, Chain):
            return self._fields(self._value(node.value, dot), node.names, node.place)
        if isinstance(node, Function):
            return self._call(node, (), dot, _NOTHING)
        return None

    def _fields(self, value: Any, names: Sequence[str], place: int) -> Any:
        if value is None:
            return None
        for name in names:
            if isinstance(value, dict):
                value = value.get(name)
            elif isinstance(value, Record) and name in value.fields:
                value = value.fields[name]
            elif value is None:
                raise self._source.error(place, f"nil has no field {name}")
            else:
                raise self._source.error(place, f"{kind_of(value)} has no field {name}")
        return value
