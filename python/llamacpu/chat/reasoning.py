"""Where an answer reasons: the tags that models write around it, and what a prompt has done about it."""

from __future__ import annotations

REASONING_TAGS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
)
"""What opens and closes a stretch of reasoning; the first pair is the usual one."""


def open_reasoning(prompt: str) -> str | None:
    """The tag that closes the reasoning which the prompt ends in; None where it ends in none."""
    end = prompt.rstrip()
    return next((closing for opening, closing in REASONING_TAGS if end.endswith(opening)), None)


def may_begin_inside(prompt: str, template: str, streamed: bool) -> bool:
    """Whether to wait for a tag that closes reasoning which neither the prompt nor the answer has opened.

    A whole answer can wait. A stream waits for models whose template speaks of such a tag. No answer waits after a
    prompt that has closed the reasoning itself.
    """
    closings = tuple(closing for _, closing in REASONING_TAGS)
    if prompt.rstrip().endswith(closings):
        return False
    return not streamed or any(closing in template for closing in closings)


def begins_harmony(prompt: str) -> bool:
    """Whether a prompt asks for an answer in channels (gpt-oss): it ends where the role of a message does."""
    return prompt.rstrip().endswith("<|start|>assistant")


__all__ = ["REASONING_TAGS", "begins_harmony", "may_begin_inside", "open_reasoning"]
