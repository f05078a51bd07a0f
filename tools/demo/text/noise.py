"""How people really type: case, punctuation, politeness and typing errors."""

from __future__ import annotations

import random
import re

NEIGHBOURS = {
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo", "j": "hk",
    "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et", "s": "ad", "t": "ry",
    "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
SHORT_FORMS = [
    ("what is", "what's"), ("who is", "who's"), ("how is", "how's"), ("where is", "where's"), ("it is", "it's"),
    ("do not", "don't"), ("can not", "can't"), ("cannot", "can't"), ("i am", "i'm"), ("you are", "you're"),
    ("does not", "doesn't"), ("is not", "isn't"), ("i would", "i'd"), ("that is", "that's"), ("let us", "let's"),
]  # fmt: skip
CHATTY = [("you", "u"), ("are", "r"), ("please", "pls"), ("because", "cuz"), ("want to", "wanna"), ("what's", "whats")]
QUESTION_WORDS = re.compile(
    r"(what|who|how|where|when|why|which|can|could|do|does|did|is|are|will|would|should|whose|may|have|has|am)\b"
)
NAME_PLACE = re.compile(r"\bi\b")


def typed(sentence: str, rng: random.Random) -> str:
    """Return a sentence (lower case, capitalized names, no final punctuation) as a user may type it."""
    text = sentence
    for long, short in SHORT_FORMS:
        if rng.random() < 0.5:
            text = re.sub(rf"\b{long}\b", short, text)
    style = rng.random()
    if style < 0.05:
        for long, short in CHATTY:
            if rng.random() < 0.6:
                text = re.sub(rf"\b{long}\b", short, text)
    if rng.random() < 0.10:
        text = typo(text, rng)
        if rng.random() < 0.3:
            text = typo(text, rng)
    asks = QUESTION_WORDS.match(text.lower()) is not None
    if style < 0.27:
        text = text.lower()
    elif style < 0.29:
        text = text.upper()
    else:
        text = NAME_PLACE.sub("I", text)
        text = text[:1].upper() + text[1:]
    if text and text[-1] in ".?!:;)\"'":
        return text
    mark = rng.random()
    if mark < 0.38:
        return text
    if mark < 0.86:
        return text + ("?" if asks else ".")
    if mark < 0.93:
        return text + ("?" if asks else "!")
    return text + rng.choice(["!", "...", "??", " ?", "!!", ".", "?!", " :)", "?"])


def typo(text: str, rng: random.Random) -> str:
    """Return the text with one typing error in a word of at least four letters."""
    places = [match.span() for match in re.finditer(r"[a-z]{4,}", text)]
    if not places:
        return text
    start, end = rng.choice(places)
    at = rng.randrange(start, end - 1)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    return text[:at] + rng.choice(NEIGHBOURS[text[at]]) + text[at + 1 :]
