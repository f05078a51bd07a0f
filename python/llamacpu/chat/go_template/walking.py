"""Analyzes a template before it runs, as Ollama does: finds the fields that it names, and where the answer begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from llamacpu.chat.go_template.nodes import Action, Branch, Chain, Command, Field, Invocation, Node, Pipeline, Variable

__all__ = ["before_response", "names_in", "with_response"]

_RESPONSE = "Response"


def names_in(templates: Mapping[str, Sequence[Node]]) -> set[str]:
    """The names of all fields that the templates refer to."""
    return {name for nodes in templates.values() for node in nodes for name in _names(node)}


def _names(node: object) -> Iterator[str]:
    if isinstance(node, (Field, Variable)):
        yield from node.names
    elif isinstance(node, Chain):
        yield from node.names
        yield from _names(node.value)
    elif isinstance(node, Pipeline):
        for command in node.commands:
            for argument in command.arguments:
                yield from _names(argument)
    elif isinstance(node, Action) or (isinstance(node, Invocation) and node.pipeline is not None):
        yield from _names(node.pipeline)
    elif isinstance(node, Branch):
        yield from _names(node.pipeline)
        for one in (*node.body, *(node.otherwise or ())):
            yield from _names(one)


def with_response(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The template with the answer appended, for a template that does not refer to it."""
    place = nodes[-1].place if nodes else 0
    answer = Pipeline(place, (Command(place, (Field(place, (_RESPONSE,)),)),))
    return (*nodes, Action(place, answer))


def before_response(nodes: Sequence[Node]) -> tuple[Node, ...]:
    """The template truncated after the first reference to the answer."""
    found, _ = _cut(nodes, False)
    return found


def _cut(nodes: Sequence[Node], done: bool) -> tuple[tuple[Node, ...], bool]:
    kept: list[Node] = []
    for node in nodes:
        if done:
            break
        if isinstance(node, Action):
            pipeline, done = _cut_pipeline(node.pipeline, done)
            if pipeline is not None:
                kept.append(replace(node, pipeline=pipeline))
        elif isinstance(node, Branch):
            body, done = _cut(node.body, done)
            otherwise = node.otherwise
            if otherwise is not None:
                otherwise, done = _cut(otherwise, done)
            kept.append(replace(node, body=body, otherwise=otherwise))
        else:
            kept.append(node)
    return tuple(kept), done


def _cut_pipeline(node: Pipeline, done: bool) -> tuple[Pipeline | None, bool]:
    commands: list[Command] = []
    for command in node.commands:
        arguments = []
        for argument in command.arguments:
            if done:
                break
            if isinstance(argument, Field) and _RESPONSE in argument.names:
                done = True
            arguments.append(argument)
        if not arguments:
            return None, done
        commands.append(replace(command, arguments=tuple(arguments)))
    return replace(node, commands=tuple(commands)), done
