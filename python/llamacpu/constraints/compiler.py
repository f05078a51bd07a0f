"""JSON schemas, regular expressions and Lark grammars, compiled by llguidance for a vocabulary.

A running step of llguidance is not interrupted: its limits end it. A generation that is cancelled or out of time waits
for the running step, a few tenths of a second at most, and for no other.

Compiled grammars are cached for later texts under the same grammar: the latest ones of each vocabulary.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from llamacpu.chat.marks import INNER_MARKS, call_tags
from llamacpu.constraints.grammar_texts import quoted
from llamacpu.constraints.json_schema import compiled
from llamacpu.errors import Cancelled, GrammarError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["DEEPEST", "Matcher", "Vocabulary", "check_source", "checked", "library", "schema_text", "vocabulary_of"]

Made = TypeVar("Made")

LONGEST, LONGEST_TRUSTED = 1 << 20, 1 << 23
DEEPEST = 128
# How many grammars are cached, per vocabulary and in total, and how long they may be.
_KEPT = 16
_LONGEST_KEPT = 1 << 21

_vocabularies: weakref.WeakKeyDictionary[Tokenizer, Compiler] = weakref.WeakKeyDictionary()


def library() -> Any:
    """The module llguidance. Raises GrammarError if it is not installed."""
    try:
        import llguidance
    except ImportError:
        raise GrammarError(
            "structured output needs the package llguidance; install it with: pip install llamacpu[grammar]"
        ) from None
    return llguidance


@lru_cache(maxsize=1)
def _limits() -> Any:
    # A fifth of a second at most before the first token: with the defaults, a short expression may take six. Steps are
    # limited as well, since a running one cannot be stopped: a generation checks its time limit only between steps.
    return library().LLParserLimits(
        initial_lexer_fuel=200_000,
        max_lexer_states=50_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_grammar_size=500_000,
    )


def _wrong(source: str) -> str | None:
    """The error in a grammar; None if it can be used."""
    wrong, messages = library().LLMatcher.validate_grammar_with_warnings(source, limits=_limits())
    return str(messages[0]) if wrong else None


_wrong_kept = lru_cache(maxsize=4 * _KEPT)(_wrong)


def check_source(source: str) -> None:
    """Raise GrammarError for a grammar that llguidance rejects."""
    message = (_wrong_kept if len(source) <= _LONGEST_KEPT else _wrong)(source)
    if message is not None:
        raise GrammarError(f"the grammar cannot be used: {_first_line(message)}")


def schema_text(schema: Any, strict: bool = False) -> str:
    """A checked JSON schema as text for llguidance, also for use inside a grammar. Raises GrammarError."""
    try:
        checked(json.dumps(schema, ensure_ascii=False))
        return _spaced(compiled(schema, _what_is_wrong, strict))
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, GrammarError):
            raise
        raise GrammarError(f"the JSON schema cannot be used: {_first_line(str(error))}") from None


def _spaced(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": _SPACE}})


def _what_is_wrong(schema: dict[str, Any]) -> str | None:
    """llguidance's objection to a schema; None if it accepts it."""
    try:
        source = library().LLMatcher.grammar_from_json_schema(_spaced(schema))
    except ValueError as error:
        return str(error)
    return (_wrong_kept if len(source) <= _LONGEST_KEPT else _wrong)(source)


# One space, or a line break and an indentation; never an endless run, in which small models get stuck.
_SPACE = r"( |\n {0,8})?"


def checked(text: str, trusted: bool = False) -> str:
    """Return `text` if it is neither too long nor too deeply nested for a grammar. Raises GrammarError otherwise.

    trusted: the text was built from parts that have been checked. It may be longer, and its brackets are not counted:
    those in strings and expressions need no counterpart.
    """
    if not isinstance(text, str):
        raise GrammarError(f"the grammar is a {type(text).__name__}; a text was expected")
    longest = LONGEST_TRUSTED if trusted else LONGEST
    if len(text) > longest:
        raise GrammarError(f"the grammar has {len(text)} characters, at most {longest} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarError(
            f"the grammar has half of a surrogate pair, {text[error.start]!r}, at character {error.start}; "
            "write the whole character"
        ) from None
    depth = 0
    for letter in () if trusted else text:
        if letter in "([{":
            depth += 1
            if depth > DEEPEST:
                raise GrammarError(f"the grammar is nested more than {DEEPEST} levels deep")
        elif letter in ")]}":
            depth = max(0, depth - 1)
    return text


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "no reason was given"


class Vocabulary:
    """The vocabulary in the form that llguidance reads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # llguidance holds this object, invisibly to the garbage collector, for as long as the tokenizer exists.
        self._tokenizer = weakref.ref(tokenizer)
        ends = sorted(tokenizer.eog)
        self.eos_token_id: int = tokenizer.eos if tokenizer.eos is not None else (ends[0] if ends else 0)
        self.bos_token_id: int | None = tokenizer.bos
        shown = [tokenizer.decode_bytes([token], skip_special=True) for token in range(tokenizer.vocab_size)]
        # A control token has no text of its own: the marker byte keeps its name from being mistaken for text.
        self.tokens: list[bytes] = [text or b"\xff" + tokenizer.id_to_piece(i).encode() for i, text in enumerate(shown)]
        self.special_token_ids: list[int] = [i for i, text in enumerate(shown) if not text]
        self._special = frozenset(self.special_token_ids)
        marks = (mark for mark in call_tags() if self.control_token(mark) is not None)
        self._marks = sorted(marks, key=lambda mark: (-len(mark), mark))

    def __call__(self, text: bytes | str) -> list[int]:
        tokenizer = self._tokenizer()
        if tokenizer is None:
            raise ReferenceError("the tokenizer of this vocabulary is gone")
        return tokenizer.encode(text, add_special=False, parse_special=False, space_prefix=False)

    def text_of(self, token: int) -> bytes:
        """The bytes of a token, or the name of a control token."""
        return self.tokens[token][1:] if token in self._special else self.tokens[token]

    def control_token(self, name: str) -> int | None:
        """The id of the control token with this name."""
        tokenizer = self._tokenizer()
        token = tokenizer.token_to_id(name) if tokenizer is not None else None
        return token if token in self._special else None

    def marked(self, text: str) -> str:
        """A text as a grammar writes it: in quotes, and control tokens of calls in it by their ids."""
        token = self.control_token(text)
        if token is not None:
            return f"<[{token}]>"
        for mark in self._marks:
            before, found, after = text.partition(mark)
            if found:
                return " ".join(self.marked(part) for part in (before, found, after) if part)
        return quoted(text)

    def parts_of(self, text: str) -> list[int | str]:
        """A text split at the control tokens that calls contain, which are given by their ids."""
        inner = {mark: token for mark in INNER_MARKS if (token := self.control_token(mark)) is not None}
        if not inner:
            return [text]
        pieces = re.split(f"({'|'.join(map(re.escape, inner))})", text)
        return [inner.get(piece, piece) for piece in pieces if piece]


class Compiler:
    """What is built once per vocabulary: its form for llguidance, and the latest grammars compiled for it."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        llguidance = library()
        self.vocabulary: Vocabulary = Vocabulary(tokenizer)
        ends = sorted(tokenizer.eog) or [self.vocabulary.eos_token_id]
        native = llguidance.LLTokenizer(llguidance.TokenizerWrapper(self.vocabulary), eos_token=ends)
        self._new = partial(_new_matcher, native)
        self._kept = lru_cache(maxsize=_KEPT)(self._new)
        self._made: dict[Hashable, Any] = {}

    def matcher(self, source: str) -> Any:
        """A matcher at the beginning of a text."""
        return self._kept(source).deep_copy() if len(source) <= _LONGEST_KEPT else self._new(source)

    def made(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` builds for this vocabulary, cached for the latest keys; it must not hold the tokenizer."""
        found: Made | None = self._made.pop(key, None)
        if found is None:
            found = make()
        self._made[key] = found
        if len(self._made) > _KEPT:
            # A copy of the keys: another thread may add one meanwhile.
            self._made.pop([*self._made][0], None)  # noqa: RUF015
        return found


def _new_matcher(native: Any, source: str) -> Any:
    matcher = library().LLMatcher(native, source, log_level=0, limits=_limits())
    if not matcher.is_error():
        # What the first token needs is computed here, so that copies already have it.
        matcher.compute_bitmask()
    if matcher.is_error():
        raise GrammarError(f"the grammar cannot be used: {_first_line(matcher.get_error())}")
    return matcher


def compiler_of(tokenizer: Tokenizer) -> Compiler:
    """The compiler for the vocabulary of a tokenizer, created once."""
    known = _vocabularies.get(tokenizer)
    if known is None:
        known = _vocabularies.setdefault(tokenizer, Compiler(tokenizer))
    return known


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, created once."""
    return compiler_of(tokenizer).vocabulary


class Matcher:
    """A grammar and one text being written under it. Raises GrammarError if the text does not match the grammar.

    source: the grammar in llguidance's form.
    """

    def __init__(self, source: str, tokenizer: Tokenizer) -> None:
        self._ends = sorted(tokenizer.eog)
        self._tokenizer = tokenizer
        self._matcher = compiler_of(tokenizer).matcher(source)
        # Checked before each step: a running one is not stopped.
        self.cancel: CancelToken | None = None

    def consume(self, token: int) -> None:
        """Append a token to the text."""
        self._look()
        self._matcher.consume_token(token)
        self._check()

    def feed(self, text: bytes) -> bool:
        """Append these bytes to the text. Returns False if the grammar forbids that; the matcher is then unusable."""
        try:
            parts = vocabulary_of(self._tokenizer).parts_of(text.decode())
        except UnicodeDecodeError:
            return False
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else self._tokenizer.encode(
                part, add_special=False, parse_special=False, space_prefix=False
            )  # fmt: skip
        self._look()
        return bool(self._matcher.try_consume_tokens(ids) == len(ids))

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that cannot come next to minus infinity, in place."""
        import numpy as np

        self._look()
        allowed = np.zeros(len(logits), dtype=bool)
        if self.stopped:
            allowed[self._ends] = True
        else:
            bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
            self._check()
            unpacked = np.unpackbits(bits, count=min(len(logits), 8 * len(bits)), bitorder="little")
            allowed[: len(unpacked)] = unpacked
            if self._ends and not allowed[self._ends].any() and self.accepting:
                allowed[self._ends] = True
        np.copyto(logits, -np.inf, where=~allowed)

    @property
    def accepting(self) -> bool:
        """Whether the text so far is complete under the grammar."""
        return bool(self._matcher.is_accepting())

    @property
    def stopped(self) -> bool:
        """Whether the text is complete under the grammar and cannot continue."""
        return bool(self._matcher.is_stopped())

    def _look(self) -> None:
        if self.cancel is not None and self.cancel.cancelled:
            raise Cancelled("the generation was cancelled")

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar cannot be used: {_first_line(self._matcher.get_error())}")
