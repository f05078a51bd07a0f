"""Structured output: a grammar decides which tokens may come next.

    grammar = Grammar.json_schema({"type": "object", "properties": {"age": {"type": "integer"}}})
    constraint = grammar.constraint(model.tokenizer)
    model.generate(prompt, logits_processors=[constraint])

GBNF grammars are matched by llamacpu itself. JSON schemas, any JSON, regular expressions and Lark grammars are
compiled by llguidance (``pip install llamacpu[grammar]``). What cannot be compiled, or is nested too deeply, raises
`GrammarError`; there is no fallback to unconstrained text.

A time limit or a cancelled generation stops the work on a GBNF grammar at once. llguidance is stopped only between its
steps: a running step continues up to its own limits, which end it after a few tenths of a second.
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
    """A description of the texts that are allowed. Created by one of the class methods, which check it.

    source   the grammar in llguidance's form, or in GBNF
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._gbnf: GbnfGrammar | None = None
        check_source(source)

    @classmethod
    def json_schema(cls, schema: dict[str, Any] | bool | str, strict: bool = False) -> Grammar:
        """The grammar of JSON texts that are valid under `schema`, a dict, a bool or JSON text.

        An object with named properties gets no others unless the schema says that it may. What cannot be enforced
        during generation (`contains`, overlapping `oneOf`, ...) is logged; with `strict`, it raises a GrammarError
        that names the keyword and its place.
        """
        if isinstance(schema, str):
            schema = parsed(checked(schema))
        return cls(library().LLMatcher.grammar_from_json_schema(schema_text(schema, strict)))

    @classmethod
    def any_json(cls) -> Grammar:
        """The grammar of JSON objects."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """The grammar of texts that a regular expression (Rust's syntax, without look-around) matches in full."""
        return cls(library().LLMatcher.grammar_from_regex(checked(pattern)))

    @classmethod
    def lark(cls, grammar: str) -> Grammar:
        """The grammar of texts that a Lark grammar (llguidance's dialect) describes."""
        # llguidance looks up forced text token by token: where it is endless, as after `/a+/ "ab"`, whose first part
        # takes every a, it would look for the end forever.
        return cls.trusted_lark(checked(grammar) + '\n%llguidance {"no_forcing": true}\n')

    @classmethod
    def trusted_lark(cls, grammar: str) -> Grammar:
        """The same as `lark` for a trusted grammar, in which forced text always ends; that is a little faster."""
        return cls(library().LLMatcher.grammar_from_lark(checked(grammar, trusted=True)))

    @classmethod
    def gbnf(cls, grammar: str, root: str = "root") -> Grammar:
        """A grammar in llama.cpp's notation (GBNF) that starts at the rule `root`. llguidance is not needed."""
        made = cls.__new__(cls)
        made.source = grammar
        made._gbnf = GbnfGrammar(grammar, root)
        return made

    # llama-cpp-python's names.

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> Grammar:
        """Read a grammar in GBNF."""
        return cls.gbnf(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> Grammar:
        """Read a grammar in GBNF from a file."""
        return cls.gbnf(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> Grammar:
        """The grammar of a JSON schema."""
        return cls.json_schema(json_schema)

    def __repr__(self) -> str:
        """The beginning of the grammar."""
        shown = " ".join(self.source.split())
        return f"<Grammar {shown if len(shown) <= 60 else shown[:57] + '...'!r}>"

    def matcher(self, tokenizer: Tokenizer) -> Matcher | GbnfMatcher:
        """A matcher for one text to be written under the grammar."""
        return Matcher(self.source, tokenizer) if self._gbnf is None else self._gbnf.matcher(tokenizer)

    def constraint(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> GrammarConstraint:
        """A logits processor for one text; `vocab_size` is the number of logits where it is not the tokenizer's."""
        return GrammarConstraint(self, tokenizer, vocab_size)


class GrammarConstraint:
    """A logits processor that masks every token the grammar does not allow next. For one text only."""

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
        """Stop the work on a mask, raising `Cancelled`, once this token is cancelled.

        A GBNF grammar stops at once, any other grammar before its next step.
        """
        self._matcher.cancel = cancel

    @property
    def complete(self) -> bool:
        """Whether the text so far is complete under the grammar."""
        return self._matcher.accepting or self._matcher.stopped
