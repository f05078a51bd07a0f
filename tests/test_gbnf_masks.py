"""GBNF: texts and masks are those of the plain matcher of `reference_gbnf`."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference_gbnf
from fake_llama import Tokens
from llamacpu import _native
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError
from reference_gbnf import Item, Reference, TooManyError, choices, may_end, notation
from thorough import examples

TOKENS = Tokens()
ALPHABET = "ab]-é界😀\n"
RULES = ("root", "1st", "x-y", "Root")

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


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


@settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
