"""Word lists shared by several parts of the world."""

from __future__ import annotations

import random

from .topics import read_lists

LISTS = {title: ", ".join(entries).split(", ") for title, entries in read_lists("words.txt").items()}


def table(name: str) -> dict[str, str]:
    """Return a list of pairs from words.txt as a dictionary."""
    return dict(pair.split(": ") for pair in LISTS[name])


HE, SHE, MORE_NAMES, SYLLABLES = LISTS["he"], LISTS["she"], LISTS["names"], LISTS["syllables"]
ANIMALS, PEOPLE, THINGS = LISTS["animals"], LISTS["people and things"], LISTS["objects"]
PLURALS, PLACE_PHRASE = table("plurals"), table("places")
PLACES = list(PLACE_PHRASE)


def article(noun: str) -> str:
    """Return the noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" and not noun.startswith("uni") else "a ") + noun


def plural(noun: str) -> str:
    """Return the plural of a noun of these lists."""
    if noun in PLURALS:
        return PLURALS[noun]
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def invented_name(rng: random.Random) -> str:
    """Return a name that is in no list, so that copying a name is learned rather than the names."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3))).capitalize()


def invented_noun(rng: random.Random) -> str:
    """Return a noun that does not exist, for the same reason."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 3)))


def person_name(rng: random.Random) -> str:
    """Return the name of a user."""
    kind = rng.random()
    if kind < 0.25:
        return invented_name(rng)
    return rng.choice(MORE_NAMES if kind < 0.75 else HE + SHE)
