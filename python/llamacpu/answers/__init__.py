"""From a question to an answer: messages or text -> prompt -> generation -> message, tool calls, finish reason.

question            messages or text -> `Question`: a prompt and the settings for answering it; not tied to an engine
tools               tools and response formats of a request -> grammars
reading             tokens and pieces of text -> `Piece`, `ToolCall`, and at the end `Answer`; not tied to an engine
running             `answer`: runs a question in a session on one thread; synchronous, streaming and asynchronous
messages, checks    the types of messages and tools, and their validation
chat_completions, text_completions, log_probabilities     the response formats of the OpenAI API, defined only here
responses           a running answer as one response or as chunks
"""

from llamacpu.answers.checks import check_messages, check_response_format, check_tools
from llamacpu.answers.question import (
    ChatPrompt,
    Question,
    TextPrompt,
    begun_answer,
    chat_prompt,
    chat_question,
    raw_question,
    text_prompt,
)
from llamacpu.answers.reading import Answer, Reading
from llamacpu.answers.running import RunningAnswer, answer

__all__ = [
    "Answer",
    "ChatPrompt",
    "Question",
    "Reading",
    "RunningAnswer",
    "TextPrompt",
    "answer",
    "begun_answer",
    "chat_prompt",
    "chat_question",
    "check_messages",
    "check_response_format",
    "check_tools",
    "raw_question",
    "text_prompt",
]
