"""Parses tokens into nodes, by the grammar of Go's text/template."""

from __future__ import annotations

from collections.abc import Collection

from llamacpu.chat.go_template.lexer import Token, tokens
from llamacpu.chat.go_template.literals import character_of, number_of, text_of
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
    Jump,
    Nil,
    Node,
    Pipeline,
    Text,
    Variable,
)  # fmt: skip
from llamacpu.chat.go_template.source import Source

__all__ = ["MAIN", "parse"]

MAIN = ""
"""The name of the main template among the templates of a text."""
_KEYWORDS = frozenset(
    ("block", "break", "continue", "define", "else", "end", "if", "range", "template", "with", "nil", "true", "false")
)
_DEEPEST = 64


def parse(source: Source, functions: Collection[str]) -> dict[str, tuple[Node, ...]]:
    """The templates of a text by name: the main one and those it defines. functions: the names that may be called.

    Raises GoTemplateError, with line and column, for invalid or unsupported syntax.
    """
    parser = _Parser(source, functions)
    body, _ = parser.nodes(top=True)
    return {**parser.defined, MAIN: body}


class _Parser:
    """Parses the tokens of one text; `_variables` are those in scope, the innermost last."""

    def __init__(self, source: Source, functions: Collection[str]) -> None:
        self.source = source
        self.defined: dict[str, tuple[Node, ...]] = {}
        self._functions = functions
        self._tokens = list(tokens(source))
        self._next = 0
        self._variables = ["$"]
        self._depth = 0
        self._loops = 0

    # Tokens.

    def _peek(self, spaces: bool = True) -> Token:
        while spaces and self._tokens[self._next].kind == "space":
            self._next += 1
        return self._tokens[self._next]

    def _take(self) -> Token:
        token = self._peek()
        self._next += 1
        return token

    def _expect(self, kind: str, what: str) -> Token:
        token = self._take()
        if token.kind != kind:
            raise self.source.error(token.place, f"unexpected {_shown(token)}; expected {what}")
        return token

    def _word(self) -> str:
        token = self._peek()
        return token.text if token.kind == "word" else ""

    # Text and actions.

    def nodes(self, top: bool = False) -> tuple[tuple[Node, ...], Token]:
        """Parse nodes up to {{ end }} or {{ else }}; the parser is then just past that word."""
        found: list[Node] = []
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self.source.error(self._peek().place, f"nested more than {_DEEPEST} deep")
        while True:
            token = self._take()
            if token.kind == "text":
                found.append(Text(token.place, token.text))
                continue
            if token.kind == "end":
                if not top:
                    raise self.source.error(token.place, "the template ends before an end of if, range, with or define")
                break
            word = self._word()
            if word in ("end", "else"):
                token = self._take()
                if top:
                    raise self.source.error(token.place, f"{word} without an if, range or with before it")
                break
            node = self._action(token.place, top)
            if node is not None:
                found.append(node)
        self._depth -= 1
        return tuple(found), token

    def _action(self, place: int, top: bool) -> Node | None:
        word = self._word()
        if word in ("if", "with", "range"):
            return self._branch(self._take())
        if word in ("break", "continue"):
            self._take()
            self._expect("right", "}}")
            if not self._loops:
                raise self.source.error(place, f"{word} outside of range")
            return Jump(place, word)
        if word == "define":
            if not top:
                raise self.source.error(place, "define inside another action; expected it at the top")
            self._take()
            name = self._name("define")
            self._expect("right", "}}")
            self._define(name, place)
            return None
        if word == "block":
            self._take()
            name = self._name("block")
            pipeline = self._pipeline("block", "right")
            self._define(name, place)
            return Invocation(place, name, pipeline)
        if word == "template":
            self._take()
            name = self._name("template")
            has_value = self._peek().kind != "right"
            value = self._pipeline("template", "right") if has_value else None
            if not has_value:
                self._take()
            return Invocation(place, name, value)
        pipeline = self._pipeline("an action", "right")
        return Action(place, pipeline)

    def _name(self, where: str) -> str:
        token = self._take()
        if token.kind not in ("string", "raw"):
            raise self.source.error(token.place, f"unexpected {_shown(token)}; expected a name in quotes")
        return text_of(self.source, token)

    def _define(self, name: str, place: int) -> None:
        variables, self._variables = self._variables, ["$"]
        loops, self._loops = self._loops, 0
        body, end = self.nodes()
        if end.text != "end":
            raise self.source.error(end.place, "else inside a definition; expected end")
        self._expect("right", "}}")
        self._variables, self._loops = variables, loops
        if name == MAIN:
            raise self.source.error(place, "a template that is defined has no name")
        if name in self.defined and any(not isinstance(one, Text) or one.text.strip() for one in self.defined[name]):
            raise self.source.error(place, f"the template {name!r} is defined twice")
        self.defined[name] = body

    def _branch(self, begun: Token) -> Branch:
        """Parse the rest of `if`, `with` or `range` after its keyword, up to and including its end."""
        kind, scope = begun.text, len(self._variables)
        pipeline = self._pipeline(kind, "right")
        self._loops += kind == "range"
        body, end = self.nodes()
        self._loops -= kind == "range"
        otherwise: tuple[Node, ...] | None = None
        if end.text == "else":
            word = self._word()
            if word == kind and kind in ("if", "with"):
                # {{ else if }} is an if inside else, and both share one end.
                self._depth += 1
                if self._depth > _DEEPEST:
                    raise self.source.error(end.place, f"more than {_DEEPEST} times else {word}")
                otherwise = (self._branch(self._take()),)
                self._depth -= 1
                del self._variables[scope:]
                return Branch(begun.place, kind, pipeline, body, otherwise)
            self._expect("right", "}}" if kind == "range" else f"}}}} or {kind}")
            otherwise, end = self.nodes()
            if end.text != "end":
                raise self.source.error(end.place, "a second else; expected end")
        self._expect("right", "}}")
        del self._variables[scope:]
        return Branch(begun.place, kind, pipeline, body, otherwise)

    # Pipelines.

    def _pipeline(self, where: str, end: str) -> Pipeline:
        self._depth += 1
        place = self._peek().place
        if self._depth > _DEEPEST:
            raise self.source.error(place, f"nested more than {_DEEPEST} deep")
        names, declares = self._assigned(where)
        commands = [self._command(where)]
        while self._peek().kind == "pipe":
            self._take()
            commands.append(self._command(where))
        token = self._take()
        if token.kind != end:
            raise self.source.error(token.place, f"unexpected {_shown(token)} in {where}; expected a value, | or }}}}")
        for command in commands[1:]:
            if isinstance(command.arguments[0], (Constant, Dot, Nil)):
                raise self.source.error(command.place, "only a function or a field can stand after |")
        if declares:
            self._variables += names
        self._depth -= 1
        return Pipeline(place, tuple(commands), names, declares)

    def _assigned(self, where: str) -> tuple[tuple[str, ...], bool]:
        """Parse the variables before := or =, if any; the parser is then past that sign."""
        begin = self._next
        names: list[Token] = []
        while self._peek().kind == "variable":
            names.append(self._take())
            sign = self._peek().kind
            if sign in ("declare", "assign"):
                self._take()
                if len(names) > 1 and where != "range":
                    raise self.source.error(names[1].place, f"two variables in {where}; only range has two")
                for name in names if sign == "assign" else ():
                    self._known(name)
                return tuple(name.text for name in names), sign == "declare"
            if sign != "comma" or len(names) > 1:
                break
            self._take()
        if len(names) > 1 or (names and self._peek().kind == "comma"):
            raise self.source.error(names[-1].place, "expected := or = after the variables")
        self._next = begin
        return (), True

    def _known(self, token: Token) -> str:
        if token.text not in self._variables:
            raise self.source.error(token.place, f"there is no variable {token.text} here")
        return token.text

    def _command(self, where: str) -> Command:
        place = self._peek().place
        found: list[Argument] = []
        while True:
            token = self._peek()
            if token.kind in ("right", "close", "pipe", "end", "left", "text"):
                break
            found.append(self._operand())
            if self._peek(spaces=False).kind not in ("space", "right", "close", "pipe"):
                token = self._peek()
                raise self.source.error(token.place, f"unexpected {_shown(token)} after a value; expected a space")
        if not found:
            raise self.source.error(place, f"a value is missing in {where}")
        return Command(place, tuple(found))

    def _operand(self) -> Argument:
        value = self._term()
        names = []
        begin = self._peek(spaces=False)
        while self._peek(spaces=False).kind == "field":
            names.append(self._take().text[1:])
        if not names:
            return value
        if isinstance(value, Field):
            return Field(value.place, (*value.names, *names))
        if isinstance(value, Variable):
            return Variable(value.place, value.name, (*value.names, *names))
        if isinstance(value, (Constant, Nil, Dot)):
            raise self.source.error(begin.place, f"unexpected .{names[0]} after a value that has no fields")
        return Chain(value.place, value, tuple(names))

    def _term(self) -> Argument:
        token = self._take()
        place, text = token.place, token.text
        if token.kind == "word":
            if text in ("true", "false"):
                return Constant(place, text == "true")
            if text == "nil":
                return Nil(place)
            if text in _KEYWORDS or text not in self._functions:
                known = ", ".join(sorted(self._functions))
                raise self.source.error(place, f"the function {text} is not supported; expected one of {known}")
            return Function(place, text)
        if token.kind == "dot":
            return Dot(place)
        if token.kind == "field":
            return Field(place, (text[1:],))
        if token.kind == "variable":
            return Variable(place, self._known(token))
        if token.kind in ("string", "raw"):
            return Constant(place, text_of(self.source, token))
        if token.kind == "character":
            return Constant(place, character_of(self.source, token))
        if token.kind == "number":
            return Constant(place, number_of(self.source, token))
        if token.kind == "open":
            return self._pipeline("parentheses", "close")
        raise self.source.error(place, f"unexpected {_shown(token)}; expected a value")


def _shown(token: Token) -> str:
    names = {"end": "end of the template", "left": "{{", "text": "text"}
    return names.get(token.kind, token.text.strip()[:40] or "space")
