"""Short stories: a hero, a place, one of many small plots, and an ending."""

from __future__ import annotations

import random

from .grammar import expand
from .topics import Exchange, read_lists
from .words import ANIMALS, HE, LISTS, PEOPLE, PLACE_PHRASE, SHE, THINGS, article, invented_name, invented_noun, plural

PARTS = read_lists("stories.txt")
SHE_KINDS, HE_KINDS, SIZES = LISTS["female"], LISTS["male"], LISTS["sizes"]
PRONOUNS = {
    False: {"he": "he", "He": "He", "him": "him", "his": "his", "His": "His"},
    True: {"he": "she", "He": "She", "him": "her", "his": "her", "His": "Her"},
}
FRIENDS = [animal for animal in ANIMALS[:40] if animal[0] not in "aeiou"]


def part(name: str, rng: random.Random, slots: dict[str, str] | None = None) -> str:
    """Return a random sentence from one of the lists in stories.txt."""
    return expand(rng.choice(PARTS[name]), rng, slots)


def story(
    rng: random.Random, kind: str | None = None, name: str | None = None, place: str | None = None
) -> tuple[str, dict[str, str]]:
    """Return a story and the slots that it was made from."""
    kind = kind or (rng.choice(ANIMALS) if rng.random() < 0.7 else rng.choice(PEOPLE[:50]))
    if kind in SHE_KINDS or kind in HE_KINDS:
        female = kind in SHE_KINDS
    elif name in SHE or name in HE:
        female = name in SHE
    else:
        female = rng.random() < 0.5
    name = name or rng.choice(SHE if female else HE)
    slots = PRONOUNS[female] | {
        "kind": kind,
        "name": name,
        "friend": rng.choice([one for one in HE + SHE if one != name]),
        "other": rng.choice([one for one in FRIENDS if one != kind]),
        "thing": rng.choice(THINGS),
        "place": place or rng.choice(list(PLACE_PHRASE.values())),
    }
    return " ".join(part(name, rng, slots) for name in ("opening", "plot", "ending")), slots


def hero_kind(rng: random.Random) -> str:
    """Return the kind of a hero, sometimes an invented word."""
    roll = rng.random()
    if roll < 0.10:
        return invented_noun(rng)
    return rng.choice(ANIMALS if roll < 0.60 else PEOPLE)


def request(rng: random.Random) -> tuple[str, str | None, str | None, str | None]:
    """Return a request for a story, and the kind, name and place of the hero if the request gives them."""
    ask = rng.choice([f"{part('ask', rng)} {part('a story', rng)}"] * 3 + ["a story", "story", "a short story"])
    please = rng.choice(["", "", "", " please"])
    roll = rng.random()
    if roll < 0.24:
        return (part("short ask", rng) if rng.random() < 0.25 else ask + please), None, None, None
    if roll < 0.34:
        return f"{ask} about {part('theme', rng)}{please}", None, None, None
    if roll < 0.42:
        kind = hero_kind(rng) if rng.random() < 0.6 else None
        spot, place = rng.choice(list(PLACE_PHRASE.items()))
        hero = f" about {article(kind)}" if kind else ""
        where = rng.choice(
            [place, f"{rng.choice(['in', 'on'])} {rng.choice(['the', 'a'])} {spot}", f"that happens {place}"]
        )
        return f"{ask}{hero} {where}", kind, None, place
    kind, name = hero_kind(rng), None
    if rng.random() < 0.2:
        return f"{ask} about {plural(kind)}{please}", kind, None, None
    with_size = article(f"{rng.choice(SIZES)} {kind}")
    whom = rng.choice([article(kind)] * 3 + [f"the {kind}", with_size, kind, f"my {kind}"])
    roll = rng.random()
    if roll < 0.3:
        name = invented_name(rng) if rng.random() < 0.5 else rng.choice(HE + SHE)
        whom += rng.choice([" named ", " called ", " with the name "]) + name
    elif roll < 0.40:
        whom += " and " + article(rng.choice(ANIMALS))
    elif roll < 0.46:
        whom += rng.choice([" who ", " that "]) + part("who", rng, {"thing": rng.choice(THINGS)})
    return f"{ask} about {whom}{please}", kind, name, None


def story_exchange(rng: random.Random) -> Exchange:
    """Return a request for a story, the story, and questions about it."""
    question, kind, name, place = request(rng)
    text, slots = story(rng, kind, name, place)
    follow_ups = [
        (part("another", rng), story(rng)[0]),
        (part("name question", rng, slots), part("name answer", rng, slots)),
        (part("friend question", rng, slots), part("friend answer", rng, slots)),
    ]
    rng.shuffle(follow_ups)
    return Exchange(question, text, tuple(follow_ups))
