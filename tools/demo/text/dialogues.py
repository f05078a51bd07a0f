"""Whole documents: conversations of one to many exchanges, and plain stories."""

from __future__ import annotations

import random
from typing import Any

from .facts import fact_exchange
from .grammar import expand
from .noise import typed
from .poems import fun_exchange, poem_exchange
from .stories import story, story_exchange
from .topics import Exchange, read_lists, read_topics, some_topic
from .unknown import unknown_exchange
from .words import MORE_NAMES, invented_name, person_name

PRODUCT, SMALL_TALK = read_topics("product.txt"), read_topics("talk.txt")
FRAMES = read_lists("frames.txt")
KINDS = {
    "product": 0.20,
    "talk": 0.21,
    "story": 0.12,
    "unknown": 0.15,
    "fact": 0.24,
    "fun": 0.02,
    "poem": 0.03,
    "name": 0.06,
}


def exchange(rng: random.Random, kind: str | None = None) -> Exchange:
    """Return one exchange of a random kind."""
    kind = kind or rng.choices(list(KINDS), list(KINDS.values()))[0]
    if kind == "product":
        return some_topic(PRODUCT, rng).exchange(rng)
    if kind == "talk":
        return some_topic(SMALL_TALK, rng).exchange(rng)
    if kind == "name":
        return name_exchange(rng)
    makers = {
        "story": story_exchange,
        "unknown": unknown_exchange,
        "fact": fact_exchange,
        "fun": fun_exchange,
        "poem": poem_exchange,
    }
    return makers[kind](rng)


def frame(name: str, rng: random.Random, slots: dict[str, str] | None = None) -> str:
    """Return a random sentence from one of the lists in frames.txt."""
    return expand(rng.choice(FRAMES[name]), rng, slots)


def name_exchange(rng: random.Random) -> Exchange:
    """Return an exchange in which the user gives a name, or asks for it too early."""
    if rng.random() < 0.25:
        return Exchange(frame("ask for my name", rng), "You have not told me your name yet. What is it?")
    slots = {"name": person_name(rng)}
    ask = (frame("ask for my name", rng), f"Your name is {slots['name']}.")
    return Exchange(frame("my name", rng, slots), frame("greeting", rng, slots), (ask, ask))


def conversation(rng: random.Random, turns: int) -> dict[str, Any]:
    """Return a conversation of about `turns` exchanges as a list of messages."""
    messages: list[dict[str, str]] = []
    if rng.random() < 0.2:
        name = invented_name(rng) if rng.random() < 0.3 else rng.choice(MORE_NAMES)
        messages.append({"role": "system", "content": frame("system prompt", rng, {"name": name})})
    pending: list[tuple[str, str]] = []
    while len(messages) < 2 * turns:
        if pending and rng.random() < 0.6:
            question, answer = pending.pop(0)
        else:
            current = exchange(rng)
            question, answer, pending = current.question, current.answer, list(current.follow_ups)
            if question[:1].isalpha() and rng.random() < 0.06:
                question = f"{frame('beginning', rng)} {question}"
        messages.append({"role": "user", "content": typed(question, rng)})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages}


def document(rng: random.Random) -> dict[str, Any]:
    """Return one document: mostly short conversations, some long ones, some plain stories."""
    roll = rng.random()
    if roll < 0.03:
        return {"text": story(rng)[0]}
    if roll < 0.80:
        return conversation(rng, 1)
    if roll < 0.995:
        return conversation(rng, rng.randint(2, 3))
    return conversation(rng, rng.randint(5, 14))
