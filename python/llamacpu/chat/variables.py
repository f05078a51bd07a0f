"""What individual templates need besides the messages: variables under the names they read, and a missing ending."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.chat.segments import Segment

if TYPE_CHECKING:
    from llamacpu.chat.ollama_template import OllamaTemplate
    from llamacpu.chat.template import ChatTemplate

__all__ = ["completed", "with_other_names"]

_STRENGTHS = {"none": "low", "minimal": "low", "xhigh": "high", "max": "high"}
_TURN_ENDS, _TURN_BEGINS = "<turn|>\n", "<|turn>model\n"
_NO_THOUGHT = "<|channel>thought\n<channel|>"


def with_other_names(variables: Mapping[str, Any], template: ChatTemplate | OllamaTemplate) -> dict[str, Any]:
    """The variables, with those that say how to reason also under the names that the template reads.

    `reasoning_effort` is `reasoning_strength` for Muse Glimmer, whose lowest strength is "low"; `enable_thinking` is
    `thinking` for DeepSeek and Granite. A value that is given under the template's own name is kept.
    """
    found, source = dict(variables), template.reads
    effort, strength = found.get("reasoning_effort"), found.get("reasoning_strength")
    if strength is None and "reasoning_strength" in source:
        if effort is None and found.get("enable_thinking") is False:
            effort = "none"
        if isinstance(effort, str):
            found["reasoning_strength"] = _STRENGTHS.get(effort, effort)
    elif effort is None and strength is not None and "reasoning_effort" in source:
        found["reasoning_effort"] = strength
    enabled = found.get("enable_thinking")
    other = enabled is not None and "thinking" not in found and "enable_thinking" not in source
    if other and re.search(r"\bthinking\b", source) and "thinking" in getattr(template, "variables", ()):
        found["thinking"] = enabled
    return found


def completed(segments: Sequence[Segment]) -> list[Segment]:
    """A prompt with the beginning of the model's turn, which Gemma 4's template leaves out after a call with text."""
    found = list(segments)
    if not found or not found[-1].special:
        return found
    text = found[-1].text
    thought = _NO_THOUGHT if text.endswith(_TURN_ENDS + _NO_THOUGHT) else ""
    text = text.removesuffix(thought)
    if text.endswith(_TURN_ENDS):
        found[-1] = Segment(text + _TURN_BEGINS + thought, True)
    return found
