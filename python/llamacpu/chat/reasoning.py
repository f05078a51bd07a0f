"""The tags that models write around reasoning, and whether a prompt has already opened or closed it."""

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
"""The opening and closing tags of reasoning; the first pair is the usual one."""


def open_reasoning(prompt: str) -> str | None:
    """The tag that closes the reasoning opened at the end of the prompt; None if the prompt opens none."""
    end = prompt.rstrip()
    return next((closing for opening, closing in REASONING_TAGS if end.endswith(opening)), None)


def may_begin_inside(prompt: str, template: str, streamed: bool) -> bool:
    """Whether to wait for a tag that closes reasoning that neither the prompt nor the answer has opened.

    A complete answer can always wait. A stream waits only if the model's template contains such a tag. No answer waits
    after a prompt that has closed the reasoning itself.
    """
    closings = tuple(closing for _, closing in REASONING_TAGS)
    if prompt.rstrip().endswith(closings):
        return False
    return not streamed or any(closing in template for closing in closings)


def begins_harmony(prompt: str) -> bool:
    """Whether a prompt asks for an answer in channels (gpt-oss), that is, ends right after the assistant's role."""
    return prompt.rstrip().endswith("<|start|>assistant")


__all__ = ["REASONING_TAGS", "begins_harmony", "may_begin_inside", "open_reasoning"]
