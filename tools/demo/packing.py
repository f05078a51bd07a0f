"""Packs documents into rows of tokens, several documents per row, with the loss weight of each token."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

USER_WEIGHT = 0.1
# A longer answer has the same total weight as one of this length, so that stories do not outweigh the rest.
LONG_ANSWER = 40
# A rare word of the question that recurs at the beginning of the answer (a name, an animal, a country, a number) is
# what a small model learns last, and what makes an answer right.
ECHO_WEIGHT, ECHO_LENGTH = 3.0, 24


@dataclass(frozen=True)
class Rows:
    """Arrays (rows, length): tokens, document numbers (0 = padding), and the weight of predicting each token."""

    tokens: np.ndarray
    documents: np.ndarray
    weights: np.ndarray

    def part(self, start: int, end: int) -> Rows:
        """Return some of the rows."""
        return Rows(self.tokens[start:end], self.documents[start:end], self.weights[start:end])


def encode(document: dict, tokenizer: Tokenizer, common: frozenset[int]) -> tuple[list[int], list[float]]:
    """Return a document's tokens in the form of the chat template, and the weight of each token.

    `common`: tokens that get no extra weight when a question and its answer share them.
    """
    identifier = tokenizer.token_to_id
    begin, end, eot = (identifier(f"<|{name}|>") for name in ("begin_of_text", "end_of_text", "eot_id"))
    if "text" in document:
        body = tokenizer.encode(document["text"], add_special_tokens=False).ids
        return [begin, *body, end], [0.0] + [min(1.0, LONG_ANSWER / len(body))] * (len(body) + 1)
    tokens, weights = [begin], [0.0]
    asked: set[int] = set()
    for message in document["messages"]:
        head = [identifier("<|start_header_id|>"), *tokenizer.encode(message["role"], add_special_tokens=False).ids]
        head += [identifier("<|end_header_id|>"), *tokenizer.encode("\n\n", add_special_tokens=False).ids]
        body = [*tokenizer.encode(message["content"], add_special_tokens=False).ids, eot]
        weight = {"system": 0.0, "user": USER_WEIGHT, "assistant": min(1.0, LONG_ANSWER / len(body))}[message["role"]]
        part = [weight] * len(body)
        if message["role"] == "user":
            asked = {token for token in body[:-1] if token not in common}
        elif message["role"] == "assistant":
            for at, token in enumerate(body[:ECHO_LENGTH]):
                part[at] = ECHO_WEIGHT if token in asked else weight
        tokens += head + body
        weights += [0.0] * len(head) + part
    return tokens, weights


def common_tokens(documents: list[dict], tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that occur in the first `ECHO_LENGTH` tokens of more than one answer in fifty."""
    answers = [m["content"] for d in documents for m in d.get("messages", ()) if m["role"] == "assistant"]
    counts: Counter[int] = Counter()
    for answer in tokenizer.encode_batch(answers, add_special_tokens=False):
        counts.update(set(answer.ids[:ECHO_LENGTH]))
    return frozenset(token for token, count in counts.items() if count * 50 > len(answers))


def read(path: Path, tokenizer: Tokenizer, longest: int) -> Iterator[tuple[list[int], list[float]]]:
    """Yield the encoded documents of a file, none longer than `longest` tokens."""
    documents = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    common = common_tokens(documents[:5000], tokenizer)
    for document in documents:
        tokens, weights = encode(document, tokenizer, common)
        if len(tokens) <= longest:
            yield tokens, weights


def pack(documents: list[tuple[list[int], list[float]]], length: int, seed: int) -> Rows:
    """Return rows of `length` tokens filled with whole documents."""
    order = np.random.default_rng(seed).permutation(len(documents))
    rows: list[list[int]] = []
    room: list[int] = []
    unfilled: list[int] = []
    for index in order:
        need = len(documents[index][0])
        place = next((row for row in unfilled if room[row] >= need), None)
        if place is None:
            rows.append([])
            room.append(length)
            place = len(rows) - 1
            unfilled = [*unfilled, place][-24:]
        rows[place].append(index)
        room[place] -= need
    tokens = np.zeros((len(rows), length), np.int32)
    numbers = np.zeros((len(rows), length), np.int32)
    weights = np.zeros((len(rows), length), np.float32)
    for row, members in enumerate(rows):
        at = 0
        for number, index in enumerate(members, 1):
            ids, values = documents[index]
            span = slice(at, at + len(ids))
            tokens[row, span], numbers[row, span], weights[row, span] = ids, number, values
            at = span.stop
    return Rows(tokens, numbers, weights)
