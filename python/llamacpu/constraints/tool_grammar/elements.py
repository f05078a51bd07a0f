"""Grammars of calls with one element per argument: strings stand in them as they are, anything else is JSON."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llamacpu.chat.tool_calls import is_text
from llamacpu.constraints.grammar_texts import closed_text
from llamacpu.constraints.tool_grammar.rules import value_rules

__all__ = ["ATEM", "DSML", "INVOKE", "KEYED", "PARAM", "PARAMETER", "TAGGED", "Elements", "Notation"]

_IN_TAG = re.compile(r"[^\s>\"'<]([^>\n\"'<]*[^\s>\"'<])?")
_BARE = re.compile(r"[^\s\[\]{}\"'<>]+")


class Notation(NamedTuple):
    """How a call is written; a line break stands for optional white space.

    rule      the prefix of its rules
    opening   what comes before the arguments, with the name of the function
    argument  the opening tag of an argument, with its name and whether it is a string
    closing   the closing tag of an argument
    end       what comes after the arguments
    never     what strings do not contain besides `closing`, since readers would take it for the end of the call
    space     what separates arguments
    wrapped   whether a line break at the beginning and the end of a value belongs to its tags
    names     the names of functions that can be written
    """

    rule: str
    opening: str
    argument: str
    closing: str
    end: str
    never: tuple[str, ...]
    space: str = "ws"
    wrapped: bool = False
    names: re.Pattern[str] = _IN_TAG


# The tag before it is "<function name=".
PARAM = Notation("param", '"{0}">', '<param name="{0}">', "</param>", "</function>", ("</function>",), wrapped=True)
PARAMETER = Notation(
    "parameter",
    "<function={0}>",
    "<parameter={0}>",
    "</parameter>",
    "</function>",
    ("</function>", "</tool_call>", "</seed:tool_call>"),
    wrapped=True,
)
# The same after the tag "<function=".
TAGGED = PARAMETER._replace(rule="tagged", opening="{0}>")
KEYED = Notation(
    "keyed",
    "{0}",
    "<arg_key>{0}</arg_key>\n<arg_value>",
    "</arg_value>",
    "",
    ("</tool_call>",),
    wrapped=True,
    names=_BARE,
)
DSML = Notation(
    "dsml",
    '<｜DSML｜invoke name="{0}">',
    '<｜DSML｜parameter name="{0}" string="{1}">',
    "</｜DSML｜parameter>",
    "</｜DSML｜invoke>",
    ("</｜DSML｜invoke>",),
)
INVOKE = Notation(
    "invoke", '<invoke name="{0}">', '<parameter name="{0}">', "</parameter>", "</invoke>", ("</invoke>",)
)
ATEM = Notation(
    "atem",
    '<atem:invoke name="{0}">',
    '<atem:parameter name="{0}">',
    "</atem:parameter>",
    "</atem:invoke>",
    ("</atem:function_calls>",),
    space=r'"\n"',
)


class Elements:
    """Builds the rules of calls in such notations; `rules` are those that the expressions use.

    mark: writes a text for a grammar, with the control tokens in it
    """

    def __init__(self, mark: Callable[[str], str]) -> None:
        self._mark = mark
        self._texts: dict[str, str] = {}
        self._values: dict[int, list[str]] = {}

    @property
    def rules(self) -> list[str]:
        """The rules of the values."""
        values = [rule for rules in self._values.values() for rule in rules]
        return [*values, *(f"{name}: {text}" for text, name in self._texts.items())]

    def values(self, number: int, schema: Mapping[str, Any], strict: bool = True) -> None:
        """Make the rules ``value_{number}_{place}`` of the single arguments of a function, unless they exist."""
        if number not in self._values:
            self._values[number] = value_rules(number, schema, strict)

    def function(
        self, notation: Notation, number: int, name: str, schema: Mapping[str, Any], strict: bool = True
    ) -> str | None:
        """A call of a function, with its arguments in the schema's order; None if it cannot be written so."""
        properties = schema.get("properties")
        if not notation.names.fullmatch(name) or not all(map(_IN_TAG.fullmatch, properties or ())):
            return None
        form, space = self._mark(notation.opening.format(name)), notation.space
        if properties is None:
            before, after = notation.argument.format("\0", "true").split("\0")
            key = f"{self._marked(before)} /[\\w.$-]{{1,60}}/ {self._marked(after)}"
            text = self._text({}, notation)
            form += f" ({space} {key} {text})*"
        else:
            self.values(number, schema, strict)
            for place, (key, value) in enumerate(properties.items()):
                argument = self._argument(notation, f"value_{number}_{place}", key, value)
                if argument is None:
                    return None
                form += f" {argument}" if key in schema.get("required", ()) else f" ({argument})?"
        return f"{form} {space} {self._mark(notation.end)}" if notation.end else form

    def _argument(self, notation: Notation, rule: str, key: str, schema: Any) -> str | None:
        string = is_text(schema)
        opening = self._marked(notation.argument.format(key, str(string).lower()))
        if string:
            inner = self._text(schema, notation)
            return inner and f"{notation.space} {opening} {inner}"
        around = "ws" if notation.wrapped else ""
        return f"{notation.space} {opening} {around} {rule} {around} {self._mark(notation.closing)}"

    def _marked(self, text: str) -> str:
        return " ws ".join(self._mark(part) for part in text.split("\n"))

    def _text(self, schema: Mapping[str, Any], notation: Notation) -> str | None:
        """A terminal for a string and its closing tag."""
        found = closed_text(schema, notation.closing, notation.never, notation.wrapped, self._mark)
        if found is None:
            return None
        text, rest = found
        return f"{self._texts.setdefault(text, f'TEXT_{len(self._texts)}')} {rest}"
