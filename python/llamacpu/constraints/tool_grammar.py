"""Grammars of tool calls, in the notations of the Llama family, for one set of tools.

Every grammar is a text in llguidance's dialect of Lark: a call, its tag, or text that is no call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamacpu.chat.answer import CALL_TAGS, CODE_TOOLS
from llamacpu.constraints.grammar import Grammar, schema_text
from llamacpu.errors import GrammarError

# A call without a tag stands at the beginning of an answer, or after another call.
BARE = re.compile(rb'\[?\s*\{\s*"(name|type|function|parameters|arguments)"|\[\s*[A-Za-z_][\w.]*\(')
_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
_MANY_FORMS = frozenset(("$ref", "allOf", "anyOf", "oneOf"))

_SPACE = r"( |\n {0,8})?"
# The lexer takes the longest token that is allowed, text that is no call among them: what sets a call apart from text
# must be one token from its first letter on.
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


def function_of(tool: Any) -> Mapping[str, Any]:
    """The function in the definition of a tool. Raises GrammarError where there is none with a usable name."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if function is None or not isinstance(name, str) or not _NAME.fullmatch(name):
        raise GrammarError(f"a tool has the name {name!r}; expected letters, digits, '_', '.' and '-'")
    return function  # type: ignore[no-any-return]


class ToolGrammars:
    """The grammars of calls of some tools.

    mark: how a tag stands in a grammar, which depends on the vocabulary: a text in quotes, or `<[id]>` for a token.
    """

    def __init__(self, tools: Sequence[Any], mark: Callable[[str], str]) -> None:
        functions = [function_of(tool) for tool in tools]
        self._mark = mark
        self._names = [str(function["name"]) for function in functions]
        rules = [_COMMON, *(rule for number, function in enumerate(functions) for rule in _rules(number, function))]
        for kind, key in _OPENINGS.items():
            rules.append(f'OPEN_{kind}: /\\{{{_SPACE}"{key}"/')
            rules.append(f'LIST_{kind}: /\\[{_SPACE}\\{{{_SPACE}"{key}"/')
            rules.append(f"{kind.lower()}: " + self._each(f"{kind.lower()}_{{}}".format))
        rules.append("call: " + " | ".join(f"OPEN_{kind} {kind.lower()}" for kind in _OPENINGS))
        rules.append("calls: call (/[;,]? ?/ call)*")
        listed = " | ".join(f"LIST_{kind} {kind.lower()}" for kind in _OPENINGS)
        rules.append(f'list: ({listed}) (comma call)* ws "]"')
        rules.append("python: " + self._each("python_{}".format))
        rules.append(f'pythons: ({self._each("PYTHON_{0} keywords_{0}".format)}) (comma python)* ws "]"')
        self._rules = "\n".join(rules)

    def _each(self, form: Callable[[int], str]) -> str:
        return " | ".join(form(number) for number in range(len(self._names)))

    def _named(self, after_name: str, rules: str) -> str:
        """A function's name and a text right after it, some rules, and the arguments."""
        return self._each(lambda number: f"{quoted(self._names[number] + after_name)} {rules}arguments_{number}")

    def after(self, tag: str) -> Grammar:
        """A call after an opening tag, up to the closing one."""
        return self._grammar([self._called(tag)], "")

    def begun(self, tags: Sequence[str], bare: bool) -> Grammar:
        """A call with one of these opening tags, or with none if `bare`; or text that begins with none."""
        forms = [f"{quoted(tag)} {self._called(tag)}" for tag in tags]
        excluded = [f"~/{re.escape(tag).replace('/', chr(92) + '/')}(.|\\n)*/" for tag in tags]
        if bare:
            forms += ["calls", "list", "pythons"]
            excluded.append(f"~/({BARE.pattern.decode()})(.|\\n)*/")
        return self._grammar([*forms, "OTHER"], "OTHER: " + " & ".join(["/(.|\\n)*/", *excluded]))

    def _grammar(self, forms: Sequence[str], other: str) -> Grammar:
        return Grammar.lark(f"start: {' | '.join(forms)}\n{other}\n{self._rules}\n")

    def _called(self, tag: str) -> str:
        closing = CALL_TAGS[tag]
        close = "" if closing is None else self._mark(closing)
        if tag == "<|python_start|>":
            return f"ws pythons ws {close}"
        if tag == "<|python_tag|>":
            # Python source for a code interpreter is none of the grammar's business.
            free = " | /[^{\\s](.|\\n)*/" if any(name in CODE_TOOLS for name in self._names) else ""
            return f"(ws calls{free})"
        if tag == "[TOOL_CALLS]":
            return f"(ws list | {self._named('', self._mark('[ARGS]') + '? ws ')})"
        if tag == "<function=":
            return f"({self._named('>', 'ws ')}) ws {close}"
        if tag == "<｜tool▁call▁begin｜>":  # noqa: RUF001 (the bars of DeepSeek tags)
            fence = quoted("\n```")
            begun = self._mark("<｜tool▁sep｜>")  # noqa: RUF001
            return f'"function" {begun} ({self._named(chr(10) + "```json" + chr(10), "")}) {fence} {close}'
        return f"ws call ws {close}"


def quoted(text: str) -> str:
    """A text as it stands in a grammar."""
    return json.dumps(text, ensure_ascii=False)


def _rules(number: int, function: Mapping[str, Any]) -> list[str]:
    """The rules of one function: its arguments in JSON and in Python's notation, and calls in both."""
    schema = _parameters(function)
    name, body = quoted(f'"{function["name"]}"'), f"body_{number}"
    first, then = (
        f"colon {name} comma words colon arguments_{number}",
        f"colon arguments_{number} comma WORD_NAME colon {name}",
    )
    inner = f'"{{" ws {body} ws "}}"'
    plain = re.escape(str(function["name"]))
    found = [
        f"arguments_{number}: %json {schema_text(schema)}",
        f"{body}: WORD_NAME {first} | words {then}",
        f'name_{number}: {first} ws "}}"',
        f'key_{number}: {then} ws "}}"',
        f'type_{number}: colon WORD_FUNCTION comma ({body} | WORD_FUNCTION colon {inner}) ws "}}"',
        f'function_{number}: colon {inner} ws "}}"',
        f'python_{number}: {quoted(str(function["name"]))} ".call"? "(" keywords_{number}',
        f"PYTHON_{number}: /\\[{_SPACE}{plain}(\\.call)?\\(/",
        f'keywords_{number}: ws keywords_{number}_0_first ws ")"',
    ]
    properties = schema.get("properties")
    if properties is None:
        return [*found, f"keywords_{number}_0_first: (keyword (comma keyword)*)?"]
    # In the order of the schema; those that are not required may be left out. After the first, a comma comes before.
    definitions = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    required = schema.get("required", ())
    for place, (key, value) in enumerate(properties.items()):
        with_definitions = {**definitions, **value} if isinstance(value, Mapping) else value
        found.append(f'value_{number}_{place}: {quoted(key)} "=" %json {schema_text(with_definitions)}')
        now, then = f"keywords_{number}_{place}", f"keywords_{number}_{place + 1}"
        for position, before in (("first", ""), ("later", "comma ")):
            rule = f"{now}_{position}: {before}value_{number}_{place} {then}_later"
            found.append(rule if key in required else f"{rule} | {then}_{position}")
    end = len(properties)
    return [*found, f'keywords_{number}_{end}_first: ""', f'keywords_{number}_{end}_later: ""']


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments: that of the definition if it is strict, else that of any object."""
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    if function.get("strict") is not True:
        return {"type": "object"}
    name = function["name"]
    if not isinstance(schema, dict) or schema.get("type", "object") != "object" or _MANY_FORMS & set(schema):
        raise GrammarError(f"the parameters of the strict tool {name} are no plain object; expected type 'object'")
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    if not isinstance(properties, dict) or not isinstance(required, list) or not set(required) <= set(properties):
        raise GrammarError(f"the strict tool {name} requires arguments that its properties do not name")
    if not all(re.fullmatch(r"[A-Za-z_]\w*", key) for key in properties):
        raise GrammarError(f"an argument of the strict tool {name} has a name that is none in Python; rename it")
    return {**schema, "type": "object", "properties": properties}
