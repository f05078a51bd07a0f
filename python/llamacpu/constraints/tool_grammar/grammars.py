"""The grammars of the calls of one set of tools: a call, its tag, or text that is not a call."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.grammar_texts import as_regex, quoted, slashed
from llamacpu.constraints.tool_definitions import function_of, parameters_of
from llamacpu.constraints.tool_grammar.elements import (
    DSML,
    INVOKE,
    KEYED,
    PARAM,
    PARAMETER,
    TAGGED,
    Elements,
    Notation,
)
from llamacpu.constraints.tool_grammar.gemma import GemmaCalls
from llamacpu.constraints.tool_grammar.rules import COMMON, OPENINGS, SPACE, json_rules, needed, python_rules

__all__ = ["BARE", "ToolGrammars"]

# A call without a tag comes at the beginning of an answer, or after another call.
BARE = re.compile(
    rb'\[?\s*\{\s*"(name|type|function|parameters|arguments)"|\{\s*"tool_calls"|\[\s*[^\s()\[\]{},"\'=:]+\('
)
# Names that can be written without quotes: in Python's notation, before JSON, in a tag.
_PYTHONIC = re.compile(r"(?!.*\.call$)[^\s()\[\]{},\"'=:*;]+")
_BEFORE_JSON = re.compile(r"[^\s\[\]{}\"'<>]+")
_BEFORE_COLON = re.compile(r"(?!functions\.)[^\s:<]+")
# A name that cannot be confused with the older form of DeepSeek's calls.
_SEPARATED = re.compile(r"(?!function$)[^\s<]([^\n<]*[^\s<])?")
_IN_TAG = re.compile(r"[^\s>\"']([^>\n\"']*[^\s>\"'])?")
_PRINTED = re.compile(r"(?!\s).*\S")
# The notation inside tags around calls with elements.
_AROUND_ELEMENTS = {
    "<tool_call>": "parameter",
    "<seed:tool_call>": "parameter",
    "<｜DSML｜function_calls>": "dsml",
    "<｜DSML｜tool_calls>": "dsml",
    "<minimax:tool_call>": "invoke",
}


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
        elements = Elements(mark)
        rules = [line for line in COMMON.splitlines() if line]
        for number, name in enumerate(self._names):
            rules += json_rules(number, name, self._schemas[number])
            if number in self._pythonic:
                elements.values(number, self._schemas[number])
                rules += python_rules(number, name, self._schemas[number])
        for kind, key in OPENINGS.items():
            rules.append(f'OPEN_{kind}: /\\{{{SPACE}"{key}"/')
            rules.append(f'LIST_{kind}: /\\[{SPACE}\\{{{SPACE}"{key}"/')
            rules.append(f"{kind.lower()}: " + self._each(f"{kind.lower()}_{{}}".format))
        rules.append("call: " + " | ".join(f"OPEN_{kind} {kind.lower()}" for kind in OPENINGS))
        rules.append("calls: call (/[;,]? ?/ call)*")
        rules.append(f'WRAPPED: /\\{{{SPACE}"tool_calls"/')
        rules.append('wrapped: WRAPPED colon "[" ws call (comma call)* ws "]" ws "}"')
        listed = " | ".join(f"LIST_{kind} {kind.lower()}" for kind in OPENINGS)
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
        # The functions that can be called in each notation with elements, and as Gemma 4 does.
        self._elements = {
            notation.rule: self._with_elements(notation, elements, rules)
            for notation in (PARAM, PARAMETER, TAGGED, KEYED, DSML, INVOKE)
        }
        gemma = GemmaCalls(mark)
        calls = {number: gemma.function(number, name, self._schemas[number]) for number, name in enumerate(self._names)}
        rules += [f"gemma_call_{number}: {call}" for number, call in calls.items() if call]
        self._gemma = self._each("gemma_call_{}".format, [number for number, call in calls.items() if call])
        self._rules = [*rules, *elements.rules, *gemma.rules]

    def _with_elements(self, notation: Notation, elements: Elements, rules: list[str]) -> str:
        """Any function that can be called in a notation; "" if there is none."""
        known = zip(self._names, self._schemas, strict=True)
        found = [elements.function(notation, number, *function) for number, function in enumerate(known)]
        rules += [f"{notation.rule}_{number}: {call}" for number, call in enumerate(found) if call]
        return self._each(f"{notation.rule}_{{}}".format, [number for number, call in enumerate(found) if call])

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
            forms += [*self._lines, "calls", "list", "wrapped", *(["pythons"] if self._pythonic else [])]
            excluded.append(f"~/({BARE.pattern.decode()})(.|\\n)*/")
        return self._grammar([*forms, "OTHER"], "OTHER: " + " & ".join(["/(.|\\n)*/", *excluded]))

    def _grammar(self, forms: Sequence[str], other: str) -> Grammar:
        start = " | ".join(forms)
        rules = needed(f"{start} {other}", self._rules)
        return Grammar.trusted_lark("\n".join([f"start: {start}", other, *rules, ""]))

    def _called(self, tag: str) -> str | None:
        """What follows an opening tag, including the closing tag; None if no tool can be called that way."""
        closing = CALL_TAGS[tag]
        close = "" if closing is None else self._mark(closing)
        if tag in _AROUND_ELEMENTS:
            return self._in_elements(tag, close)
        if tag == "<|tool_call>":
            return f"ws ({self._gemma}) ws {close}" if self._gemma else None
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
            forms = [f"({named}) ws {close}"] if named else []
            forms += [tagged] if (tagged := self._elements["tagged"]) else []
            return f"({' | '.join(forms)})" if forms else None
        if tag == "<function name=":
            found = self._elements["param"]
            return f"({found})" if found else None
        if tag == "<｜tool▁call▁begin｜>":
            fence = quoted("\n```")
            begun = self._mark("<｜tool▁sep｜>")
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
        if tag == "<function_calls>":
            return f"ws python (/\\n/ python)* ws {close}" if self._pythonic else None
        if tag == "<|tool_call_begin|>":
            begun = self._mark("<|tool_call_argument_begin|>")
            named = self._named(_BEFORE_COLON, "", f"(/:[0-9]{{1,4}}/)? {begun} ws ")
            return f'"functions."? ({named}) ws {close}' if named else None
        if tag == "<|tool_call|>":
            # Granite omits the closing tag.
            return f"ws (calls | list) (ws {close})?"
        raise ValueError(f"the tag {tag} has no grammar")

    def _in_elements(self, tag: str, close: str) -> str | None:
        """What follows a tag around calls with elements."""
        found = self._elements[_AROUND_ELEMENTS[tag]]
        if tag == "<tool_call>":
            forms = ["call", *filter(None, (found, self._elements["keyed"]))]
            return f"ws ({' | '.join(forms)}) ws {close}"
        return f"(ws ({found}))+ ws {close}" if found else None
