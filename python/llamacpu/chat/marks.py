"""The marks of tool calls in an answer: tags around calls, marks in them, and what is around both."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

from collections.abc import Iterable

CALL_TAGS: dict[str, str | None] = {
    "<tool_call>": "</tool_call>",
    "<|python_start|>": "<|python_end|>",
    "<|python_tag|>": None,
    "[TOOL_CALLS]": None,
    "<function=": "</function>",
    "<function name=": "</function>",
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",
    "<|tool_call|>": "<|/tool_call|>",
    "<|START_ACTION|>": "<|END_ACTION|>",
    "Action: ```json": "```",
    "<seed:tool_call>": "</seed:tool_call>",
    "<function_calls>": "</function_calls>",
    "<|tool_call_begin|>": "<|tool_call_end|>",
}
"""Where a stretch with tool calls begins and ends; None: with the calls, or the answer."""
# Marks inside such stretches, and marks around them that say nothing.
INNER_MARKS = ("[ARGS]", "[CALL_ID]", "<｜tool▁sep｜>", "<|tool_call_argument_begin|>")
WRAPPERS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<|python_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
)
# The tags that belong to what they open: a call is read with them.
WITH_TAG = ("<function=", "<function name=")


def call_tags() -> set[str]:
    """Every mark around and in tool calls."""
    return {*CALL_TAGS, *(close for close in CALL_TAGS.values() if close), *WRAPPERS, *INNER_MARKS}


def unfinished(text: str, tags: Iterable[str]) -> int:
    """Length of the longest end of `text` that begins a tag."""
    longest = 0
    for tag in tags:
        if tag[0] not in text[-len(tag) :]:
            continue
        for length in range(min(len(tag) - 1, len(text)), longest, -1):
            if text.endswith(tag[:length]):
                longest = length
                break
    return longest
