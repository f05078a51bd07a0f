"""Log-probabilities in the format of the OpenAI API, and those of a prompt."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.sampling import TokenLogProbability, log_probability

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation import GeneratedToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["LogProbabilities", "prompt_log_probabilities"]

# Rows of logits held at once while the log-probabilities of a prompt are computed.
_PROMPT_ROWS = 64


class Row(NamedTuple):
    """A token, the offset of its text, and the log-probabilities at its position: None for the first of a prompt."""

    id: int
    offset: int
    chance: TokenLogProbability | None


class LogProbabilities:
    """The log-probabilities of a text in the format of the OpenAI API, collected token by token.

    offset: the offset of the first token in the text, in characters.
    """

    def __init__(self, tokenizer: Tokenizer, offset: int) -> None:
        self._tokenizer = tokenizer
        self._offset = offset
        self._rows: list[Row] = []
        # A character may span several tokens: it is counted at the token with its last byte.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int, chance: TokenLogProbability | None, shown: bool = True) -> None:
        """Add a token; `chance` is None if unknown. shown: whether control tokens are part of the text."""
        self._rows.append(Row(token, self._offset, chance))
        data = self._tokenizer.decode_bytes([token], skip_special=not shown)
        self._offset += len(self._decoder.decode(data))

    def note(self, tokens: Iterable[GeneratedToken]) -> None:
        """Add tokens of the answer, whose text does not show control tokens."""
        for token in tokens:
            self.add(token.id, token.log_probability, shown=False)

    def as_lists(self) -> dict[str, Any] | None:
        """The log-probabilities since the last call, in the format of text completions; None if there are none.

        The entries of `top_logprobs` are empty if no alternatives were requested; otherwise they include the chosen
        token. Of several tokens with the same text, all but the most likely are named by their ids.
        """
        rows = self._taken()
        if not rows:
            return None
        return {
            "tokens": [self._name(row.id) for row in rows],
            "text_offset": [row.offset for row in rows],
            "token_logprobs": [None if row.chance is None else row.chance.log_probability for row in rows],
            "top_logprobs": [None if row.chance is None else self._by_name(row.id, row.chance) for row in rows],
        }

    def as_objects(self) -> list[dict[str, Any]]:
        """The log-probabilities since the last call, in the format of chat completions: one object per token."""
        return [
            {
                **self._object(row.id, row.chance.log_probability),
                "top_logprobs": [self._object(other, value) for other, value in row.chance.top],
            }
            for row in self._taken()
            if row.chance is not None
        ]

    def _taken(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    def _object(self, token: int, value: float) -> dict[str, Any]:
        data = self._tokenizer.decode_bytes([token])
        return {"token": data.decode("utf-8", "replace"), "logprob": value, "bytes": list(data)}

    def _by_name(self, token: int, chance: TokenLogProbability) -> dict[str, float]:
        if not chance.top:
            return {}
        found: dict[str, float] = {}
        listed = list(chance.top)
        if all(other != token for other, _ in listed):
            listed.append((token, chance.log_probability))
        for other, value in listed:
            name = self._name(other)
            found[f"<token {other}>" if name in found else name] = value
        return found

    def _name(self, token: int) -> str:
        """The text of a token; if it is not valid UTF-8, its bytes as the OpenAI API writes them."""
        data = self._tokenizer.decode_bytes([token])
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def prompt_log_probabilities(session: SessionLike, prompt: Sequence[int], top: int) -> list[TokenLogProbability | None]:
    """The log-probability of each token of the prompt given the tokens before it, with the `top` most likely ones.

    The first entry is None. The session is truncated first, and afterwards holds the prompt without its last token.
    """
    session.truncate(0)
    found: list[TokenLogProbability | None] = [None]
    for start in range(0, len(prompt) - 1, _PROMPT_ROWS):
        piece = list(prompt[start : min(start + _PROMPT_ROWS, len(prompt) - 1)])
        rows = session.forward(piece, logits="all")
        found += [log_probability(row, prompt[start + place + 1], top) for place, row in enumerate(rows)]
    return found
