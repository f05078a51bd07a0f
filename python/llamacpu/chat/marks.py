"""The marks of tool calls in an answer: tags around calls, marks inside them, and wrappers around the tags."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

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
    "<|tool_call>": "<tool_call|>",
    "<｜DSML｜function_calls>": "</｜DSML｜function_calls>",
    "<｜DSML｜tool_calls>": "</｜DSML｜tool_calls>",
    "<minimax:tool_call>": "</minimax:tool_call>",
}
"""The opening and closing tags of a span with tool calls; None if it ends with the calls or the answer."""
# Marks inside such spans, and marks around them that carry no information.
INNER_MARKS = (
    "[ARGS]",
    "[CALL_ID]",
    "<｜tool▁sep｜>",
    "<|tool_call_argument_begin|>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    '<|"|>',
    "｜DSML｜",
)
WRAPPERS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<|python_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
)
# Tags that are part of the call they open, and are parsed with it.
WITH_TAG = ("<function=", "<function name=")
# Tags of calls that also end reasoning without a closing tag.
ENDS_THOUGHT = ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>")


def call_tags() -> set[str]:
    """All marks around and inside tool calls."""
    return {*CALL_TAGS, *(close for close in CALL_TAGS.values() if close), *WRAPPERS, *INNER_MARKS}


def unfinished(text: str, tags: Iterable[str]) -> int:
    """The length of the longest suffix of `text` that is a proper prefix of a tag."""
    letters, prefixes, longest = _prefixes(tuple(tags))
    for place in range(max(0, len(text) - longest), len(text)):
        if text[place] in letters and text[place:] in prefixes:
            return len(text) - place
    return 0


@lru_cache(maxsize=64)
def _prefixes(tags: tuple[str, ...]) -> tuple[frozenset[str], frozenset[str], int]:
    """The first letters of tags, all their proper prefixes, and the length of the longest of these."""
    prefixes = frozenset(tag[:length] for tag in tags for length in range(1, len(tag)))
    return frozenset(tag[0] for tag in tags), prefixes, max(map(len, prefixes), default=0)
