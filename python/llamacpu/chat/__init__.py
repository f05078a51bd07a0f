"""Conversations: turns messages into prompts, and answers into messages.

template       `ChatTemplate`: renders a Jinja template in a sandbox
ollama_template, ollama_values   `OllamaTemplate`: the same for the templates of Ollama's models
go_template    Go's text/template, the language those templates are written in
conversation   `Chat`: the templates of a model, and the conversion of messages to token ids
history        normalizes conversations as clients write them
forms          adapts conversations to what templates expect
builtin        built-in templates by name, for files without one
segments       prompts as pieces for the tokenizer: where control tokens are parsed, and where they are plain text
answer         splits streamed answers into reasoning, content and tool calls
events         the events produced by that split
reasoning      the tags around reasoning, and whether a prompt has opened or closed one
stretches      finds the spans of an answer that may be tool calls
messages       the common part of harmony (gpt-oss) and recipients (Muse Glimmer), which read answers made of messages
tool_calls     parsers for the notations of tool calls; pythonic and brackets support them
variables      what individual templates need besides the messages
environment, filters, operations, limits   the sandbox and its limits
clock          the time that templates read, which can be fixed
traced, data   track which text came from the caller
"""

from llamacpu.chat.clock import fixed_time
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
    "fixed_time",
    "is_base_model",
    "is_go_template",
    "templates_in",
]
