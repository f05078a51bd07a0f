"""Structured output: a grammar decides which tokens may come next.

    grammar = Grammar.json_schema({"type": "object", "properties": {"age": {"type": "integer"}}})
    constraint = grammar.constraint(model.tokenizer)
    model.generate(prompt, logits_processors=[constraint])

GBNF grammars are matched by llamacpu itself. JSON schemas, any JSON, regular expressions and Lark grammars are
compiled by llguidance (``pip install llamacpu[grammar]``). What cannot be compiled, or nests too deep, is a
`GrammarError`; there is no unconstrained text in its place.

A time limit or a cancelled generation ends the work of a GBNF grammar at once. llguidance is asked between its steps: a
step that runs goes on to its own limits, which end it after a few tenths of a second.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.constraints.compiler import Matcher, check_source, checked, library, schema_text
from llamacpu.constraints.gbnf import GbnfGrammar, GbnfMatcher
from llamacpu.constraints.json_schema import parsed

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Grammar", "GrammarConstraint"]


class Grammar:
    """A description of the texts that are allowed. Made by one of the class methods, which check it.

    source   the grammar as llguidance takes it, or in GBNF
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._gbnf: GbnfGrammar | None = None
        check_source(source)

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | bool | str, strict: bool = False) -> Grammar:
        """Texts that are JSON and valid under `schema`, a dict or JSON text.

        An object with named properties gets no others unless the schema says that it may. What cannot be enforced
        while a text is written (`contains`, overlapping `oneOf`, ...) is a note in the log; with `strict` it is a
        GrammarError that names the keyword and its place.
        """
        if isinstance(schema, str):
            schema = parsed(checked(schema))
        return cls(library().LLMatcher.grammar_from_json_schema(schema_text(schema, strict)))

    @classmethod
    def any_json(cls) -> Grammar:
        """Texts that are a JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression (Rust's syntax, without look-around) matches as a whole."""
        return cls(library().LLMatcher.grammar_from_regex(checked(pattern)))

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """Texts of a Lark grammar (llguidance's dialect)."""
        # What must come next is looked up token by token: where it has no end, as behind `/a+/ "ab"`, whose first part
        # takes every a, llguidance would look for the end forever.
        return cls.trusted_lark(checked(grammar) + '\n%llguidance {"no_forcing": true}\n')

    @classmethod
    def trusted_lark(cls, grammar: str) -> Grammar:
        """As `lark`, for a grammar of one's own in which what must come next always ends; that is a little faster."""
        return cls(library().LLMatcher.grammar_from_lark(checked(grammar)))

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

    def __repr__(self) -> str:
        """Its beginning."""
        shown = " ".join(self.source.split())
        return f"<Grammar {shown if len(shown) <= 60 else shown[:57] + '...'!r}>"

    def matcher(self, tokenizer: Tokenizer) -> Matcher | GbnfMatcher:
        """The grammar and one text that is written under it."""
        return Matcher(self.source, tokenizer) if self._gbnf is None else self._gbnf.matcher(tokenizer)

    def constraint(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> GrammarConstraint:
        """The grammar at work on one text; `vocab_size` is the number of logits where it is not the tokenizer's."""
        return GrammarConstraint(self, tokenizer, vocab_size)


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
        """Let the work on a mask end, with `Cancelled`, once this token is cancelled.

        That of a GBNF grammar ends at once, that of another grammar before its next step.
        """
        self._matcher.cancel = cancel

    @property
    def complete(self) -> bool:
        """Whether the text so far is one of the grammar's."""
        return self._matcher.accepting or self._matcher.stopped
