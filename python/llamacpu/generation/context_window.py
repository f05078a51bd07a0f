"""Handling of tokens that do not fit into the context: an error, or tokens are dropped by a fixed rule."""

from collections.abc import Sequence
from typing import Literal

from llamacpu.engine.pictures import MixedTokens
from llamacpu.errors import ContextOverflow
from llamacpu.multimodal.sequences import without_parts

Overflow = Literal["error", "truncate", "shift"]


def fit_prompt(
    ids: Sequence[int], context: int, overflow: Overflow, keep: int, max_tokens: int | None
) -> Sequence[int]:
    """The prompt, shortened if necessary to fit into the context.

    A prompt that fits is returned whole. A longer one raises ContextOverflow if overflow is "error"; otherwise its
    first `keep` tokens and its last tokens remain, leaving room for `max_tokens` more, but at most half of the context.
    Pictures remain as a whole or not at all.
    """
    if len(ids) <= context:
        return ids
    if overflow == "error":
        raise ContextOverflow(
            f"the prompt has {len(ids)} tokens and the context holds {context}; shorten the prompt, use a larger "
            'context, or ask for overflow="truncate"'
        )
    room = min(context // 2, context // 4 if max_tokens is None else max_tokens)
    keep = min(keep, context - room - 1)
    last = context - room - keep
    if isinstance(ids, MixedTokens):
        return without_parts(ids, keep, len(ids) - last)
    return [*ids[:keep], *ids[len(ids) - last :]]


def room_by_shifting(tokens: Sequence[int], keep: int) -> Sequence[int]:
    """The tokens of a full context that remain: the first `keep` and the newer half of the rest."""
    keep = min(keep, max(len(tokens) - 2, 0))
    rest = tokens[keep:]
    return [*tokens[:keep], *rest[(len(rest) + 1) // 2 :]]


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest common prefix of two token sequences."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return min(len(first), len(second))
