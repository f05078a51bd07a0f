"""Structured output: a grammar decides which tokens may come next.

    grammar = Grammar.json_schema({"type": "object", "properties": {"age": {"type": "integer"}}})
    constraint = grammar.constraint(model.tokenizer)
    model.generate(prompt, logits_processors=[constraint])

GBNF grammars are matched by llamacpu itself. JSON schemas, any JSON, regular expressions and Lark grammars are
compiled by llguidance (``pip install llamacpu[grammar]``). What cannot be compiled, or nests too deep, is a
`GrammarError`; there is no unconstrained text in its place.
"""

from __future__ import annotations

import json
import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.constraints.gbnf import GbnfGrammar, GbnfMatcher
from llamacpu.constraints.json_schema import compiled
from llamacpu.errors import GrammarError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Grammar", "GrammarConstraint"]

LONGEST = 1 << 20
DEEPEST = 128

_tokenizers: weakref.WeakKeyDictionary[Tokenizer, tuple[Any, Vocabulary]] = weakref.WeakKeyDictionary()


class Grammar:
    """A description of the texts that are allowed. Made by one of the class methods, which check it.

    source   the grammar as llguidance takes it, or in GBNF
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._gbnf: GbnfGrammar | None = None
        llguidance = _library()
        wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(source, limits=_limits())
        if wrong:
            raise GrammarError(f"the grammar cannot be used: {_first_line(messages[0])}")

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | bool | str, strict: bool = False) -> Grammar:
        """Texts that are JSON and valid under `schema`, a dict or JSON text.

        An object with named properties gets no others unless the schema says that it may. What cannot be enforced
        while a text is written (`contains`, overlapping `oneOf`, ...) is a note in the log; with `strict` it is a
        GrammarError that names the keyword and its place.
        """
        if isinstance(schema, str):
            try:
                schema = json.loads(_checked(schema))
            except (ValueError, RecursionError) as error:
                raise GrammarError(f"the JSON schema is not JSON: {error}") from None
        return cls(_library().LLMatcher.grammar_from_json_schema(schema_text(schema, strict)))

    @classmethod
    def any_json(cls) -> Grammar:
        """Texts that are a JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression (Rust's syntax, without look-around) matches as a whole."""
        return cls(_library().LLMatcher.grammar_from_regex(_checked(pattern)))

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """Texts of a Lark grammar (llguidance's dialect)."""
        # What must come next is looked up token by token: where it has no end, as behind `/a+/ "ab"`, whose first part
        # takes every a, llguidance would look for the end forever.
        return cls.trusted_lark(_checked(grammar) + '\n%llguidance {"no_forcing": true}\n')

    @classmethod
    def trusted_lark(cls, grammar: str) -> Grammar:
        """As `lark`, for a grammar of one's own in which what must come next always ends; that is a little faster."""
        return cls(_library().LLMatcher.grammar_from_lark(_checked(grammar)))

    @classmethod
    def gbnf(cls, grammar: str, root: str = "root") -> Grammar:
        """Texts of the rule `root` of a grammar in llama.cpp's notation. llguidance is not needed."""
        made = cls.__new__(cls)
        made.source = grammar
        made._gbnf = GbnfGrammar(grammar, root)
        return made

    # llama-cpp-python's names.

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> Grammar:
        """A grammar in GBNF."""
        return cls.gbnf(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> Grammar:
        """A grammar in GBNF from a file."""
        return cls.gbnf(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> Grammar:
        """The grammar of a JSON schema."""
        return cls.json_schema(json_schema)

    def matcher(self, tokenizer: Tokenizer) -> Matcher | GbnfMatcher:
        """The grammar and one text that is written under it."""
        return Matcher(self, tokenizer) if self._gbnf is None else self._gbnf.matcher(tokenizer)

    def constraint(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> GrammarConstraint:
        """The grammar at work on one text; `vocab_size` is the number of logits where it is not the tokenizer's."""
        return GrammarConstraint(self, tokenizer, vocab_size)


class Matcher:
    """A grammar and one text that is being written under it. Raises GrammarError where the two do not go together."""

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer) -> None:
        llguidance = _library()
        self._ends = sorted(tokenizer.eog)
        self._tokenizer = tokenizer
        self._matcher = llguidance.LLMatcher(_vocabulary(tokenizer)[0], grammar.source, log_level=0, limits=_limits())
        self._check()

    def consume(self, token: int) -> None:
        """The text goes on by a token."""
        self._matcher.consume_token(token)
        self._check()

    def feed(self, text: bytes) -> bool:
        """The text goes on by these bytes; False if the grammar forbids that, and then the matcher is of no use."""
        try:
            ids = self._tokenizer.encode(text.decode(), add_special=False, parse_special=False, space_prefix=False)
        except UnicodeDecodeError:
            return False
        return bool(self._matcher.try_consume_tokens(ids) == len(ids))

    def mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Set the logits of the tokens that cannot come next to minus infinity, in place."""
        import numpy as np

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
        """Whether the text so far is one of the grammar's."""
        return bool(self._matcher.is_accepting())

    @property
    def stopped(self) -> bool:
        """Whether the text is one of the grammar's and cannot go on."""
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the grammar cannot be used: {_first_line(self._matcher.get_error())}")


class GrammarConstraint:
    """A logits processor that forbids every token which the grammar does not allow next. For one text only."""

    def __init__(self, grammar: Grammar, tokenizer: Tokenizer, vocab_size: int | None = None) -> None:
        self._matcher = grammar.matcher(tokenizer)
        self._seen: int | None = None

    def __call__(self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Set the logits of forbidden tokens to minus infinity, in place. `ids` are the prompt and the text so far."""
        if self._seen is not None:
            for token in ids[self._seen :].tolist():
                self._matcher.consume(token)
        self._seen = len(ids)
        self._matcher.mask(logits)
        return logits

    def stop_with(self, cancel: CancelToken) -> None:
        """Let the work on a mask end, with `Cancelled`, once this token is cancelled."""
        if isinstance(self._matcher, GbnfMatcher):
            self._matcher.cancel = cancel

    @property
    def complete(self) -> bool:
        """Whether the text so far is one of the grammar's."""
        return self._matcher.accepting or self._matcher.stopped


def schema_text(schema: Any, strict: bool = False) -> str:
    """A JSON schema as the text that llguidance takes, in a grammar too, checked. Raises GrammarError."""
    try:
        _checked(json.dumps(schema, ensure_ascii=False))
        return _spaced(compiled(schema, _what_is_wrong, strict))
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, GrammarError):
            raise
        raise GrammarError(f"the JSON schema cannot be used: {_first_line(str(error))}") from None


def _spaced(schema: dict[str, Any]) -> str:
    return json.dumps({**schema, "x-guidance": {"whitespace_pattern": _SPACE}})


def _what_is_wrong(schema: dict[str, Any]) -> str | None:
    """What llguidance says against a schema; None if it takes it."""
    library = _library()
    try:
        source = library.LLMatcher.grammar_from_json_schema(_spaced(schema))
    except ValueError as error:
        return str(error)
    wrong, messages = library.LLMatcher.validate_grammar_with_warnings(source, limits=_limits())
    return str(messages[0]) if wrong else None


# One space, or a line break and an indentation; never an endless run, which small models fall into.
_SPACE = r"( |\n {0,8})?"


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise GrammarError(
            "structured output needs the package llguidance; install it with: pip install llamacpu[grammar]"
        ) from None
    return llguidance


def _limits() -> Any:
    # A fifth of a second at most before the first token: the defaults let a short expression take six. Steps are
    # limited as well, since one that runs cannot be stopped: a generation looks at its time limit between two of them.
    return _library().LLParserLimits(
        initial_lexer_fuel=200_000,
        max_lexer_states=50_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_grammar_size=500_000,
    )


def _checked(text: str) -> str:
    """`text`, if it is of a size and depth that a grammar may have."""
    if not isinstance(text, str):
        raise GrammarError(f"the grammar is a {type(text).__name__}; a text was expected")
    if len(text) > LONGEST:
        raise GrammarError(f"the grammar has {len(text)} characters, at most {LONGEST} are allowed")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise GrammarError(
            f"the grammar has half of a surrogate pair, {text[error.start]!r}, at character {error.start}; "
            "write the whole character"
        ) from None
    depth = 0
    for letter in text:
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
        self._tokenizer = tokenizer
        ends = sorted(tokenizer.eog)
        self.eos_token_id = tokenizer.eos if tokenizer.eos is not None else (ends[0] if ends else 0)
        self.bos_token_id = tokenizer.bos
        shown = [tokenizer.decode_bytes([token], skip_special=True) for token in range(tokenizer.vocab_size)]
        # A control token has no text of its own: the marker byte keeps its name from being taken for text.
        self.tokens = [text or b"\xff" + tokenizer.id_to_piece(i).encode() for i, text in enumerate(shown)]
        self.special_token_ids = [i for i, text in enumerate(shown) if not text]
        self._special = frozenset(self.special_token_ids)

    def __call__(self, text: bytes | str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=False, space_prefix=False)

    def text_of(self, token: int) -> bytes:
        """The bytes of a token, or the name of a control token."""
        return self.tokens[token][1:] if token in self._special else self.tokens[token]

    def control_token(self, name: str) -> int | None:
        """The id of the control token with this name."""
        token = self._tokenizer.token_to_id(name)
        return token if token in self._special else None


def vocabulary_of(tokenizer: Tokenizer) -> Vocabulary:
    """The vocabulary of a tokenizer, made once."""
    return _vocabulary(tokenizer)[1]


def _vocabulary(tokenizer: Tokenizer) -> tuple[Any, Vocabulary]:
    known = _tokenizers.get(tokenizer)
    if known is None:
        llguidance = _library()
        vocabulary = Vocabulary(tokenizer)
        ends = sorted(tokenizer.eog) or [vocabulary.eos_token_id]
        known = llguidance.LLTokenizer(llguidance.TokenizerWrapper(vocabulary), eos_token=ends), vocabulary
        _tokenizers[tokenizer] = known
    return known
