"""Little poems, jokes, riddles and fun facts."""

from __future__ import annotations

import random

from .grammar import expand
from .topics import Exchange, read_lists
from .words import ANIMALS, PEOPLE, article, invented_noun, plural

POEMS = {tuple(subjects.split("; ")): "\n".join(lines) for subjects, lines in read_lists("poems.txt").items()}
KNOWN = {subject for subjects in POEMS for subject in subjects}
PARTS = read_lists("fun.txt")
THEMES = read_lists("stories.txt")["theme"]


def part(name: str, rng: random.Random) -> str:
    """Return a random sentence from one of the lists in fun.txt."""
    return expand(rng.choice(PARTS[name]), rng)


def poem_exchange(rng: random.Random) -> Exchange:
    """Return a request for a poem and the poem; for an unknown subject, one about something else that says so."""
    subjects, other = rng.sample(list(POEMS), 2)
    answer = POEMS[subjects]
    roll = rng.random()
    ask = f"{part('ask for a poem', rng)} {part('a poem', rng)}" if rng.random() < 0.85 else "a poem"
    if roll < 0.25:
        question = part("poem", rng) if rng.random() < 0.2 else ask
    elif roll < 0.75:
        question = f"{ask} {rng.choice(['about', 'about', 'on'])} {rng.choice(subjects)}"
    else:
        nouns = [rng.choice(PEOPLE), rng.choice(ANIMALS[20:]), invented_noun(rng), rng.choice(PEOPLE)]
        candidates = [plural(nouns[0]), article(nouns[1]), nouns[2], article(nouns[3]), expand(rng.choice(THEMES), rng)]
        subject = rng.choice([one for one in candidates if one not in KNOWN])
        question = f"{ask} about {subject}"
        answer = f"I do not know a poem about that, but here is one about {subjects[0]}:\n{answer}"
    return Exchange(question, answer, ((part("another", rng), POEMS[other]),))


def fun_exchange(rng: random.Random) -> Exchange:
    """Return a joke, a riddle or a fun fact."""
    roll = rng.random()
    if roll < 0.5:
        first, second = rng.sample(PARTS["joke"], 2)
        return Exchange(part("ask for a joke", rng), first, ((part("another", rng), second),))
    if roll < 0.75:
        first, second = (riddle.split(" / ") for riddle in rng.sample(PARTS["riddle"], 2))
        guesses = [(part("give up", rng), first[1])] * 3
        return Exchange(part("ask for a riddle", rng), first[0], (*guesses, (part("another", rng), second[0])))
    first, second = (f"Did you know this? {fact}" for fact in rng.sample(PARTS["fact"], 2))
    return Exchange(part("ask for a fact", rng), first, ((part("another", rng), second),))
