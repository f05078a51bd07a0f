"""Grammars of tool calls for one set of tools, in the notations of the Llama family.

Every grammar is written in llguidance's dialect of Lark: a call, its tag, or text that is not a call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from llamacpu.chat.found_calls import CODE_TOOLS
from llamacpu.chat.marks import CALL_TAGS
from llamacpu.chat.openings import (
    CODE_OPENING,
    FENCE_OPENING,
    FENCED_LIST,
    FENCED_NAME,
    LINE_END,
    PYTHON_NAME,
    Opening,
)
from llamacpu.chat.tool_calls import is_text
from llamacpu.constraints.compiler import schema_text
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.grammar_texts import as_regex, element_text, quoted, slashed
from llamacpu.constraints.json_schema import member
from llamacpu.constraints.tool_definitions import function_of, parameters_of

# A call without a tag comes at the beginning of an answer, or after another call.
BARE = re.compile(rb'\[?\s*\{\s*"(name|type|function|parameters|arguments)"|\[\s*[^\s()\[\]{},"\'=:]+\(')
# Names that can be written without quotes: in Python's notation, before JSON, in a tag.
_PYTHONIC = re.compile(r"(?!.*\.call$)[^\s()\[\]{},\"'=:*;]+")
_BEFORE_JSON = re.compile(r"[^\s\[\]{}\"'<>]+")
_BEFORE_COLON = re.compile(r"(?!functions\.)[^\s:<]+")
# A name that cannot be confused with the older form of DeepSeek's calls.
_SEPARATED = re.compile(r"(?!function$)[^\s<]([^\n<]*[^\s<])?")
_IN_TAG = re.compile(r"[^\s>\"']([^>\n\"']*[^\s>\"'])?")
_PRINTED = re.compile(r"(?!\s).*\S")

# The name under which a schema refers to itself where one of its properties is used alone.
_ROOT = "parameters"
_SPACE = r"( |\n {0,8})?"
# The lexer takes the longest token that is allowed, and text that is not a call is one of them: what distinguishes a
# call from text must be one token from its first letter on.
_OPENINGS = {"NAME": "name", "KEY": "(parameters|arguments)", "TYPE": "type", "FUNCTION": "function"}
_COMMON = r"""
ws: SPACE?
SPACE: / |\n {0,8}/
colon: ws ":" ws
comma: ws "," ws
WORD_NAME: "\"name\""
WORD_FUNCTION: "\"function\""
words: "\"parameters\"" | "\"arguments\""
keyword: KEYWORD "=" any
KEYWORD: /[A-Za-z_][A-Za-z_0-9]{0,40}/
any: %json {}
"""


class ToolGrammars:
    """The grammars of calls of a set of tools.

    A tool is called in the notations that can write its name and the names of its arguments; JSON can write any.

    mark: writes a tag for a grammar, which depends on the vocabulary: a text in quotes, or `<[id]>` for a token.
    recipients: each part of an answer begins with ``>>>`` and its recipient, a function or "all".
    """

    def __init__(self, tools: Sequence[Any], mark: Callable[[str], str], recipients: bool = False) -> None:
        functions = [function_of(tool) for tool in tools]
        self._mark = mark
        self._names = [str(function["name"]) for function in functions]
        self._schemas = [parameters_of(function) for function in functions]
        self._pythonic = [number for number in range(len(functions)) if self._is_pythonic(number)]
        rules = [_COMMON]
        for number, name in enumerate(self._names):
            rules += _rules(number, name, self._schemas[number])
            if number in self._pythonic:
                rules += _pythonic_rules(number, name, self._schemas[number])
        for kind, key in _OPENINGS.items():
            rules.append(f'OPEN_{kind}: /\\{{{_SPACE}"{key}"/')
            rules.append(f'LIST_{kind}: /\\[{_SPACE}\\{{{_SPACE}"{key}"/')
            rules.append(f"{kind.lower()}: " + self._each(f"{kind.lower()}_{{}}".format))
        rules.append("call: " + " | ".join(f"OPEN_{kind} {kind.lower()}" for kind in _OPENINGS))
        rules.append("calls: call (/[;,]? ?/ call)*")
        listed = " | ".join(f"LIST_{kind} {kind.lower()}" for kind in _OPENINGS)
        rules.append(f'list: ({listed}) (comma call)* ws "]"')
        if self._pythonic:
            rules.append("python: " + self._each("python_{}".format, self._pythonic))
            begun = self._each("PYTHON_{0} keywords_{0}".format, self._pythonic)
            rules.append(f'pythons: ({begun}) (comma python)* ws "]"')
        fence = self._fences(rules)
        self._recipients = Opening.of_recipients(self._names) if recipients else None
        addressed = self._addressed(rules) if self._recipients else []
        self._lines = self._named_lines(rules)
        code = self._code(rules)
        # Calls that need no tag, and their openings.
        self._untagged = [*([fence] if fence else []), *code, *addressed]
        self.openings: list[Opening] = [
            opening
            for opening in (
                Opening.of_fences(self._names),
                Opening.of_code(self._names),
                self._recipients,
                *map(Opening.of_line, self._names),
            )
            if opening is not None
        ]
        self._texts = {
            (number, key): text
            for number, schema in enumerate(self._schemas)
            for key, value in schema.get("properties", {}).items()
            if is_text(value) and (text := element_text(value)) is not None
        }
        for place, text in enumerate(self._texts.values()):
            rules.append(f"TEXT_{place}: {text}")
        self._rules = "\n".join(rules)

    def _fences(self, rules: list[str]) -> str | None:
        """Calls in a fenced block, with the name first."""
        if not self._names:
            return None
        for number, name in enumerate(self._names):
            named = f"{FENCED_NAME}{as_regex(quoted(name))}"
            rules.append(f"FENCED_{number}: /{FENCE_OPENING}{named}/")
            rules.append(f"FENCED_LIST_{number}: /{FENCE_OPENING}{FENCED_LIST}{named}/")
        form = '{0}_{1} comma words colon arguments_{1} ws "}}"'.format
        one, listed = (self._each(partial(form, kind)) for kind in ("FENCED", "FENCED_LIST"))
        rules.append(f'fenced: ({one}) (/[;,]? ?/ call)* ws "```" | ({listed}) (comma call)* ws "]" ws "```"')
        return "fenced"

    def _addressed(self, rules: list[str]) -> list[str]:
        for number, name in enumerate(self._names):
            rules.append(f"ADDRESSED_{number}: /{as_regex(f'>>>{name}')}\\n/")
        rules.append("addressed: " + self._each("ADDRESSED_{0} ws arguments_{0}".format, self._addressable()))
        return ["addressed"]

    def _named_lines(self, rules: list[str]) -> list[str]:
        """A function name on a line by itself, and its arguments below."""
        numbers = [number for number, name in enumerate(self._names) if Opening.of_line(name) is not None]
        rules += [f"LINE_{number}: /{as_regex(self._names[number])}{LINE_END}/" for number in numbers]
        return [f"LINE_{number} arguments_{number}" for number in numbers]

    def _code(self, rules: list[str]) -> list[str]:
        """Calls in a fenced block of Python."""
        numbers = [number for number in self._pythonic if PYTHON_NAME.fullmatch(self._names[number])]
        for number in numbers:
            rules.append(f"CODE_{number}: /{CODE_OPENING}{as_regex(self._names[number])}\\(/")
        begun = self._each("CODE_{0} keywords_{0}".format, numbers)
        return [f'({begun}) (/\\r?\\n/ python)* ws "```"'] if numbers else []

    def _addressable(self) -> list[int]:
        return [number for number, name in enumerate(self._names) if Opening.of_recipients([name]) is not None]

    def first_recipient(self) -> Grammar | None:
        """The recipient of an answer whose ``>>>`` is in the prompt, and the arguments of a function."""
        forms = [f"{quoted(self._names[n])} NEWLINE ws arguments_{n}" for n in self._addressable()]
        return self._grammar(['"all" NEWLINE', *forms], "NEWLINE: /\\n/") if self._recipients else None

    def _is_pythonic(self, number: int) -> bool:
        names = [self._names[number], *self._schemas[number].get("properties", ())]
        return all(_PYTHONIC.fullmatch(name) for name in names)

    def _each(self, form: Callable[[int], str], numbers: Sequence[int] | None = None) -> str:
        return " | ".join(form(number) for number in (range(len(self._names)) if numbers is None else numbers))

    def _named(self, names: re.Pattern[str], after_name: str, rules: str) -> str | None:
        """A function's name and a text right after it, some rules, and the arguments; None if no name fits there."""
        numbers = [number for number, name in enumerate(self._names) if names.fullmatch(name)]
        form = "{} {}arguments_{}".format
        return self._each(lambda n: form(quoted(self._names[n] + after_name), rules, n), numbers) or None

    def after(self, tag: str) -> Grammar | None:
        """A call after an opening tag, up to the closing one; None if no tool can be called that way."""
        called = self._called(tag)
        return self._grammar([called], "") if called else None

    def begun(self, tags: Sequence[str], bare: bool) -> Grammar:
        """A call with one of these opening tags, or without one if `bare`; or text that does not begin with one."""
        forms = [f"{quoted(tag)} {called}" for tag in tags if (called := self._called(tag))]
        excluded = [f"~/{as_regex(tag)}(.|\\n)*/" for tag in tags]
        forms += self._untagged
        openings = [opening.opens for opening in self.openings if bare or not opening.leads]
        excluded += [f"~/({slashed(opening)})(.|\\n)*/" for opening in openings]
        if bare:
            forms += [*self._lines, "calls", "list", *(["pythons"] if self._pythonic else [])]
            excluded.append(f"~/({BARE.pattern.decode()})(.|\\n)*/")
        return self._grammar([*forms, "OTHER"], "OTHER: " + " & ".join(["/(.|\\n)*/", *excluded]))

    def _grammar(self, forms: Sequence[str], other: str) -> Grammar:
        return Grammar.trusted_lark(f"start: {' | '.join(forms)}\n{other}\n{self._rules}\n")

    def _called(self, tag: str) -> str | None:
        """What follows an opening tag, including the closing tag; None if no tool can be called that way."""
        closing = CALL_TAGS[tag]
        close = "" if closing is None else self._mark(closing)
        if tag == "<|python_start|>":
            return f"ws ({'pythons | ' if self._pythonic else ''}calls | list) ws {close}"
        if tag == "<|python_tag|>":
            # Python source for a code interpreter is not constrained.
            free = " | /[^{\\s](.|\\n)*/" if any(name in CODE_TOOLS for name in self._names) else ""
            return f"(ws calls{free})"
        if tag == "[TOOL_CALLS]":
            identity = f"({self._mark('[CALL_ID]')} /[A-Za-z0-9]{{9}}/)? "
            named = self._named(_BEFORE_JSON, "", f"{identity}{self._mark('[ARGS]')}? ws ")
            return f"(ws list | {named})" if named else "ws list"
        if tag == "<function=":
            named = self._named(_IN_TAG, ">", "ws ")
            return f"({named}) ws {close}" if named else None
        if tag == "<function name=":
            elements = [found for number in range(len(self._names)) if (found := self._elements(number))]
            return f"({' | '.join(elements)}) ws {close}" if elements else None
        if tag == "<｜tool▁call▁begin｜>":  # noqa: RUF001 (the bars of DeepSeek tags)
            fence = quoted("\n```")
            begun = self._mark("<｜tool▁sep｜>")  # noqa: RUF001
            named = self._named(_PRINTED, "\n```json\n", "")
            newer = self._named(_SEPARATED, "", f"{begun} ws ")
            forms = [f'"function" {begun} ({named}) {fence}'] if named else []
            forms += [f"({newer}) ws"] if newer else []
            return f"({' | '.join(forms)}) {close}" if forms else None
        if tag in ("<|START_ACTION|>", "Action: ```json"):
            identity = r'("\"tool_call_id\"" colon "\"" /[0-9]{1,9}/ "\"" comma)?'
            form = 'ws "{{" ws {2} "\\"tool_name\\"" colon {1} comma words colon arguments_{0} ws "}}"'
            actions = self._each(lambda n: form.format(n, quoted(quoted(self._names[n])), identity))
            return f'ws "[" ({actions}) (comma ({actions}))* ws "]" ws {close}'
        if tag == "<seed:tool_call>":
            forms = [found for number in range(len(self._names)) if (found := self._elements(number, "parameter"))]
            opened, closed = self._mark("<function="), self._mark("</function>")
            return f"(ws {opened} ({' | '.join(forms)}) ws {closed})+ ws {close}" if forms else None
        if tag == "<function_calls>":
            return f"ws python (/\\n/ python)* ws {close}" if self._pythonic else None
        if tag == "<|tool_call_begin|>":
            begun = self._mark("<|tool_call_argument_begin|>")
            named = self._named(_BEFORE_COLON, "", f"(/:[0-9]{{1,4}}/)? {begun} ws ")
            return f'"functions."? ({named}) ws {close}' if named else None
        if tag == "<|tool_call|>":
            # Granite omits the closing tag.
            return f"ws (calls | list) (ws {close})?"
        return f"ws call ws {close}"

    def _elements(self, number: int, element: str = "param") -> str | None:
        """The arguments of a function as elements, in the schema's order; None if they cannot be written so.

        element: "param" for ``"f"><param name="a">1</param>``, "parameter" for ``f><parameter=a>1</parameter>``.
        """
        schema = self._schemas[number]
        properties = schema.get("properties")
        names = [self._names[number], *(properties or ())]
        if not all(_IN_TAG.fullmatch(name) for name in names):
            return None
        is_short = element == "param"
        before, after = ('<param name="', '">') if is_short else ("<parameter=", ">")
        form = quoted(f'"{names[0]}">' if is_short else f"{names[0]}>")
        closing = quoted(f"</{element}>")
        if properties is None:
            return f"{form} (ws {quoted(before)} /[^>\\s\"']{{1,40}}/ {quoted(after)} any {closing})*"
        for key, value in properties.items():
            if not is_text(value):
                inner = f"%json {schema_text(member(schema, key, _ROOT), strict=True)}"
            elif (number, key) in self._texts:
                inner = f"TEXT_{[*self._texts].index((number, key))}"
            else:
                return None
            argument = f"ws {quoted(before + key + after)} {inner} {closing}"
            form += f" {argument}" if key in schema.get("required", ()) else f" ({argument})?"
        return form


def _rules(number: int, name: str, schema: Mapping[str, Any]) -> list[str]:
    """The rules of one function: its arguments in JSON, and calls around them."""
    written, body = quoted(quoted(name)), f"body_{number}"
    first, then = (
        f"colon {written} comma words colon arguments_{number}",
        f"colon arguments_{number} comma WORD_NAME colon {written}",
    )
    inner = f'"{{" ws {body} ws "}}"'
    return [
        f"arguments_{number}: %json {schema_text(schema, strict=True)}",
        f"{body}: WORD_NAME {first} | words {then}",
        f'name_{number}: {first} ws "}}"',
        f'key_{number}: {then} ws "}}"',
        f'type_{number}: colon WORD_FUNCTION comma ({body} | WORD_FUNCTION colon {inner}) ws "}}"',
        f'function_{number}: colon {inner} ws "}}"',
    ]


def _pythonic_rules(number: int, name: str, schema: Mapping[str, Any]) -> list[str]:
    """The rules of a function's calls in Python's notation, with values in JSON's."""
    found = [
        f'python_{number}: {quoted(name)} ".call"? "(" keywords_{number}',
        f"PYTHON_{number}: /\\[{_SPACE}{as_regex(name)}(\\.call)?\\(/",
        f'keywords_{number}: ws keywords_{number}_0_first ws ")"',
    ]
    properties = schema.get("properties")
    if properties is None:
        return [*found, f"keywords_{number}_0_first: (keyword (comma keyword)*)?"]
    # In the schema's order; arguments that are not required may be left out. All but the first follow a comma.
    required = schema.get("required", ())
    for place, key in enumerate(properties):
        value = schema_text(member(schema, key, _ROOT), strict=True)
        found.append(f'value_{number}_{place}: {quoted(key)} "=" %json {value}')
        now, then = f"keywords_{number}_{place}", f"keywords_{number}_{place + 1}"
        for position, before in (("first", ""), ("later", "comma ")):
            rule = f"{now}_{position}: {before}value_{number}_{place} {then}_later"
            found.append(rule if key in required else f"{rule} | {then}_{position}")
    end = len(properties)
    return [*found, f'keywords_{number}_{end}_first: ""', f'keywords_{number}_{end}_later: ""']
