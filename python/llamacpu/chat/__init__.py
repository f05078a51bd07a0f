"""Conversations: messages to prompts, answers to messages.

`ChatTemplate` renders a template in a sandbox; `segments` are what the tokenizer is given.
"""

from llamacpu.chat.limits import Limits
from llamacpu.chat.segments import Segment
from llamacpu.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "Limits", "Segment"]
