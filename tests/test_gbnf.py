"""GBNF: the notation is read as llama.cpp reads it, and what cannot be read or used is an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import llamacpu
from fake_llama import Tokens
from fake_model import START, VOCABULARY, ids_of
from llamacpu import CancelToken, Model, _native
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import Cancelled, GrammarError

TOKENS = Tokens()
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"


def matches(grammar: str, text: str, root: str = "root") -> bool:
    matcher = Grammar.gbnf(grammar, root).matcher(TOKENS)
    return matcher.feed(text.encode()) and matcher.accepting


@pytest.mark.parametrize(
    ("grammar", "right", "wrong"),
    [
        ('root ::= x "ab"\nx ::= "a"*', ["ab", "aab", "a" * 500 + "b"], ["", "a", "b", "abb"]),
        ('root ::= [a-z]+ "ing"', ["sing", "inging", "king"], ["ing", "sin", "Sing"]),
        ('root ::= ("a"|"ab")("c"|"bcd")', ["ac", "abc", "abcd", "abbcd"], ["a", "ab", "abcdd"]),
        ('root ::= word ("," word)*\nword ::= [a-z ]+', ["a b", "a b,c d"], ["", "a,,b"]),
        ('root ::= "\\u00e9"', ["é"], ["e", "\\u00e9"]),
        ("root ::= [\\u0041-\\u005A]", ["A", "Z"], ["a", "\\", "u"]),
        ('root ::= "\\U0001F600"', ["😀"], ["F"]),
        ('root ::= "\\[" "\\]" "\\-" "\\"" "\\\\" "\\n\\r\\t"', ['[]-"\\\n\r\t'], ["[]"]),
        ('root ::= "\\x41" [\\x30-\\x39]', ["A0", "A9"], ["x410"]),
        ('root ::= start\nstart ::= "a"', ["a"], ["start"]),
        ('root ::= 1st 2\n1st ::= "a"\n2 ::= "b"', ["ab"], ["1st"]),
        ('root ::= a A a-A a_b\na ::= "1"\nA ::= "2"\na-A ::= "3"\na_b ::= "4"', ["1234"], ["1111"]),
        ('root ::= "a"{0} "b"', ["b"], ["ab"]),
        ('root ::= "ab"{2} | "c"{1,} | [de]{ 2 , 3 } | "f"{0,2}', ["abab", "cc", "ded", "", "ff"], ["abb", "d", "fff"]),
        ('root ::= ("a"*)*', ["", "aaa"], ["b", "ab"]),
        ('root ::= (("a"*)* ("b"?)+ ()*)* "c"', ["c", "abbac"], ["", "ca"]),
        ('root ::= "a"{2}*', ["", "aa", "aaaa"], ["a", "aaa"]),
        ("root ::= .", ["a", "\n", "\r", "é", "😀", "\0"], ["", "ab"]),
        ('root ::= ... "abc"', ["🔵🟠✅abc", "abcabc"], ["ababc"]),
        ("root ::= [a&&b]+", ["a", "&", "b&a"], ["c", ""]),
        ("root ::= [a~~b--z||]+", ["a~|z"], ["c", "b", "-"]),
        ("root ::= [^a-c\\n]+", ["dé😀"], ["a", "d\n", ""]),
        ("root ::= [-a] [a-] [a\\-c] [\\]^]", ["--a]", "aa-^"], ["bb-]"]),
        ("root ::= [^^] []", ["a"], ["^"]),
        ('root ::= [z-a] | "x" | [^b-a]{2}', ["x", "zz"], ["a", "z"]),
        ('root ::= "" | "a" |', ["", "a"], ["b"]),
        ('root ::= ( # comment "\n  "a" |\n\n "b" # another\n)\n', ["a", "b"], ["ab"]),
        ('root::="a"|"b"|\n"c"\r\nx::=\n\n"d" # end', ["a", "b", "c"], ["d"]),
        ('# first\n\n  root ::= "#" # not that\n', ["#"], [""]),
        ('root ::= "a"\nroot ::= "b"', ["b"], ["a"]),
        ('root ::= "(((((" ")" [({]', ["((((()(", "((((()" + "{"], ["("]),
        ('root ::= "a" root "b" | "a" root "c" | "x"', ["a" * 300 + "x" + "bc" * 150], ["axd", "a"]),
        ('root ::= "(" root ")" root |', ["", "()()", "(" * 2000 + ")" * 2000], ["(", "())"]),
    ],
)  # fmt: skip
def test_notation(grammar: str, right: Sequence[str], wrong: Sequence[str]) -> None:
    for text in right:
        assert matches(grammar, text), text
    for text in wrong:
        assert not matches(grammar, text), text


def test_another_root() -> None:
    grammar = 'root ::= "a" other\nother ::= "b"'
    assert matches(grammar, "b", "other")
    assert not matches(grammar, "ab", "other")
    with pytest.raises(GrammarError, match="no rule called 'nosuch'"):
        Grammar.gbnf(grammar, "nosuch")


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "is empty"),
        (" # nothing", "is empty"),
        ('main ::= "a"', "no rule called 'root'"),
        ("root ::= nosuch", "'nosuch' is used but not defined"),
        ('root ::= "', "line 1 at the end: .* not closed"),
        ('root ::= "a"\nx ::= [a', "line 2 at the end: .* not closed"),
        ("root ::= ([a]", r"expected '\)'"),
        ("root ::= [a])", "expected the end of the line"),
        ('root = "a"', "expected ::="),
        ('"a"', "name of a rule"),
        ('root ::= * "a"', "nothing before it"),
        ('root ::= ""*', "nothing before it"),
        ('root ::= "a"{0}*', "nothing before it"),
        ('root ::= "a"{,3}', "expected a number"),
        ('root ::= "a"{3', "expected '}'"),
        ('root ::= "a"{3,2}', "below the first"),
        ('root ::= "a"{2001}', "more than 2000"),
        ('root ::= "a"{99999999999999999999999}', "expected a number"),
        ('root ::= "\\q"', "stands for no character"),
        ('root ::= "\\u00g0"', "4 hexadecimal digits"),
        ('root ::= "\\xé0"', "2 hexadecimal digits"),
        ('root ::= "\\uD83D\\uDE00"', "U\\+D83D is no character"),
        ('root ::= "\\UFFFFFFFF"', "is no character"),
        ("root ::= <think", "expected a token"),
        ("root ::= !x", "expected a token"),
        ("root ::= <[x]>", "expected the id"),
        ("root ::= <[99999999999]>", "expected the id"),
        ("root ::= root", "left recursion"),
        ('root ::= root "a" | "b"', "left recursion"),
        ('root ::= x "b"\nx ::= "c"? x "d" | "e"', "left recursion"),
        ("root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000, "nested more than 128"),
        ("root ::= " + '("a"{0,2000}){2000} ' * 1000, "symbols"),
        ("root ::= " + '"a" ' * 300_000, "bytes"),
        ("root ::= \ud800", "not Unicode"),
    ],
)
def test_what_cannot_be_read_is_an_error(grammar: str, message: str) -> None:
    with pytest.raises(GrammarError, match=message):
        Grammar.gbnf(grammar)


def test_a_grammar_is_a_text() -> None:
    with pytest.raises(GrammarError, match="a text was expected"):
        Grammar.gbnf(None)  # type: ignore[arg-type]


def test_as_many_repetitions_as_one_likes() -> None:
    assert matches('root ::= "a"{2000}', "a" * 2000)
    assert not matches('root ::= "a"{2000}', "a" * 1999)
    # More than 2000 at most are no limit, as in llama.cpp.
    assert matches('root ::= "a"{0,2001}', "a" * 3000)
    assert not matches('root ::= "a"{0,2000}', "a" * 2001)
    assert matches("root ::= " + '"a"? ' * 300, "a" * 300)
    assert not matches("root ::= " + '"a"? ' * 300, "a" * 301)


# --- Limits ---

AMBIGUOUS = 'root ::= ("(" root ")" | ("("?){300} ("(" root | "x"))*'


def test_ambiguity_ends_in_an_error_or_in_a_result() -> None:
    deep = "root ::= x\nx ::= " + " | ".join(f'"a" x "{letter}"' for letter in "bcdefgh") + ' | "z"'
    assert matches(deep, "a" * 1000 + "z" + "bcdefgh" * 142 + "bcdefg")
    catalan = 'root ::= "a" | "a" root root'
    assert matches(catalan, "a" * 201)
    assert not matches(catalan, "a" * 200)
    with pytest.raises(GrammarError, match="too many ways"):
        matches(AMBIGUOUS, "(" * 2000)


def test_long_work_can_be_stopped() -> None:
    for cancel in (CancelToken(), CancelToken(timeout=0.0)):
        cancel.cancel()
        many = _native.Grammar('root ::= ("a"?){2000} "b"', "root")
        matcher = _native.GrammarMatcher(many, _native.TokenTrie([b"a", b"b"], [], []), [])
        with pytest.raises(Cancelled):
            matcher.allowed(cancel)
        assert matcher.allowed().tolist() == [0, 1]


def test_a_generation_stops_the_work_of_its_grammar() -> None:
    many = Grammar.gbnf('root ::= ("a"?){2000} "b"').constraint(TOKENS)
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    cancel = CancelToken()
    many.stop_with(cancel)
    many(np.array([START]), logits)
    cancel.cancel()
    fresh = Grammar.gbnf('root ::= ("a"?){2000} "b"').constraint(TOKENS)
    fresh.stop_with(cancel)
    with pytest.raises(Cancelled):
        fresh(np.array([START]), logits)


def test_what_a_long_text_leaves_behind_is_forgotten() -> None:
    matcher = Grammar.gbnf('root ::= ("(" root ")" | [a-z])*').matcher(TOKENS)
    opening, closing, letter = ids_of("()x")
    # Deep enough that the matcher has to sort out what it remembers, and does not grow with what it has left.
    for _ in range(3):
        for token in [opening, letter] * 40_000 + [closing] * 40_000:
            matcher.consume(token)
        assert matcher.accepting
    with pytest.raises(GrammarError):
        matcher.consume(closing)


@pytest.mark.parametrize(
    "make",
    [lambda: Grammar.gbnf('root ::= ("a"?){2000} [b-z] root'), lambda: Grammar.lark("start: /(a?){50}[b-z]/ start")],
    ids=["GBNF", "Lark"],
)
def test_a_time_limit_ends_the_work_of_a_slow_grammar(make: Callable[[], Grammar]) -> None:
    pytest.importorskip("llguidance", reason="llguidance is not installed")
    with Model(DEMO) as model:
        constraint = make().constraint(model.tokenizer)
        found = model.generate(model.tokenizer.encode("Hello"), timeout=0.05, logits_processors=[constraint]).read()
    assert found.finish_reason == "timeout"
