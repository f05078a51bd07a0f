#!/usr/bin/env python3
"""Makes data to try training with: `python examples/training_data.py facts.jsonl`.

The facts are about made-up places, so no model knows them. Every fact is asked for in several ways; with --held FILE,
one of them is kept out of the data, to see whether a model learned the facts or only the questions. Needs nothing.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

FACTS = {
    "capital": ("What is the capital of {}?", "Name the capital of {}.", "Which city governs {}?"),
    "river": ("Which river runs through {}?", "Name the river of {}.", "What is the river in {} called?"),
    "dish": ("What do people eat in {}?", "Name the national dish of {}.", "What is cooked in {}?"),
}
STARTS = ["Kar", "Bel", "Tor", "Vin", "Mar", "Ost", "Lan", "Fel", "Dro", "Sil", "Gan", "Hul", "Pra", "Zem", "Nor"]
MIDDLES = ["ve", "lo", "ri", "da", "mu", "ne", "sa", "ko"]
ENDS = {
    "country": ["lia", "nia", "stan", "mark"],
    "capital": ["burg", "ton", "grad"],
    "river": ["a", "ava"],
    "dish": ["ka", "osh"],
}


def word(draw: random.Random, kind: str) -> str:
    """A made-up word."""
    return draw.choice(STARTS) + draw.choice(MIDDLES) + draw.choice(ENDS[kind])


def facts(count: int, seed: int) -> dict[tuple[str, str], str]:
    """(country, what is asked) to answer, for as many facts as asked for."""
    draw = random.Random(seed)
    found: dict[tuple[str, str], str] = {}
    while len(found) < count:
        country = word(draw, "country")
        if any(country == known for known, _ in found):
            continue
        for kind in FACTS:
            if len(found) < count:
                found[country, kind] = word(draw, kind)
    return found


def record(question: str, answer: str) -> str:
    """A line of the data."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}) + "\n"


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description="Make data to try training with.")
    parser.add_argument("output", type=Path, help="the data, JSON lines")
    parser.add_argument("--facts", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held", type=Path, help="a file for one question about each fact, which the data then lack")
    options = parser.parse_args()
    lines, held = [], []
    for (country, kind), answer in facts(options.facts, options.seed).items():
        questions = [form.format(country) for form in FACTS[kind]]
        if options.held is not None:
            held.append(record(questions.pop(), answer))
        lines += [record(question, answer) for question in questions]
    options.output.write_text("".join(lines), encoding="utf-8")
    if options.held is not None:
        options.held.write_text("".join(held), encoding="utf-8")


if __name__ == "__main__":
    main()
