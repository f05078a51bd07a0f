"""Questions outside the model's world, which it declines in a friendly way."""

from __future__ import annotations

import random

from .grammar import expand
from .topics import Exchange, read_lists, read_topics
from .words import (
    ANIMALS,
    LISTS,
    MORE_NAMES,
    PEOPLE,
    PLACES,
    THINGS,
    article,
    invented_name,
    invented_noun,
    plural,
)

GENERAL, *TASKS = read_topics("unknown.txt")
WORDS = read_lists("unknown_words.txt")
THEMES = read_lists("stories.txt")["theme"]
COUNTRIES, ENDS = LISTS["countries"], LISTS["ends of a question"]
MARKS = (
    ".",
    "?",
    "??",
    "...",
    "!",
    "-",
    "1",
    "42",
    "a",
    "x",
    "abc",
    ":)",
    "123",
    "#",
    "/",
    '""',
    "*",
    "zzz",
    "[]",
    "<>",
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def unknown_exchange(rng: random.Random) -> Exchange:
    """Return a request that the model cannot fulfil, and its honest answer."""
    roll = rng.random()
    if roll < 0.06:
        answer = "I am sorry, I did not understand that. Please write to me in simple English."
        return Exchange(gibberish(rng), answer)
    slots = _slots(rng)
    if roll < 0.18:
        return Exchange(expand(rng.choice(GENERAL.questions[:2]), rng, slots), rng.choice(GENERAL.answers))
    return (GENERAL if roll < 0.58 else rng.choice(TASKS)).exchange(rng, slots)


def gibberish(rng: random.Random) -> str:
    """Return meaningless letters or marks."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(MARKS)
    if kind == 1:
        row = rng.choice(["asdfghjkl", "qwertyuiop", "zxcvbnm", "jkl", "hjkl", "fghj"])
        return "".join(rng.choice(row) for _ in range(rng.randint(3, 14)))
    if kind == 2:
        return "".join(rng.choice(LETTERS) for _ in range(rng.randint(4, 14)))
    if kind == 3:
        return " ".join(invented_noun(rng) for _ in range(rng.randint(1, 5)))
    characters = LETTERS + "0123456789!?#"
    return " ".join("".join(rng.choice(characters) for _ in range(rng.randint(1, 7))) for _ in range(rng.randint(1, 4)))


def _slots(rng: random.Random) -> dict[str, str]:
    nouns = ANIMALS + PEOPLE
    noun, other = rng.sample(nouns, 2)
    slots = {name: expand(rng.choice(entries), rng) for name, entries in WORDS.items()}
    if rng.random() < 0.15:
        slots["topic"] = invented_noun(rng)
    if rng.random() < 0.2:
        slots["famous"] = f"{rng.choice(MORE_NAMES)} {invented_name(rng)}"
    thing, name = rng.choice(THINGS), rng.choice(MORE_NAMES)
    words = [
        *(slots["topic"], thing, name, noun, f"the {noun}", article(noun), f"your {noun}", f"my {thing}"),
        *(plural(noun), invented_noun(rng), invented_name(rng), expand(rng.choice(THEMES), rng), rng.choice(PLACES)),
    ]
    return slots | {
        "noun": noun,
        "other": other,
        "nouns": plural(rng.choice(nouns)),
        "place": rng.choice(PLACES),
        "thing": thing,
        "country": rng.choice([*COUNTRIES, invented_name(rng)]),
        "name": name,
        "word": rng.choice(words),
        "rest": rng.choice(words + ENDS),
    }
