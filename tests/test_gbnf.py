"""GBNF: the matcher says what the plain one of `reference_gbnf` says, and reads the notation as llama.cpp does."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference_gbnf
from fake_llama import Tokens
from fake_model import CONTROL, END, START, VOCABULARY, ids_of
from llamacpu import CancelToken, _native
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import Cancelled, GrammarError
from reference_gbnf import Item, Reference, TooManyError, choices, may_end, notation

TOKENS = Tokens()
ALPHABET = "ab]-é界😀\n"
RULES = ("root", "1st", "x-y", "Root")

# --- Against the reference ---

texts = st.text(ALPHABET, max_size=3).map(lambda text: ("text", text))
ranges = st.tuples(st.sampled_from(ALPHABET), st.sampled_from(ALPHABET)).map(lambda pair: (ord(pair[0]), ord(pair[1])))
single = st.sampled_from(ALPHABET).map(lambda letter: (ord(letter), ord(letter)))
sets = st.builds(
    lambda inverted, parts: ("set", inverted, tuple(parts)),
    st.booleans(),
    st.lists(st.one_of(single, ranges, st.just((0xD800, 0x10FFFF))), min_size=1, max_size=3),
)
references = st.sampled_from(RULES).map(lambda name: ("rule", name))
times = st.sampled_from([(0, None), (0, None), (1, None), (0, 1), (0, 0), (2, 2), (0, 3), (1, 2), (2, None)])


def repeated(items: st.SearchStrategy[Item]) -> st.SearchStrategy[Item]:
    some = items.filter(lambda item: item != ("text", "") and not (item[0] == "repeat" and item[3] == 0))
    return st.builds(lambda item, count: ("repeat", item, *count), some, times)


def grammars(leaves: st.SearchStrategy[Item]) -> st.SearchStrategy[reference_gbnf.Grammar]:
    items = st.recursive(
        leaves,
        lambda inner: st.one_of(
            repeated(inner),
            st.lists(st.lists(inner, max_size=3).map(tuple), min_size=1, max_size=3).map(
                lambda sequences: ("group", tuple(sequences))
            ),
        ),
        max_leaves=6,
    )
    sequences = st.lists(st.lists(items, max_size=3).map(tuple), min_size=1, max_size=3)
    return st.fixed_dictionaries({name: sequences for name in RULES})


characters = st.one_of(texts, texts, sets, st.just(("any",)), references)
with_tokens = st.one_of(
    characters,
    characters,
    st.builds(lambda kind, id: (kind, id), st.sampled_from(["token", "other"]), st.integers(0, 9)),
)


def both(grammar: reference_gbnf.Grammar, seed: int) -> tuple[Reference, Grammar] | None:
    """The grammar for the reference and for the extension, or None where both refuse it."""
    written = notation(grammar, random.Random(seed))
    try:
        reference = Reference(grammar)
    except TooManyError:
        return None
    except RecursionError:
        with pytest.raises(GrammarError, match="left recursion"):
            Grammar.gbnf(written)
        return None
    return reference, Grammar.gbnf(written)


def hold_texts(grammar: reference_gbnf.Grammar, seed: int) -> bool:
    """Whether the grammar is one; then some texts are matched as by the reference, prefix by prefix."""
    found = both(grammar, seed)
    if found is None:
        return False
    reference, ours = found
    chance = random.Random(seed)
    for _ in range(4):
        matcher, state = ours.matcher(TOKENS), reference.start
        for _ in range(8):
            assert matcher.accepting == may_end(state)
            likely = choices(state, ALPHABET)
            letter = chance.choice(likely if likely and chance.random() < 0.9 else ALPHABET)
            try:
                after = reference.bytes(state, letter.encode())
            except TooManyError:
                break
            assert matcher.feed(letter.encode()) == bool(after)
            state = after or state
    return True


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grammars(characters), st.integers(0, 2**32))
def test_texts_are_matched_as_by_the_reference(grammar: reference_gbnf.Grammar, seed: int) -> None:
    hold_texts(grammar, seed)


def random_grammar(chance: random.Random) -> reference_gbnf.Grammar:
    def item(depth: int) -> Item:
        kind = chance.randrange(9 if depth > 0 else 4)
        if kind < 2:
            return ("text", "".join(chance.choices(ALPHABET, k=chance.choice([0, 1, 1, 1, 2, 3]))))
        if kind == 2:
            pairs = [(ord(chance.choice(ALPHABET)), ord(chance.choice(ALPHABET))) for _ in range(chance.randint(1, 3))]
            return ("set", chance.random() < 0.3, tuple(pairs))
        if kind == 3:
            return ("rule", chance.choice(RULES)) if chance.random() < 0.7 else ("any",)
        if kind < 7:
            return ("group", tuple(sequence(depth - 1) for _ in range(chance.randint(1, 3))))
        inner = item(depth - 1)
        if inner == ("text", "") or (inner[0] == "repeat" and inner[3] == 0):
            return inner
        return (
            "repeat",
            inner,
            *chance.choice([(0, None), (0, None), (1, None), (0, 1), (0, 0), (2, 2), (0, 3), (1, 2)]),
        )

    def sequence(depth: int) -> tuple[Item, ...]:
        return tuple(item(depth) for _ in range(chance.choice([0, 1, 1, 2, 2, 3])))

    return {name: [sequence(2) for _ in range(chance.randint(1, 3))] for name in RULES}


@pytest.mark.parametrize("part", range(8))
def test_a_thousand_grammars_of_fixed_seeds(part: int) -> None:
    usable = sum(hold_texts(random_grammar(random.Random(1000 * part + seed)), seed) for seed in range(120))
    assert usable >= 55, "the generator makes left recursion too often"


PIECES = ["a", "b", "]", "-", "é", "界", "😀", "ab", "ba", "aab", "\n", "a\n", "éa", "界😀", "]]", "--"]


def some_vocabulary(chance: random.Random) -> list[bytes]:
    """Texts of tokens: characters, several of them, beginnings and ends of them, broken ones, doubles, and none."""
    found = [chance.choice(PIECES).encode() for _ in range(20)]
    for _ in range(20):
        text = "".join(chance.choices(ALPHABET, k=3)).encode()
        start = chance.randrange(len(text))
        found.append(text[start : chance.randint(start + 1, len(text))])
    found += [b"", b"", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"a\xf0", bytes([chance.randrange(256)])]
    chance.shuffle(found)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(grammars(with_tokens), st.integers(0, 2**32))
def test_masks_are_what_each_token_alone_gives(grammar: reference_gbnf.Grammar, seed: int) -> None:
    found = both(grammar, seed)
    if found is None:
        return
    reference, _ = found
    chance = random.Random(seed)
    vocabulary = some_vocabulary(chance)
    named = [id for id, text in enumerate(vocabulary) if not text and chance.random() < 0.5]
    ends = [chance.randrange(len(vocabulary))]
    trie = _native.TokenTrie(vocabulary, named, ends)
    native = _native.Grammar(notation(grammar, chance), "root")
    ids = [id for id, _ in native.references if id is not None]
    matcher, state = _native.GrammarMatcher(native, trie, ids), reference.start
    for _ in range(6):
        after = {}
        try:
            for id, text in enumerate(vocabulary):
                writable = id not in ends and (bool(text) or id in named)
                after[id] = reference.token(state, id, b"" if id in ends else text, writable)
        except TooManyError:
            return
        wanted = [id for id in after if after[id] or (id in ends and may_end(state))]
        if not wanted:
            with pytest.raises(GrammarError):
                matcher.allowed()
            return
        assert matcher.allowed().tolist() == wanted
        logits = np.zeros(len(vocabulary) + 3, dtype=np.float32)
        matcher.mask(logits)
        assert np.flatnonzero(logits == 0).tolist() == wanted
        assert matcher.stopped() == (may_end(state) and all(id in ends for id in wanted))
        for id in set(after) - set(wanted):
            with pytest.raises(GrammarError):
                matcher.consume(id)
        choice = chance.choice(wanted)
        if choice in ends:
            matcher.consume(choice)
            assert matcher.allowed().tolist() == ends
            assert matcher.stopped()
            return
        matcher.consume(choice)
        state = after[choice]


# --- The notation ---


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


# --- Tokens ---


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
