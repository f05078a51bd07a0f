"""GBNF, written plainly: what a text may go on with is a set of stacks, each a linked list of what is still to come.

Grammars are trees here, `notation` writes them down. Slow, and without limits: for small grammars only.

    grammar    {name: [sequence, ...]}, a sequence is a tuple of items
    item       ("text", str)   ("set", inverted, ((first, last), ...))   ("any",)   ("rule", name)
               ("group", (sequence, ...))   ("repeat", item, least, most or None)   ("token", id)   ("other", id)
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

Item = tuple[Any, ...]
Grammar = dict[str, list[tuple[Item, ...]]]
Stack = Any  # None, or (item, stack)
State = frozenset[tuple[Stack, bytes]]
LAST = 0x10FFFF
EMPTY = (("text", ""),)


def _prefixes() -> dict[bytes, tuple[int, int]]:
    """The first and the last character whose UTF-8 begins with some bytes."""
    found: dict[bytes, tuple[int, int]] = {}
    for first in range(0x80, LAST + 1, 64):
        if not 0xD800 <= first <= 0xDFFF:
            text = chr(first).encode()
            for length in range(1, len(text)):
                low, _ = found.get(text[:length], (first, 0))
                found[text[:length]] = (low, first + 63)
    return found


PREFIXES = _prefixes()


class TooManyError(Exception):
    """The grammar has more stacks than this plain way can follow."""


class Reference:
    """A grammar. Raises RecursionError for left recursion, TooManyError where there are too many stacks to know."""

    def __init__(self, grammar: Grammar, root: str = "root") -> None:
        self.grammar = grammar
        for name in grammar:
            self._refuse_direct_recursion(name, [name])
            self._expand([(("rule", name), None)])
        self.start: State = frozenset((stack, b"") for stack in self._expand([(("rule", root), None)]))

    def _refuse_direct_recursion(self, name: str, path: list[str]) -> None:
        def firsts(sequence: Sequence[Item]) -> Iterable[str]:
            for item in sequence:
                if _is_nothing(item):
                    continue
                while item[0] == "repeat":
                    item = item[1]
                if item[0] == "rule":
                    yield item[1]
                elif item[0] == "group":
                    for inner in item[1]:
                        yield from firsts(inner)
                return

        for sequence in self.grammar[name]:
            for first in firsts(sequence):
                if first in path:
                    raise RecursionError(first)
                self._refuse_direct_recursion(first, [*path, first])

    def _expand(self, stacks: Iterable[Stack]) -> set[Stack]:
        """The stacks that wait for a character or a token, or are empty."""
        found: set[Stack] = set()
        seen: set[Stack] = set()
        todo = list(stacks)
        start = max(map(_depth, todo), default=0)
        while todo:
            stack = todo.pop()
            if stack in seen:
                continue
            seen.add(stack)
            if len(seen) > 2000:
                raise TooManyError
            if stack is None:
                found.add(stack)
                continue
            if _depth(stack) > 60 + start:
                raise RecursionError("a stack that only grows")
            item, rest = stack
            kind = item[0]
            if _is_nothing(item):
                todo.append(rest)
            elif kind in ("rule", "group"):
                sequences = self.grammar[item[1]] if kind == "rule" else item[1]
                todo.extend(_pushed(sequence, rest) for sequence in sequences)
            elif kind == "repeat":
                _, inner, least, most = item
                if least == 0:
                    todo.append(rest)
                fewer = ("repeat", inner, max(least - 1, 0), None if most is None else most - 1)
                todo.append(_pushed((inner, fewer), rest))
            else:
                found.add(stack)
        return found

    def byte(self, state: State, byte: int) -> State:
        """The state behind one byte of text."""
        if len(state) > 500:
            raise TooManyError
        after: set[tuple[Stack, bytes]] = set()
        for stack, begun in state:
            text = begun + bytes([byte])
            if stack is None:
                continue
            try:
                character = ord(text.decode())
            except UnicodeDecodeError:
                if text in PREFIXES and _some_match(stack[0], *PREFIXES[text]):
                    after.add((stack, text))
                continue
            item, rest = stack
            if _matches(item, character):
                rest = (("text", item[1][1:]), rest) if item[0] == "text" else rest
                after.update((found, b"") for found in self._expand([rest]))
        return frozenset(after)

    def bytes(self, state: State, text: bytes) -> State:
        """The state behind some bytes of text."""
        for byte in text:
            state = self.byte(state, byte)
        return state

    def token(self, state: State, id: int, text: bytes, writable: bool) -> State:
        """The state behind a token: by its text, or because the grammar names it or excludes another."""
        after = set(self.bytes(state, text)) if text else set()
        for stack, begun in state:
            if stack is None or begun:
                continue
            kind = stack[0][0]
            if (kind == "token" and stack[0][1] == id) or (kind == "other" and stack[0][1] != id and writable):
                after.update((found, b"") for found in self._expand([stack[1]]))
        return frozenset(after)


def may_end(state: State) -> bool:
    return any(stack is None for stack, _ in state)


def choices(state: State, alphabet: str) -> list[str]:
    """The characters of an alphabet that may come next."""
    return [
        letter
        for letter in alphabet
        if any(stack is not None and _matches(stack[0], ord(letter)) for stack, _ in state)
    ]


def _pushed(sequence: Sequence[Item], rest: Stack) -> Stack:
    for item in reversed(sequence):
        if not _is_nothing(item):
            rest = (item, rest)
    return rest


def _is_nothing(item: Item) -> bool:
    return item == ("text", "") or (item[0] == "set" and not item[2]) or (item[0] == "repeat" and item[3] == 0)


def _depth(stack: Stack) -> int:
    depth = 0
    while stack is not None:
        depth, stack = depth + 1, stack[1]
    return depth


def _matches(item: Item, character: int) -> bool:
    if item[0] == "text":
        return bool(ord(item[1][0]) == character)
    if item[0] == "set":
        return bool(any(first <= character <= last for first, last in item[2]) != item[1])
    return bool(item[0] == "any")


def _some_match(item: Item, low: int, high: int) -> bool:
    """Whether the item matches a character from `low` to `high`."""
    borders = [low, high]
    if item[0] == "text":
        borders.append(ord(item[1][0]))
    elif item[0] == "set":
        borders += [border + step for pair in item[2] for border in pair for step in (-1, 0, 1)]
    return any(low <= border <= high and _matches(item, border) for border in borders)


# --- Writing a grammar down ---


def notation(grammar: Grammar, chance: random.Random) -> str:
    """The grammar in GBNF; what can be written in several ways is written in any of them."""
    lines = []
    for name, sequences in grammar.items():
        gap = chance.choice(["", " ", "  ", "\t"])
        behind = chance.choice(["", " ", "\n  ", " # one\n\t"])
        lines.append(f"{name}{gap}::={behind}{_alternatives(sequences, chance, False)}")
        lines += chance.choice([[], [""], ['# a comment: " [ ( {'], ["   "]])
    return chance.choice(["\n", "\r\n"]).join(lines) + chance.choice(["", "\n", " # end"])


def _space(chance: random.Random, nested: bool) -> str:
    return chance.choice([" ", "  ", "\t", *(["\n", " # inside\n ", "\r\n"] if nested else [])])


def _alternatives(sequences: Iterable[Sequence[Item]], chance: random.Random, nested: bool) -> str:
    # A line break behind `::=` or `|` is skipped, so that an empty alternative at the end of a line is none.
    texts = [_space(chance, nested).join(_item(item, chance) for item in sequence or EMPTY) for sequence in sequences]
    return (_space(chance, nested) + "|" + chance.choice(["", " ", "\n"])).join(texts)


def _item(item: Item, chance: random.Random) -> str:
    kind = item[0]
    if kind == "text":
        return '"' + "".join(_character(ord(letter), '"\\', chance) for letter in item[1]) + '"'
    if kind == "set":
        parts = [
            _character(first, "\\]-[^", chance)
            + ("" if first == last and chance.random() < 0.8 else "-" + _character(last, "\\]-[", chance))
            for first, last in item[2]
        ]
        return "[" + ("^" if item[1] else "") + "".join(parts) + "]"
    if kind == "any":
        return "."
    if kind == "rule":
        return str(item[1])
    if kind == "group":
        return "(" + _space(chance, True) + _alternatives(item[1], chance, True) + _space(chance, True) + ")"
    if kind == "token":
        return f"<[{item[1]}]>"
    if kind == "other":
        return f"!<[{item[1]}]>"
    _, inner, least, most = item
    text = _item(inner, chance)
    gap = chance.choice(["", " "])
    signs = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    if (least, most) in signs and chance.random() < 0.8:
        return text + gap + signs[least, most]
    if least == most:
        return f"{text}{gap}{{{gap}{least}{gap}}}"
    return f"{text}{gap}{{{least}{gap},{gap}{'' if most is None else most}}}"


def _character(code: int, marks: str, chance: random.Random) -> str:
    ways = [f"\\U{code:08x}"]
    if code < 0x100:
        ways.append(f"\\x{code:02X}")
    if code < 0x10000:
        ways.append(f"\\u{code:04x}")
    if chr(code) in "\n\r\t":
        ways.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[chr(code)])
    if not 0xD800 <= code <= 0xDFFF and chr(code) not in marks:
        ways += [chr(code)] * 6
    elif chr(code) in '"\\[]-':
        ways += ["\\" + chr(code)] * 6
    return chance.choice(ways)
