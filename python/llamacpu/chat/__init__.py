"""Conversations: messages to prompts, answers to messages.

template       `ChatTemplate`: a Jinja template becomes text, in a sandbox
conversation   `Chat`: the templates of a model, and the way from messages to token ids
history        conversations as clients write them, in one form
forms          conversations as templates expect them
builtin        templates by name, for files without one
segments       prompts as pieces for the tokenizer: where control tokens are meant, and where they are only text
answer         answers as they stream in: reasoning, content and tool calls
events         what they are taken apart into
reasoning      the tags around reasoning, and what a prompt has done about it
stretches      where stretches of an answer begin and end that may be tool calls
tool_calls     the notations of tool calls; pythonic and brackets: what they are read with
environment, filters, operations, limits   the sandbox and what it bounds
traced, data   what came from the caller, and where it went
"""

from llamacpu.chat.conversation import Chat, is_base_model, templates_in
from llamacpu.chat.limits import Limits
from llamacpu.chat.segments import Segment
from llamacpu.chat.template import ChatTemplate

__all__ = ["Chat", "ChatTemplate", "Limits", "Segment", "is_base_model", "templates_in"]
