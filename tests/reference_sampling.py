"""The sampler steps as their definitions say them: plain Python, one number at a time, no arrays.

A distribution is a list of (token, logit). The tests compare the real steps with these.
"""

import math

Pairs = list[tuple[int, float]]


def softmax(pairs: Pairs) -> list[float]:
    largest = max(logit for _, logit in pairs)
    weights = [math.exp(logit - largest) for _, logit in pairs]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def descending(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


def entropy(chances: list[float]) -> float:
    return -math.fsum(chance * math.log(chance) for chance in chances if chance > 0)


def top_k(pairs: Pairs, count: int) -> Pairs:
    return pairs if count <= 0 else descending(pairs)[:count]


def top_p(pairs: Pairs, mass: float, min_keep: int) -> Pairs:
    if mass >= 1:
        return pairs
    pairs = descending(pairs)
    reached, kept = 0.0, 0
    for chance in softmax(pairs):
        reached += chance
        kept += 1
        if reached >= mass and kept >= min_keep:
            break
    return pairs[:kept]


def min_p(pairs: Pairs, fraction: float, min_keep: int) -> Pairs:
    if fraction <= 0:
        return pairs
    floor = max(logit for _, logit in pairs) + math.log(fraction)
    passing = [pair for pair in pairs if pair[1] >= floor]
    return passing if len(passing) >= min_keep else descending(pairs)[:min_keep]


def typical(pairs: Pairs, mass: float, min_keep: int) -> Pairs:
    if mass >= 1:
        return pairs
    chances = softmax(pairs)
    expected = entropy(chances)
    order = sorted(range(len(pairs)), key=lambda i: abs(-math.log(chances[i]) - expected))
    reached, kept = 0.0, 0
    for index in order:
        reached += chances[index]
        kept += 1
        if reached > mass and kept >= min_keep:
            break
    return [pairs[index] for index in order[:kept]]


def top_n_sigma(pairs: Pairs, sigmas: float) -> Pairs:
    if sigmas < 0 or len(pairs) <= 1:
        return pairs
    logits = [logit for _, logit in pairs if math.isfinite(logit)]
    mean = math.fsum(logits) / len(logits)
    deviation = math.sqrt(math.fsum((logit - mean) ** 2 for logit in logits) / len(logits))
    return [pair for pair in pairs if pair[1] >= max(logits) - sigmas * deviation]


def xtc(pairs: Pairs, threshold: float, min_keep: int) -> Pairs:
    ordered = descending(pairs)
    above = sum(chance >= threshold for chance in softmax(ordered))
    if above < 2 or len(pairs) - (above - 1) < min_keep:
        return pairs
    return ordered[above - 1 :]


def temperature(pairs: Pairs, value: float, spread: float = 0.0, exponent: float = 1.0) -> Pairs:
    if spread > 0:
        if len(pairs) <= 1:
            return pairs
        low, high = max(0.0, value - spread), value + spread
        value = low + (high - low) * (entropy(softmax(pairs)) / math.log(len(pairs))) ** exponent
    return descending(pairs)[:1] if value <= 0 else [(token, logit / value) for token, logit in pairs]


def penalties(pairs: Pairs, seen: list[int], repeat: float, frequency: float, presence: float) -> Pairs:
    result = []
    for token, logit in pairs:
        count = seen.count(token)
        if count:
            logit = logit * repeat if logit <= 0 else logit / repeat
            logit -= count * frequency + presence
        result.append((token, logit))
    return result


def tokens_after_last_breaker(texts: list[str], breakers: list[str]) -> int:
    """How many texts at the end begin after the end of the last breaker in the joined text."""
    joined = "".join(texts)
    ends = [joined.rfind(breaker) + len(breaker) for breaker in breakers if breaker in joined]
    if not ends:
        return len(texts)
    starts = [len("".join(texts[:index])) for index in range(len(texts))]
    return sum(start >= max(ends) for start in starts)


def dry(
    pairs: Pairs, seen: list[int], multiplier: float, base: float, allowed: int, limit: int, spared: set[int]
) -> Pairs:
    """limit: the longest run that counts; spared: tokens that are never penalized."""
    if multiplier <= 0 or base < 1 or len(seen) <= allowed or limit < allowed:
        return pairs
    longest: dict[int, int] = {}
    for place in range(1, len(seen)):
        length = 0
        while length < min(limit, place) and seen[place - 1 - length] == seen[-1 - length]:
            length += 1
        if length >= allowed:
            longest[seen[place]] = max(length, longest.get(seen[place], 0))
    return [
        (token, logit - multiplier * base ** (longest[token] - allowed) if token in longest.keys() - spared else logit)
        for token, logit in pairs
    ]
