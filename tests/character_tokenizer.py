"""A tokenizer for tests: a token for each character, for each control token, and for named pairs of characters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from llamacpu.chat import Chat

_FIRST = 1 << 21
"""Ids below are code points."""


class CharacterTokenizer:
    """See the module docstring; `ends` are the control tokens that end an answer, the first is EOS."""

    def __init__(
        self, control: Iterable[str], ends: Iterable[str], bos: str | None = None, pairs: Iterable[str] = ()
    ) -> None:
        self.control = list(dict.fromkeys([*([bos] if bos else []), *ends, *control]))
        self.pairs = list(pairs)
        self.texts = self.control + self.pairs
        self.eog = frozenset(_FIRST + self.control.index(text) for text in ends)
        self.bos = _FIRST + self.control.index(bos) if bos else None
        self.eos = _FIRST + self.control.index(next(iter(ends))) if ends else None
        self.eot = self.sep = self.unk = None
        self.add_bos, self.add_eos, self.add_sep = bos is not None, False, False

    def encode(
        self, text: str, add_special: bool = True, parse_special: bool = False, *, space_prefix: bool = True
    ) -> list[int]:
        ids = [self.bos] if add_special and self.bos is not None else []
        known = self.texts if parse_special else self.pairs
        place = 0
        while place < len(text):
            found = max((each for each in known if text.startswith(each, place)), key=len, default="")
            ids.append(_FIRST + self.texts.index(found) if found else ord(text[place]))
            place += len(found) or 1
        return ids

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        return "".join(self.id_to_piece(id) for id in ids)

    def id_to_piece(self, id: int) -> str:
        return self.texts[id - _FIRST] if id >= _FIRST else chr(id)

    def token_to_id(self, text: str) -> int | None:
        return _FIRST + self.texts.index(text) if text in self.texts else None


def character_chat(template: str, tokenizer: CharacterTokenizer) -> Chat:
    """The chat format of a model with this template and tokenizer."""
    chat = Chat({"general.name": "characters"}, tokenizer, template)  # type: ignore[arg-type]
    vars(chat)["control_tokens"] = frozenset(tokenizer.control)
    return chat


def shown(tokenizer: CharacterTokenizer, tokens: np.ndarray, targets: np.ndarray) -> str:
    """A sample as text, with [[ and ]] around what the loss counts."""
    text = tokenizer.id_to_piece(int(tokens[0]))
    inside = False
    for place, target in enumerate(targets):
        counted = target >= 0
        if counted != inside:
            text += "[[" if counted else "]]"
        inside = counted
        following = target if counted else tokens[place + 1] if place + 1 < len(tokens) else None
        assert following is not None, "the last token of a sample predicts something"
        assert place + 1 == len(tokens) or following == tokens[place + 1], "a target is the next token"
        text += tokenizer.id_to_piece(int(following))
    return text + ("]]" if inside else "")


__all__ = ["CharacterTokenizer", "character_chat", "shown"]
