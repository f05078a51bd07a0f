"""A text of any length for measurements: made-up sentences, the same ones every time."""

from __future__ import annotations

_WHO = ("The little girl", "A big red dog", "My friend Tom", "The old man", "Lily", "A bird", "The boy", "Her mom")
_DID = ("saw", "liked", "found", "wanted", "played with", "looked at", "took", "gave away")
_WHAT = ("a ball", "the tree", "a small cat", "some cake", "the sun", "a blue car", "his hat", "the water", "a book")
_THEN = ("and was very happy", "but it was too big", "in the park", "and went home", "so they ran", "at night", "")


def sample_text(sentences: int) -> str:
    """That many sentences, chosen by a congruential generator."""
    state, lines = 12345, []
    for index in range(sentences):
        words = []
        for choices in (_WHO, _DID, _WHAT, _THEN):
            state = (1103515245 * state + 12345) % 2**31
            words.append(choices[(state >> 16) % len(choices)])
        lines.append(" ".join(word for word in words if word) + (".\n" if index % 5 == 4 else "."))
    return " ".join(lines).replace("\n ", "\n")
