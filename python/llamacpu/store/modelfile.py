"""Modelfiles: what a model is made of, in lines of instructions. https://docs.ollama.com/modelfile"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from llamacpu.errors import StoreError
from llamacpu.store.parameters import plain, value_of

__all__ = ["ROLES", "Modelfile", "parse_modelfile", "written"]

INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES")
ROLES = ("system", "user", "assistant")
LARGEST = 4 << 20
"""Characters that a Modelfile may have."""
_WORD = re.compile(r"[^\s]+")
_SPACES = " \t"
_TRIPLE = '"""'


@dataclass(frozen=True)
class Modelfile:
    """What a Modelfile says. parameters: by Ollama's names, "stop" as a list; messages: (role, content)."""

    source: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    requires: str | None = None


class _Reader:
    """Goes through the text; `line` is the line that is read, from 1."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name, self.place = text, name, 0

    def error(self, place: int, message: str) -> StoreError:
        """An error that tells the line."""
        return StoreError(f"{self.name}, line {self.text.count(chr(10), 0, place) + 1}: {message}")

    def instructions(self) -> Iterator[tuple[int, str, str]]:
        """Place, instruction in capitals, and what stands behind it on its line."""
        while self.place < len(self.text):
            end = self._end()
            line = self.text[self.place : end].strip()
            if not line or line.startswith("#"):
                self.place = end + 1
                continue
            start = self.place + self.text[self.place : end].index(line[0])
            word = self.word(start)
            if word.upper() not in INSTRUCTIONS:
                raise self.error(start, f"{word!r:.40} is no instruction; expected one of {', '.join(INSTRUCTIONS)}")
            self.place = start + len(word)
            yield start, word.upper(), word

    def _end(self) -> int:
        end = self.text.find("\n", self.place)
        return len(self.text) if end < 0 else end

    def word(self, start: int) -> str:
        """The word that begins here, "" at the end of the line."""
        match = _WORD.match(self.text, start)
        return match[0] if match else ""

    def next_word(self, what: str) -> str:
        """The next word of this line."""
        self._skip()
        word = self.word(self.place)
        if not word:
            raise self.error(self.place, f"{what} is missing")
        self.place += len(word)
        return word

    def _skip(self) -> None:
        while self.text[self.place : self.place + 1] in tuple(_SPACES):
            self.place += 1

    def value(self, what: str) -> str:
        """The rest of the line, or a text in quotes, which may have many lines; what follows it is left out."""
        self._skip()
        start = self.place
        quote = _TRIPLE if self.text.startswith(_TRIPLE, start) else '"' if self.text.startswith('"', start) else ""
        if not quote:
            end = self._end()
            self.place = end + 1
            found = self.text[start:end].strip()
            if not found:
                raise self.error(start, f"{what} is missing")
            return found
        end = self._closing(start + len(quote), quote)
        if end < 0:
            raise self.error(start, f"the text that begins with {quote} does not end; expected {quote}")
        found = self.text[start + len(quote) : end]
        self.place = end + len(quote)
        self.place = self._end() + 1
        return found

    def _closing(self, start: int, quote: str) -> int:
        """The quotes that end a text: behind them the line ends."""
        end = self.text.find(quote, start)
        while end >= 0:
            behind = self.text[end + len(quote) :].partition("\n")[0]
            if not behind.strip():
                return end
            end = self.text.find(quote, end + 1)
        return -1


def parse_modelfile(text: str, name: str = "the Modelfile") -> Modelfile:
    """Read a Modelfile; StoreError, with the line, for what is none. name: how messages call it."""
    if len(text) > LARGEST:
        raise StoreError(f"{name} has {len(text)} characters; expected {LARGEST} at most")
    reader = _Reader(text.removeprefix("\ufeff").replace("\r\n", "\n"), name)
    single: dict[str, str] = {}
    parameters: dict[str, Any] = {}
    messages: list[tuple[str, str]] = []
    lists: dict[str, list[str]] = {"LICENSE": [], "ADAPTER": []}
    for place, instruction, _word in reader.instructions():
        if instruction == "PARAMETER":
            _parameter(reader, place, parameters)
        elif instruction == "MESSAGE":
            role = reader.next_word("the role of the message")
            if role not in ROLES:
                raise reader.error(place, f"the role of a message is {role!r:.40}; expected {', '.join(ROLES)}")
            messages.append((role, reader.value("the text of the message")))
        elif instruction in lists:
            lists[instruction].append(reader.value(f"the text behind {instruction}"))
        elif instruction == "FROM" and instruction in single:
            raise reader.error(place, "a second FROM; expected one model")
        else:
            single[instruction] = reader.value(f"what stands behind {instruction}")
    if not single.get("FROM", "").strip():
        raise StoreError(f"{name} names no model; expected a line such as FROM llama3.2 or FROM ./model.gguf")
    return Modelfile(
        single["FROM"], parameters, single.get("SYSTEM"), single.get("TEMPLATE"), tuple(messages),
        tuple(lists["LICENSE"]), tuple(lists["ADAPTER"]), single.get("REQUIRES"),
    )  # fmt: skip


def _parameter(reader: _Reader, place: int, parameters: dict[str, Any]) -> None:
    name = reader.next_word("the name of the parameter")
    given = reader.value(f"the value of {name}")
    try:
        value = value_of(name.lower(), given)
    except ValueError as error:
        raise reader.error(place, str(error)) from None
    if name.lower() == "stop":
        parameters.setdefault("stop", []).append(value)
    else:
        parameters[name.lower()] = value


def written(model: Modelfile, comment: str = "") -> str:
    """The text of a Modelfile; read again it says the same."""
    lines = [*(f"# {line}".rstrip() for line in comment.splitlines()), f"FROM {model.source}"]
    if model.template is not None:
        lines.append(f"TEMPLATE {_quoted(model.template)}")
    if model.system is not None:
        lines.append(f"SYSTEM {_quoted(model.system)}")
    for name, value in model.parameters.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            text = _quoted(one) if isinstance(one, str) else plain(one)
            lines.append(f"PARAMETER {name} {text}")
    lines += [f"MESSAGE {role} {_quoted(content)}" for role, content in model.messages]
    lines += [f"LICENSE {_quoted(text)}" for text in model.licenses]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text in the quotes that it does not contain in such a way that they would end it."""
    if '"' not in text and "\n" not in text:
        return f'"{text}"'
    return f"{_TRIPLE}{text}{_TRIPLE}"
