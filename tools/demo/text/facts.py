"""Simple facts, counting and small sums."""

from __future__ import annotations

import random

from .grammar import expand
from .topics import Exchange, read_topics, some_topic
from .words import LISTS, article, invented_noun, table

CAPITALS, SOUNDS, LEGS, COLORS = table("capitals"), table("sounds"), table("legs"), table("colors")
MIXTURES, OPPOSITES = table("mixtures"), table("opposites")
OPPOSITES |= {second: first for first, second in OPPOSITES.items()}
NUMBERS = LISTS["numbers"]
FACTS = read_topics("facts.txt")


def capital(rng: random.Random) -> Exchange:
    """Return a question for a capital, or about one."""
    if rng.random() < 0.25:
        country = rng.choice(LISTS["countries without a known capital"])
        country = country if rng.random() < 0.8 else invented_noun(rng).capitalize()
        answer = "I do not know that capital. I am a tiny model and know only a few countries."
    else:
        country, city = rng.choice(list(CAPITALS.items()))
        answer = f"The capital of {country} is {city}."
        if rng.random() < 0.12:
            ask = f"(where is|what is|tell me about|what do you know about|which country has the capital) {city}"
            return Exchange(expand(ask, rng), f"{city} is the capital of {country}.")
    ask = (
        f"((what is|tell me|do you know|name|can you tell me|) the capital [city ]of {country}|capital of {country}"
        f"|which city is the capital of {country}|what is {country}'s capital|{country} capital)"
    )
    return Exchange(expand(ask, rng), answer)


def table_fact(rng: random.Random) -> Exchange:
    """Return a fact from one of the other tables."""
    kind = rng.choice(["sound", "legs", "color", "opposite", "mixture", "order"])
    if kind == "sound":
        animal, sound = rng.choice(list(SOUNDS.items()))
        ask = f"(what sound does a {animal} make|what does (a|the) {animal} say|how does a {animal} (sound|go))"
        return Exchange(expand(ask, rng), f"The {animal} says: {sound.capitalize()}!")
    if kind == "legs":
        animal, legs = rng.choice(list(LEGS.items()))
        ask = f"(how many legs (does {article(animal)} have|has {article(animal)})|does {article(animal)} have legs)"
        return Exchange(expand(ask, rng), f"{article(animal).capitalize()} has {legs} legs.")
    if kind == "color":
        thing, color = rng.choice(list(COLORS.items()))
        ask = f"((what|which) (color|colour) (is {thing}|does {thing} have)|what is the (color|colour) of {thing})"
        return Exchange(expand(ask, rng), f"{thing[0].upper()}{thing[1:]} is {color}.")
    if kind == "opposite":
        word = rng.choice(list(OPPOSITES))
        ask = f"((what is|tell me|) the opposite of {word}|opposite of {word}|which word is the opposite of {word})"
        return Exchange(expand(ask, rng), f"The opposite of {word} is {OPPOSITES[word]}.")
    if kind == "mixture":
        pair, mixed = rng.choice(list(MIXTURES.items()))
        pair = pair if rng.random() < 0.5 else " and ".join(reversed(pair.split(" and ")))
        ask = f"(what (color|colour) do you get (if|when) you mix {pair}|what happens if you mix {pair})"
        return Exchange(expand(ask, rng), f"If you mix {pair}, you get {mixed}.")
    name = rng.choice(["day", "month"])
    words = LISTS[f"{name}s"]
    at = rng.randrange(len(words))
    first, second = words[at - 1], words[at]
    if rng.random() < 0.6:
        return Exchange(expand(f"(what|which {name}) comes after {first}", rng), f"After {first} comes {second}.")
    return Exchange(expand(f"(what|which {name}) comes before {second}", rng), f"Before {second} comes {first}.")


def sum_exchange(rng: random.Random) -> Exchange:
    """Return a sum or difference of small numbers, or something harder that the model declines."""
    ask = "(what is|what is|how much is|calculate|compute|tell me|do you know|)"
    if rng.random() < 0.35:
        largest = rng.choice([20, 20, 999, 9999])
        first, second = rng.randint(6, largest), rng.randint(2, largest)
        sign = rng.choice(["+", "-", "*", "x", "/", "plus", "minus", "times", "divided by"])
        if sign in ("*", "x", "/", "times", "divided by") and rng.random() < 0.5:
            first, second = rng.randint(1, 10), rng.randint(1, 10)
        gap = "" if not sign[0].isalpha() and rng.random() < 0.4 else " "
        answer = "That is too hard for a tiny model. I only know small sums."
        return Exchange(expand(f"{ask} {first}{gap}{sign}{gap}{second}", rng), answer)
    first, second = rng.randint(1, 5), rng.randint(1, 5)
    if rng.random() < 0.75:
        sign, result, word = rng.choice(["+", "plus", "+", "and"]), first + second, "plus"
    else:
        first, second = max(first, second), min(first, second)
        sign, result, word = rng.choice(["-", "minus"]), first - second, "minus"
    spelled = len(sign) > 1 and rng.random() < 0.4
    left, right = (NUMBERS[first - 1], NUMBERS[second - 1]) if spelled else (str(first), str(second))
    gap = "" if sign in "+-" and rng.random() < 0.4 else " "
    end = " =" if not spelled and rng.random() < 0.15 else ""
    return Exchange(expand(f"{ask} {left}{gap}{sign}{gap}{right}{end}", rng), f"{first} {word} {second} is {result}.")


def counting(rng: random.Random) -> Exchange:
    """Return a request to count and the numbers."""
    if rng.random() < 0.1:
        question = expand("(count (backwards|down) from (10|ten)|count down|count backwards)", rng)
        return Exchange(question, "10, 9, 8, 7, 6, 5, 4, 3, 2, 1.")
    last = rng.choice([3, 4, 5, 5, 6, 7, 8, 9, 10, 10, 10, 10, 12, 15, 20, 20])
    spelled = rng.choice([str(last), NUMBERS[last - 1]])
    question = expand(
        "([please |can you |could you |](count|count up|count from (1|one)) to <n>[ please]"
        "|[list |tell me ](the |)numbers from (1|one) to <n>)",
        rng,
        {"n": spelled},
    )
    if last == 10 and rng.random() < 0.2:
        question = expand("(count|can you count|please count|count for me|can you count to ten)", rng)
    return Exchange(question, ", ".join(str(number) for number in range(1, last + 1)) + ".")


def fact_exchange(rng: random.Random) -> Exchange:
    """Return a fact, a sum or some counting."""
    kind = rng.choices(["topic", "capital", "table", "sum", "count"], [0.25, 0.25, 0.2, 0.22, 0.08])[0]
    if kind == "topic":
        return some_topic(FACTS, rng).exchange(rng)
    return {"capital": capital, "table": table_fact, "sum": sum_exchange, "count": counting}[kind](rng)
