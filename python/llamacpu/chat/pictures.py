"""Pictures in conversations: marks stand for them while a template renders the messages.

A template that knows pictures prints a placeholder for each part `{"type": "image"}`; another one prints the mark that
the text of the message has in its place. Either way the prompt comes out with one mark for each picture.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from llamacpu.chat.segments import Segment
from llamacpu.errors import TemplateError

__all__ = ["Marks", "Style", "styles"]

Style = Callable[[Sequence[Mapping[str, Any]]], list[Any]]
_DIGITS = 24


class Marks:
    """The marks of some pictures: numbers that no message contains, because they are drawn by chance.

    count         number of pictures
    placeholders  what templates of this model print for a picture; longer ones first
    separator     what stands between a picture and text after it where the template leaves that to the caller
    """

    def __init__(self, count: int, placeholders: Sequence[str], separator: str = "") -> None:
        self.count: int = count
        self.placeholders: tuple[str, ...] = tuple(placeholders)
        self.separator: str = separator
        # Digits: templates change the case of letters, strip spaces and escape signs.
        self._secret = "".join(secrets.choice("123456789") for _ in range(_DIGITS))
        self.pattern: re.Pattern[str] = re.compile(rf"{self._secret}(\d{{4}})")

    def mark(self, number: int) -> str:
        """The mark of a picture."""
        return f"{self._secret}{number:04}"

    def number(self, segment: Segment) -> int | None:
        """The number of the picture that a segment stands for; None for text."""
        found = self.pattern.fullmatch(segment.text)
        return None if found is None else int(found[1])

    def parts(self, text: str) -> list[dict[str, str]]:
        """A message's text as a list of parts, with pictures in place of their marks."""
        found: list[dict[str, str]] = []
        pieces = self.pattern.split(text)
        for place, piece in enumerate(pieces):
            if place % 2:
                found.append({"type": "image"})
            elif piece:
                found.append({"type": "text", "text": piece})
        return found

    def marked(self, segments: Sequence[Segment]) -> list[Segment]:
        """Segments with a mark for each placeholder that the template printed, each in a segment of its own.

        Raises TemplateError unless every picture is there once, in order.
        """
        pattern = re.compile("|".join(map(re.escape, self.placeholders)) or "(?!)")
        found: list[Segment] = []
        numbers: list[int] = []
        for text, special in segments:
            if special and self.pattern.search(text) is None:
                pieces = pattern.split(text)
                marks = [self.mark(len(numbers) + place) for place in range(len(pieces) - 1)]
                numbers += range(len(numbers), len(numbers) + len(marks))
            else:
                split = self.pattern.split(text)
                pieces, own = split[::2], [int(number) for number in split[1::2]]
                marks = [self.mark(number) for number in own]
                numbers += own
            for place, piece in enumerate(pieces):
                if place:
                    found.append(Segment(marks[place - 1], False))
                if piece:
                    found.append(Segment(piece, special))
        if numbers != list(range(self.count)):
            raise TemplateError(
                f"the chat template shows {len(numbers)} of {self.count} pictures, or not in their order"
            )
        return found

    def texts_shown(self, messages: Sequence[Any], segments: Sequence[Segment]) -> bool:
        """Whether the prompt has the texts of all messages: a template of parts may show nothing of plain texts."""
        shown = "".join(segment.text for segment in segments)
        texts = [message["content"] for message in messages if _is_text(message)]
        return all(piece.strip() in shown for text in texts for piece in self.pattern.split(text)[::2])

    def control_tokens(self, known: Collection[str]) -> Collection[str]:
        """The texts that count as the template's own only where the template wrote them."""
        return frozenset(known) | frozenset(self.placeholders)


def styles(marks: Marks, source: str) -> Iterator[Style]:
    """How messages with pictures are given to a template: parts in place of text first, where it speaks of images."""

    def parted(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [_with(one, marks.parts(one["content"])) if _shows(one, marks) else one for one in messages]

    def all_parted(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [_with(one, marks.parts(one["content"])) if _is_text(one) else one for one in messages]

    def in_text(messages: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [_with(one, _spaced(one["content"], marks)) if _shows(one, marks) else one for one in messages]

    if "image" in source:
        yield parted
        yield all_parted
    yield in_text


def _with(message: Mapping[str, Any], content: Any) -> dict[str, Any]:
    return {**message, "content": content}


def _shows(message: Mapping[str, Any], marks: Marks) -> bool:
    return _is_text(message) and marks.pattern.search(message["content"]) is not None


def _is_text(message: Mapping[str, Any]) -> bool:
    return isinstance(message.get("content"), str)


def _spaced(text: str, marks: Marks) -> str:
    if not marks.separator:
        return text
    return re.sub(rf"({marks.pattern.pattern})(?=\S)", lambda found: found[1] + marks.separator, text)
