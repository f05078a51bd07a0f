"""Moderation with Llama Guard 1 to 4: is the last message of a conversation safe?

The prompt comes from the chat template in the model file. For custom categories, which the templates in these files do
not accept, it is written in the same form (Inan et al., arXiv:2312.06674, and the model cards of Llama Guard 2 and 3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamacpu.chat import Chat
from llamacpu.chat.shown import prompt_ids
from llamacpu.errors import ModelError
from llamacpu.generation import generate
from llamacpu.sampling import Sampling

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.pictures import PictureAccess
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["LLAMA_GUARD_3", "Moderation", "moderate", "read_verdict"]

LLAMA_GUARD_3: Mapping[str, str] = {
    "S1": "Violent Crimes", "S2": "Non-Violent Crimes", "S3": "Sex-Related Crimes", "S4": "Child Sexual Exploitation",
    "S5": "Defamation", "S6": "Specialized Advice", "S7": "Privacy", "S8": "Intellectual Property",
    "S9": "Indiscriminate Weapons", "S10": "Hate", "S11": "Suicide & Self-Harm", "S12": "Sexual Content",
    "S13": "Elections", "S14": "Code Interpreter Abuse",
}  # fmt: skip
"""The categories of Llama Guard 3 by key (S14 in the 8B model only)."""

# Maximum number of tokens in a verdict: at most "unsafe" and a line of categories.
_LONGEST_VERDICT = 30


@dataclass(frozen=True)
class Moderation:
    """A verdict.

    unsafe        whether `probability` reaches the threshold
    probability   probability of the word "unsafe" at the position of the verdict, over the whole vocabulary
    categories    the keys of the categories as the model names them; empty for a verdict of "safe"
    text          what the model wrote
    """

    unsafe: bool
    probability: float
    categories: tuple[str, ...]
    text: str


def moderate(
    session: SessionLike,
    messages: Sequence[Mapping[str, Any]],
    *,
    categories: Mapping[str, str] | None = None,
    threshold: float = 0.5,
    chat: Chat | None = None,
    access: PictureAccess | None = None,
) -> Moderation:
    """Judge the last message of a conversation, the user's or the assistant's, with a Llama Guard model.

    categories   key to description, replacing the model's own categories
    threshold    the message counts as unsafe if the probability of "unsafe" is at least this
    access       what texts in messages may name as a picture, besides data URLs

    Messages may have pictures if the model sees (Llama Guard 4, Llama Guard 3 11B Vision), in the forms of
    `Model.chat`. Raises ModelError if the model gives no verdict or its logits are not finite, ValueError for an empty
    conversation, PictureError for pictures that cannot be read or shown to the model.
    """
    if not messages:
        raise ValueError("there is no message to judge; expected a conversation of at least one message")
    model = session.model
    tokenizer = model.tokenizer
    chat = chat or Chat.of(model)
    if categories is None and "UNSAFE CONTENT CATEGORIES" not in chat.template.source:
        categories = LLAMA_GUARD_3
    if categories is None:
        ids = prompt_ids(chat, messages, access=access)
    else:
        newest = tokenizer.token_to_id("<|header_start|>") is not None
        oldest = not newest and tokenizer.token_to_id("<|start_header_id|>") is None
        guard = Chat(model.metadata, tokenizer, "llama-guard")
        guard.vision = chat.vision
        forms: dict[str, Any] = {"categories": dict(categories), "llama_2": oldest, "llama_4": newest}
        ids = prompt_ids(guard, messages, access=access, **forms)
    unsafe, chances = _first_tokens(tokenizer, "unsafe"), []

    def watch(history: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        chances.append(_probability(logits, unsafe))
        return logits

    generation = generate(
        session,
        ids,
        max_tokens=_LONGEST_VERDICT,
        sampling=Sampling(temperature=0),
        logits_processors=[watch],
    )
    result = generation.read()
    blank = 0
    while blank < len(result.tokens) and not tokenizer.decode_bytes([result.tokens[blank]]).strip():
        blank += 1
    verdict = read_verdict(result.text)
    if verdict is None or blank >= len(chances):
        raise ModelError(
            f"the model wrote {result.text[:40]!r}; a Llama Guard model writes 'safe' or 'unsafe': is this one?"
        )
    probability = chances[blank]
    return Moderation(probability >= threshold, probability, verdict, result.text)


def read_verdict(text: str) -> tuple[str, ...] | None:
    """The categories in a verdict; () for "safe", None for a text that is not a verdict."""
    first, _, rest = text.strip().partition("\n")
    word = first.strip().lower()
    if word == "safe":
        return ()
    if word != "unsafe":
        return None
    line = rest.strip().partition("\n")[0]
    return tuple(part.strip() for part in line.split(",") if part.strip())


def _first_tokens(tokenizer: Tokenizer, word: str) -> set[int]:
    """The tokens that `word` may begin with, with or without a space before it."""
    forms = [tokenizer.encode(word, add_special=False, space_prefix=space) for space in (True, False)]
    forms.append(tokenizer.encode(" " + word, add_special=False, space_prefix=False))
    return {ids[0] for ids in forms if ids and tokenizer.decode_bytes(ids[:1]).strip()}


def _probability(logits: npt.NDArray[np.float32], tokens: set[int]) -> float:
    """The total probability of `tokens`. Raises ModelError for logits that are not finite and so give no verdict."""
    largest = float(logits.max())
    if not math.isfinite(largest) or all(float(logits[token]) == -math.inf for token in tokens):
        raise ModelError(
            f"the model's logits are no verdict (the largest is {largest}, that of 'unsafe' "
            f"{max((float(logits[token]) for token in tokens), default=-math.inf)}); expected finite numbers: "
            "the file is damaged or not a Llama Guard model, get it again"
        )
    total = float(sum(math.exp(float(value) - largest) for value in logits if value > largest - 40))
    return sum(math.exp(float(logits[token]) - largest) for token in tokens) / total
