"""Conversations: messages to prompts, answers to messages.

template       `ChatTemplate`: a Jinja template becomes text, in a sandbox
ollama_template, ollama_values   `OllamaTemplate`: the same for the templates of Ollama's models
go_template    Go's text/template, in which those are written
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
from llamacpu.chat.ollama_template import OllamaTemplate, check_template, is_go_template
from llamacpu.chat.segments import Segment
from llamacpu.chat.template import ChatTemplate

__all__ = [
    "Chat",
    "ChatTemplate",
    "Limits",
    "OllamaTemplate",
    "Segment",
    "check_template",
    "is_base_model",
    "is_go_template",
    "templates_in",
]
