"""Modelfiles, which describe a model in lines of instructions. https://docs.ollama.com/modelfile"""

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
"""The most characters that a Modelfile may have."""
_WORD = re.compile(r"[^\s]+")
_SPACES = " \t"
_TRIPLE = '"""'


@dataclass(frozen=True)
class Modelfile:
    """The contents of a Modelfile. parameters: by Ollama's names, "stop" as a list; messages: (role, content)."""

    source: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    template: str | None = None
    messages: tuple[tuple[str, str], ...] = ()
    licenses: tuple[str, ...] = ()
    adapters: tuple[str, ...] = ()
    requires: str | None = None


class _Reader:
    """Reads the text of a Modelfile from start to end."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name, self.place = text, name, 0

    def error(self, place: int, message: str) -> StoreError:
        """Return an error that names the line."""
        return StoreError(f"{self.name}, line {self.text.count(chr(10), 0, place) + 1}: {message}")

    def instructions(self) -> Iterator[tuple[int, str, str]]:
        """Iterate over the instructions: position, instruction in capitals, and instruction as written."""
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
        """Return the word that begins here, "" if there is none."""
        match = _WORD.match(self.text, start)
        return match[0] if match else ""

    def next_word(self, what: str) -> str:
        """Read the next word of this line. Raises StoreError if it is missing."""
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
        """Read the rest of the line, or a quoted text, which may span lines; skip what follows it."""
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
        """Return the position of the quotes that end a text, after which the line ends; -1 if there are none."""
        end = self.text.find(quote, start)
        while end >= 0:
            behind = self.text[end + len(quote) :].partition("\n")[0]
            if not behind.strip():
                return end
            end = self.text.find(quote, end + 1)
        return -1


def parse_modelfile(text: str, name: str = "the Modelfile") -> Modelfile:
    """Parse a Modelfile. Raises StoreError, with the line, if it is invalid. name: what error messages call it."""
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
            lists[instruction].append(reader.value(f"the text after {instruction}"))
        elif instruction == "FROM" and instruction in single:
            raise reader.error(place, "a second FROM; expected one model")
        else:
            single[instruction] = reader.value(f"what follows {instruction}")
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
    """Return the text of a Modelfile, which parses back to the same contents."""
    lines = [*(f"# {line}".rstrip() for line in comment.splitlines()), f"FROM {model.source}"]
    if model.template is not None:
        lines.append(f"TEMPLATE {_quoted(model.template)}")
    if model.system is not None:
        lines.append(f"SYSTEM {_quoted(model.system)}")
    for name, value in model.parameters.items():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            text = _quoted(one) if isinstance(one, str) else plain(one)
            lines.append(f"PARAMETER {name} {text}")
    lines += [f"ADAPTER {path}" for path in model.adapters]
    lines += [f"MESSAGE {role} {_quoted(content)}" for role, content in model.messages]
    lines += [f"LICENSE {_quoted(text)}" for text in model.licenses]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Put a text in quotes that nothing within it would end."""
    if '"' not in text and "\n" not in text:
        return f'"{text}"'
    return f"{_TRIPLE}{text}{_TRIPLE}"
