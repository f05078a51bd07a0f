"""Conversations, and what a chat of a file needs of its tokenizer, for the tests of templates."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from llamacpu.chat import Chat, ChatTemplate
from llamacpu.chat.builtin import builtin, source_of

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
]
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
CALL = [
    {"role": "user", "content": "1+2?"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "123456789", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "content": "3", "tool_call_id": "123456789"},
]


@functools.cache
def template(name: str) -> ChatTemplate:
    """The built-in template of that name."""
    return ChatTemplate(source_of(builtin(name)), bos_token="<s>", eos_token="</s>")


class FakeTokenizer:
    """Characters as tokens, and special tokens by name from 1000 on."""

    def __init__(self, special: list[str], add_bos: bool = True, bos: str | None = "<s>") -> None:
        self.special = {text: 1000 + index for index, text in enumerate(special)}
        self.bos = self.special[bos] if bos else None
        self.eos = self.special.get("</s>")
        self.eot = self.unk = None
        self.eog = frozenset(() if self.eos is None else (self.eos,))
        self.add_bos = add_bos

    def id_to_piece(self, token: int) -> str:
        return next((text for text, number in self.special.items() if number == token), chr(token))

    def token_to_id(self, text: str) -> int | None:
        return self.special.get(text)

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        ids, position = [], 0
        while position < len(text):
            match = next((s for s in self.special if parse_special and text.startswith(s, position)), None)
            ids.append(self.special[match] if match else ord(text[position]))
            position += len(match or " ")
        return ids


def chat(metadata: Mapping[str, Any], special: list[str], name: str | None = None, **options: Any) -> Chat:
    types = np.full(1000 + len(special), 1)
    types[1000:] = 3
    return Chat({"tokenizer.ggml.token_type": types, **metadata}, FakeTokenizer(special, **options), name)  # type: ignore[arg-type]
