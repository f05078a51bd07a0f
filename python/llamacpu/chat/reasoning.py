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
    ("<|channel>thought", "<channel|>"),
)
"""The opening and closing tags of reasoning; the first pair is the usual one."""

ANYWHERE = dict(REASONING_TAGS[-1:])
"""The closing tag by the opening one for reasoning that may begin anywhere in an answer (Gemma 4).

It always has an opening tag; a closing tag alone means nothing.
"""

REASONING_MARKS = ("<|channel>",)
"""Control tokens that begin a tag of reasoning."""


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
    return not streamed or any(closing in template for closing in closings if closing not in ANYWHERE.values())


def begins_message(prompt: str) -> bool:
    """Whether a prompt asks for an answer made of messages, that is, ends right after the assistant's role.

    gpt-oss names a channel in the header of each message, Muse Glimmer a recipient.
    """
    return prompt.rstrip().endswith("<|start|>assistant")


def names_recipients(template: str) -> bool:
    """Whether the headers of a template for answers made of messages name recipients rather than channels."""
    return "<|channel|>" not in template and ("<|eom|>" in template or "<atem:" in template)


__all__ = [
    "ANYWHERE",
    "REASONING_MARKS",
    "REASONING_TAGS",
    "begins_message",
    "may_begin_inside",
    "names_recipients",
    "open_reasoning",
]
