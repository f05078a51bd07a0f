"""Grammars in GBNF, llama.cpp's notation, matched by the native extension; no other package is needed.

A grammar describes a text character by character. Tokens without text, such as control tokens, are allowed only where
the grammar names them (`<think>`, `<[10]>`) or excludes another (`!<[11]>`); tokens that end a text are allowed where
the grammar may end, or where it names them.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from llamacpu import _native
from llamacpu.errors import GrammarError

if TYPE_CHECKING:
    import numpy.typing as npt

    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["GbnfGrammar", "GbnfMatcher"]

# How many grammars are cached, how long they may be, and how many idle matchers of each are kept.
_KEPT = 16
_LONGEST_KEPT = 1 << 16
_IDLE = 2

_tries: weakref.WeakKeyDictionary[Tokenizer, _native.TokenTrie] = weakref.WeakKeyDictionary()


class _Read:
    """A parsed grammar and its idle matchers, which remember what earlier texts have revealed about it."""

    def __init__(self, text: str, root: str) -> None:
        self.native = _native.Grammar(text, root)
        self.idle: weakref.WeakKeyDictionary[Tokenizer, list[_native.GrammarMatcher]] = weakref.WeakKeyDictionary()


_read = lru_cache(maxsize=_KEPT)(_Read)


class GbnfGrammar:
    """A grammar in GBNF that starts at the rule `root`. Raises GrammarError if it cannot be used."""

    def __init__(self, text: str, root: str = "root") -> None:
        if not isinstance(text, str) or not isinstance(root, str):
            wrong = text if not isinstance(text, str) else root
            raise GrammarError(f"the grammar is a {type(wrong).__name__}; a text was expected")
        try:
            self._grammar = _read(text, root) if len(text) <= _LONGEST_KEPT else _Read(text, root)
        except UnicodeEncodeError as error:
            raise GrammarError(f"the grammar is not Unicode: {error.reason} at character {error.start}") from None

    def matcher(self, tokenizer: Tokenizer, cancel: _native.CancelToken | None = None) -> GbnfMatcher:
        """A matcher for one text to be written under the grammar."""
        grammar, idle = self._grammar.native, self._grammar.idle.setdefault(tokenizer, [])
        try:
            native = idle.pop()
        except IndexError:
            references = [_token(tokenizer, id, text) for id, text in grammar.references]
            native = _native.GrammarMatcher(grammar, _trie(tokenizer), references, cancel)
        else:
            native.restart(cancel)
        return GbnfMatcher(native, idle, cancel)


class GbnfMatcher:
    """A grammar and one text being written under it. Raises GrammarError if the text does not match the grammar.

    idle: the list to which the native matcher returns when the text is done, for reuse.
    """

    def __init__(
        self,
        native: _native.GrammarMatcher,
        idle: list[_native.GrammarMatcher],
        cancel: _native.CancelToken | None = None,
    ) -> None:
        self._native = native
        self._idle = idle
        # False while a call has not returned: such a matcher is not reused.
        self._is_sound = True
        # Stops a long call.
        self.cancel = cancel

    def __del__(self) -> None:
        if getattr(self, "_is_sound", False) and len(self._idle) < _IDLE:
            self._idle.append(self._native)

    def consume(self, token: int) -> None:
        """Append a token to the text."""
        self._is_sound = False
        self._native.consume(token, self.cancel)
        self._is_sound = True

    def feed(self, text: bytes) -> bool:
        """Append these bytes to the text. Returns False, with nothing changed, if the grammar forbids that."""
        self._is_sound = False
        found = self._native.feed(text, self.cancel)
        self._is_sound = True
        return found

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that cannot come next to minus infinity, in place."""
        self._is_sound = False
        self._mask(logits)
        self._is_sound = True

    def _mask(self, logits: npt.NDArray[np.float32]) -> None:
        if logits.dtype == np.float32 and logits.flags.c_contiguous and logits.flags.writeable:
            self._native.mask(logits, self.cancel)
        else:
            forbidden = np.ones(len(logits), dtype=bool)
            allowed = self.allowed()
            forbidden[allowed[allowed < len(logits)]] = False
            logits[forbidden] = -np.inf

    def allowed(self) -> npt.NDArray[np.int64]:
        """The ids of the tokens that may come next, in ascending order."""
        return self._native.allowed(self.cancel)

    @property
    def accepting(self) -> bool:
        """Whether the text so far is complete under the grammar."""
        return self._native.accepting

    @property
    def stopped(self) -> bool:
        """Whether the text is complete under the grammar and cannot continue."""
        return self._native.stopped(self.cancel)


def _token(tokenizer: Tokenizer, id: int | None, text: str | None) -> int:
    """The id of a token that a grammar names."""
    if id is not None:
        return id
    assert text is not None
    found = tokenizer.encode(text, add_special=False, parse_special=True, space_prefix=False)
    if len(found) != 1:
        raise GrammarError(
            f"the grammar names the token {text}, which the vocabulary does not have: its text is {len(found)} tokens; "
            f"name a token of the vocabulary, or write the text as a string: {_quoted(text)}"
        )
    return found[0]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _trie(tokenizer: Tokenizer) -> _native.TokenTrie:
    """The vocabulary of a tokenizer as a trie for the extension, built once."""
    known = _tries.get(tokenizer)
    if known is None:
        texts = [tokenizer.decode_bytes([token], skip_special=True) for token in range(tokenizer.vocab_size)]
        named = [token for token, text in enumerate(texts) if not text and tokenizer.id_to_piece(token)]
        known = _tries[tokenizer] = _native.TokenTrie(texts, named, sorted(tokenizer.eog))
    return known
