"""Topics: the ways to ask about something and the ways to answer, read from the text files of this folder."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .grammar import expand

TELL_MORE = (
    "[please ](tell me more|go on|say more|explain more|more|more details|can you explain that|could you explain more|"
    "continue|what else|and then|and|tell me more about (it|that))"
)
NO_MORE = (
    "That is all I know about it. I am a tiny model, and my world is small.",
    "I do not know more than that. (You can ask me about llamacpu, or ask for a story.|Ask me something else.)",
)
ASK_MEANING = (
    "((what is|explain|tell me about|what do you know about|can you explain|describe|define|do you know|what are|"
    "tell me what is|i want to know about|so what is|could you explain|what exactly is) {it}"
    "[ to me| please| exactly| in llamacpu| for][ in simple words]|what does {it} (mean|do)|what is meant by {it}|{it}|"
    "what is {it} (good for|used for|for)|why do (i|we) need {it}|i do not understand {it}|"
    "what is the meaning of {it}|how does {it} work)"
)


@dataclass(frozen=True)
class Exchange:
    """One question, its answer, and what a user may naturally say next."""

    question: str
    answer: str
    follow_ups: tuple[tuple[str, str], ...] = ()


@dataclass
class Topic:
    """Question and answer templates; `more` answers a request to go on, `weight` is how often people ask."""

    weight: int = 1
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)

    def exchange(self, rng: random.Random, slots: Mapping[str, str] | None = None) -> Exchange:
        """Return one exchange on this topic."""
        question = expand(rng.choice(self.questions), rng, slots)
        answer = expand(rng.choice(self.answers), rng)
        return Exchange(question, answer, ((expand(TELL_MORE, rng), expand(rng.choice(self.more or NO_MORE), rng)),))


def read_topics(name: str) -> list[Topic]:
    """Return the topics of a file: paragraphs of lines that begin with ``*``, ``?``, ``??``, ``!`` or ``+``."""
    topics = []
    for paragraph in _paragraphs(name):
        topic = Topic()
        for mark, template in paragraph:
            if mark == "*":
                topic.weight = int(template)
            elif mark == "?":
                topic.questions.append(f"({template})")
            elif mark == "??":
                topic.questions.append(ASK_MEANING.format(it=f"({template})"))
            elif mark == "!":
                topic.answers.append(template)
            elif mark == "+":
                topic.more.append(template)
            else:
                raise ValueError(f"{name}: a line begins with {mark!r}; expected *, ?, ??, ! or +")
        topics.append(topic)
    return topics


def some_topic(topics: Sequence[Topic], rng: random.Random) -> Topic:
    """Return one of the topics, by their weights."""
    return rng.choices(topics, [topic.weight for topic in topics])[0]


def read_lists(name: str) -> dict[str, list[str]]:
    """Return the lists of a file: paragraphs of a line ``= title`` and lines ``- entry``."""
    lists = {}
    for (mark, title), *entries in _paragraphs(name):
        if mark != "=" or any(other != "-" for other, _ in entries):
            raise ValueError(f"{name}: expected a line with = and lines with - in every paragraph")
        lists[title] = [entry for _, entry in entries]
    return lists


def _paragraphs(name: str) -> list[list[tuple[str, str]]]:
    """Return each paragraph as (mark, text) lines, with indented lines joined to the one before; # is a comment."""
    paragraphs: list[list[tuple[str, str]]] = [[]]
    for line in (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines():
        if not line.strip():
            paragraphs.append([])
        elif line.startswith("   "):
            mark, text = paragraphs[-1][-1]
            paragraphs[-1][-1] = (mark, f"{text} {line.strip()}")
        elif not line.startswith("#"):
            mark, _, text = line.partition(" ")
            paragraphs[-1].append((mark, text))
    return [paragraph for paragraph in paragraphs if paragraph]
