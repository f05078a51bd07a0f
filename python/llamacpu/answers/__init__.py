"""From a question to an answer: messages or text -> prompt -> generation -> message, tool calls, reasoning, reason.

question            what is asked -> `Question`: a prompt, and how it is to be answered, whoever computes it
tools               what is asked of tools and of the form of the answer -> grammars
reading             tokens and pieces of text -> `Piece`, `ToolCall`, and at the end `Answer`, whoever computed them
running             `answer`: a question, a session and one thread that computes; sync, streaming and async
chat_completions, text_completions, log_probabilities     the shapes of the OpenAI API, which nothing else knows
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
