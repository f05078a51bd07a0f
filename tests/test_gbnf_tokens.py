"""GBNF: tokens that a grammar names, tokens that end a text, and what is kept for the next text."""

from __future__ import annotations

import numpy as np
import pytest

from fake_llama import Tokens
from fake_model import CONTROL, END, START, VOCABULARY, ids_of
from llamacpu import _native
from llamacpu.constraints.gbnf import GbnfMatcher
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError

TOKENS = Tokens()


def allowed(grammar: str, text: str = "") -> set[int]:
    matcher = Grammar.gbnf(grammar).matcher(TOKENS)
    for token in ids_of(text):
        matcher.consume(token)
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    matcher.mask(logits)
    return set(np.flatnonzero(logits > -np.inf).tolist())


def test_tokens_that_are_named() -> None:
    name = TOKENS.id_to_piece(CONTROL)
    for reference in (f"<[{CONTROL}]>", name):
        assert allowed(f"root ::= {reference} [a]") == {CONTROL}
        assert allowed(f'root ::= {reference} | "a"') == {CONTROL, *ids_of("a")}
        others = allowed(f"root ::= !{reference} [a]")
        assert CONTROL not in others
        assert END not in others
        assert set(range(3, VOCABULARY)) <= others
    assert allowed('root ::= <[0]>* "a"') == {START, *ids_of("a")}
    matcher = Grammar.gbnf(f'root ::= {name} (!{name})* {name} "x"').matcher(TOKENS)
    for token in (CONTROL, *ids_of("é x"), CONTROL, *ids_of("x")):
        assert not matcher.accepting
        matcher.consume(token)
    assert matcher.accepting
    assert matcher.stopped
    # A token may be half a character to one reading of the text and whole to another.
    assert allowed("root ::= !<[2]> [a] | [é] [b]", "") >= set(ids_of("aé"))
    half = Grammar.gbnf("root ::= !<[2]> [a] | [é] [b]").matcher(TOKENS)
    half.consume(ids_of("é")[0])
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    half.mask(logits)
    assert set(np.flatnonzero(logits == 0).tolist()) == {*ids_of("a"), ids_of("é")[1]}


def test_tokens_that_the_vocabulary_does_not_have() -> None:
    for grammar in ("root ::= <nosuch>", f"root ::= <[{VOCABULARY}]>", "root ::= !<nosuch>"):
        with pytest.raises(GrammarError, match="names the token"):
            Grammar.gbnf(grammar).matcher(TOKENS)


def test_control_tokens_are_no_text() -> None:
    name = TOKENS.id_to_piece(CONTROL)
    assert allowed(f'root ::= "{name}"') == {ids_of(name)[0]}
    assert not allowed("root ::= .*") & {START, CONTROL}


def test_the_end_is_allowed_where_the_grammar_may_end_and_forced_where_it_must() -> None:
    grammar = 'root ::= "a" "b"?'
    assert allowed(grammar) == set(ids_of("a"))
    assert allowed(grammar, "a") == {END, *ids_of("b")}
    assert allowed(grammar, "ab") == {END}
    assert allowed("root ::=") == {END}
    # A token that ends texts may be named, too.
    assert allowed(f'root ::= "a" <[{END}]>', "a") == {END}
    matcher = Grammar.gbnf(grammar).matcher(TOKENS)
    with pytest.raises(GrammarError, match="ends a text"):
        matcher.consume(END)
    matcher.consume(ids_of("a")[0])
    matcher.consume(END)
    with pytest.raises(GrammarError, match="has ended"):
        matcher.consume(ids_of("b")[0])


def test_every_token_that_ends_a_text() -> None:
    trie = _native.TokenTrie([b"a", b"", b"<end>", b""], [], [1, 2])
    matcher = _native.GrammarMatcher(_native.Grammar('root ::= "a"*', "root"), trie, [])
    assert matcher.allowed().tolist() == [0, 1, 2]


def test_a_grammar_that_cannot_go_on_is_an_error() -> None:
    trie = _native.TokenTrie([b"a", b"b", b""], [], [2])
    for grammar in ('root ::= "c"', 'root ::= "a" [z-y]', "root ::= [z-y]"):
        matcher = _native.GrammarMatcher(_native.Grammar(grammar, "root"), trie, [])
        if grammar.startswith('root ::= "a"'):
            assert matcher.allowed().tolist() == [0]
            matcher.consume(0)
        with pytest.raises(GrammarError, match="no token of the vocabulary"):
            matcher.allowed()
    endless = _native.GrammarMatcher(_native.Grammar('root ::= "a"', "root"), _native.TokenTrie([b"a"], [], []), [])
    endless.consume(0)
    with pytest.raises(GrammarError, match="no token that ends a text"):
        endless.allowed()


def test_what_a_text_has_shown_of_a_grammar_is_kept_for_the_next() -> None:
    grammar = Grammar.gbnf('root ::= "a" [^b]* "c" | !<[5]> "d"')

    def masks(matcher: GbnfMatcher) -> list[list[int]]:
        found = [matcher.allowed().tolist()]
        for token in ids_of("ax{c"):
            matcher.consume(token)
            found.append(matcher.allowed().tolist())
        return found

    first = grammar.matcher(TOKENS)
    assert isinstance(first, GbnfMatcher)
    expected = masks(first)
    native = first._native
    other = grammar.matcher(TOKENS)
    assert isinstance(other, GbnfMatcher)
    assert other._native is not native, "two texts at once have a matcher each"
    del first
    again = Grammar.gbnf('root ::= "a" [^b]* "c" | !<[5]> "d"').matcher(TOKENS)
    assert isinstance(again, GbnfMatcher)
    assert again._native is native
    assert not again.accepting
    assert masks(again) == expected == masks(other)
    # One that has ended begins anew, too; one in which a call has failed is not used again.
    again.consume(END)
    del again
    ended = grammar.matcher(TOKENS)
    assert isinstance(ended, GbnfMatcher)
    assert ended._native is native
    assert masks(ended) == expected
    with pytest.raises(GrammarError):
        ended.consume(ids_of("b")[0])
    del ended
    fresh = grammar.matcher(TOKENS)
    assert isinstance(fresh, GbnfMatcher)
    assert fresh._native is not native


def test_a_long_text_leaves_no_large_automaton_behind() -> None:
    grammar = Grammar.gbnf('root ::= ("(" root ")" | [a-z])*')
    matcher = grammar.matcher(TOKENS)
    opening, closing, letter = ids_of("()x")
    for token in [opening, letter] * 60_000:
        matcher.consume(token)
    del matcher
    matcher = grammar.matcher(TOKENS)
    assert matcher.accepting
    with pytest.raises(GrammarError):
        matcher.consume(closing)
    matcher.consume(letter)
    assert matcher.accepting
