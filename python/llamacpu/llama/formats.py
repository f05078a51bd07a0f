"""Custom chat formats, under the names of llama-cpp-python's module `llama_chat_format`.

    @register_chat_format("shouting")
    def shouting(messages, **settings):
        return ChatFormatterResponse(prompt="".join(m["content"].upper() for m in messages), stop="\\n")

    Llama("model.gguf", chat_format="shouting")

A formatter turns messages into the text of a prompt; a handler answers the whole conversation. In a formatter's text,
names of control tokens are encoded as these tokens, wherever they came from: for untrusted messages, use a template,
which distinguishes the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llamacpu.chat import ChatTemplate

__all__ = [
    "ChatFormatter",
    "ChatFormatterResponse",
    "FormattedChat",
    "Jinja2ChatFormatter",
    "LlamaChatCompletionHandler",
    "LlamaChatCompletionHandlerNotFoundException",
    "LlamaChatCompletionHandlerRegistry",
    "chat_formatter_to_chat_completion_handler",
    "get_chat_completion_handler",
    "register_chat_completion_handler",
    "register_chat_format",
]

LlamaChatCompletionHandler = Callable[..., Any]
"""Called with `llama`, `messages` and the settings of `create_chat_completion`; returns what that returns."""


@dataclass
class ChatFormatterResponse:
    """The result of a formatter.

    prompt             the text of the prompt
    stop               texts that end the answer
    stopping_criteria  functions of tokens and logits that end it
    added_special      whether the text already contains the start token
    """

    prompt: str
    stop: str | Sequence[str] | None = None
    stopping_criteria: Any = None
    added_special: bool = False


ChatFormatter = Callable[..., ChatFormatterResponse]
"""Called with `messages`, `functions`, `function_call`, `tools`, `tool_choice` and the template's variables."""


class _Answers(Protocol):
    """The part of a `Llama` that is used here."""

    def create_chat_completion(self, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Any: ...


class OwnHandler:
    """Base class of handlers that support all settings of `Llama.create_chat_completion`.

    That includes the settings that llama-cpp-python does not have.
    """


class FormattedChat(OwnHandler):
    """A handler that makes its prompts with a formatter.

    template_instead  whether a `Llama` uses the built-in template of the same name instead
    """

    def __init__(self, formatter: ChatFormatter, *, template_instead: bool = False) -> None:
        self.formatter = formatter
        self.template_instead = template_instead

    def __call__(self, *, llama: _Answers, messages: Sequence[Mapping[str, Any]], **settings: Any) -> Any:
        """Answer the conversation; `settings` as in `Llama.create_chat_completion`."""
        return llama.create_chat_completion(messages, formatter=self.formatter, **settings)


class Jinja2ChatFormatter:
    """A formatter made from the source of a Jinja template, which runs in the sandbox of `llamacpu.ChatTemplate`."""

    def __init__(
        self,
        template: str,
        eos_token: str,
        bos_token: str,
        add_generation_prompt: bool = True,
        stop_token_ids: Sequence[int] | None = None,
    ) -> None:
        self.template = template
        self.eos_token = eos_token
        self.bos_token = bos_token
        self.add_generation_prompt = add_generation_prompt
        self.stop_token_ids: set[int] | None = None if stop_token_ids is None else set(stop_token_ids)
        self._compiled = ChatTemplate(template, bos_token=bos_token, eos_token=eos_token)

    def __call__(
        self, *, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None = None, **variables: Any
    ) -> ChatFormatterResponse:
        """Return the prompt for the messages."""
        prompt = self._compiled.render(
            messages, tools=tools, add_generation_prompt=self.add_generation_prompt, **variables
        )
        ends = self.stop_token_ids
        criteria = None if ends is None else [lambda tokens, logits: int(tokens[-1]) in ends]
        stop = [self.eos_token] if self.eos_token else []
        return ChatFormatterResponse(prompt, stop=stop, stopping_criteria=criteria, added_special=True)

    def to_chat_handler(self) -> LlamaChatCompletionHandler:
        """Return a handler for `Llama(chat_handler=...)`."""
        return FormattedChat(self)


class LlamaChatCompletionHandlerNotFoundException(Exception):  # noqa: N818 (llama-cpp-python's name)
    """Raised for a name without a registered handler."""


class LlamaChatCompletionHandlerRegistry:
    """The handlers of this process by name, which `chat_format` can name in addition to templates."""

    _chat_handlers: dict[str, LlamaChatCompletionHandler] = {}  # noqa: RUF012 (one table for all objects, as its users expect)

    def register_chat_completion_handler(
        self, name: str, chat_handler: LlamaChatCompletionHandler, overwrite: bool = False
    ) -> None:
        """Add a handler. Raises ValueError if the name is taken, unless `overwrite` is true."""
        if not overwrite and name in self._chat_handlers:
            raise ValueError(f"a chat format {name!r} is registered already; pass overwrite=True to replace it")
        self._chat_handlers[name] = chat_handler

    def unregister_chat_handler(self, name: str) -> None:
        """Remove a handler. Raises ValueError if there is none of this name."""
        if self._chat_handlers.pop(name, None) is None:
            raise ValueError(f"no chat format {name!r} is registered")

    def get_chat_completion_handler_by_name(self, name: str) -> LlamaChatCompletionHandler:
        """Return the handler of a name. Raises LlamaChatCompletionHandlerNotFoundException if there is none."""
        if name not in self._chat_handlers:
            names = ", ".join(sorted(self._chat_handlers)) or "none"
            raise LlamaChatCompletionHandlerNotFoundException(
                f"no chat format {name!r} is registered; registered are: {names}"
            )
        return self._chat_handlers[name]


def get_chat_completion_handler(name: str) -> LlamaChatCompletionHandler:
    """Return the registered handler of a name.

    Raises LlamaChatCompletionHandlerNotFoundException if there is none.
    """
    return LlamaChatCompletionHandlerRegistry().get_chat_completion_handler_by_name(name)


def chat_formatter_to_chat_completion_handler(chat_formatter: ChatFormatter) -> LlamaChatCompletionHandler:
    """Return a handler that makes its prompts with the formatter."""
    return FormattedChat(chat_formatter)


def register_chat_completion_handler(name: str) -> Callable[[LlamaChatCompletionHandler], LlamaChatCompletionHandler]:
    """Decorator that registers a handler. Raises ValueError if the name is taken."""

    def register(handler: LlamaChatCompletionHandler) -> LlamaChatCompletionHandler:
        LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(name, handler)
        return handler

    return register


def register_chat_format(name: str) -> Callable[[ChatFormatter], ChatFormatter]:
    """Decorator that registers a formatter. Raises ValueError if the name is taken."""

    def register(formatter: ChatFormatter) -> ChatFormatter:
        LlamaChatCompletionHandlerRegistry().register_chat_completion_handler(name, FormattedChat(formatter))
        return formatter

    return register


def registered(name: str | None) -> LlamaChatCompletionHandler | None:
    """The handler of a name; None if there is none, or if a built-in template is used instead."""
    handler = None if name is None else LlamaChatCompletionHandlerRegistry._chat_handlers.get(name)
    return None if isinstance(handler, FormattedChat) and handler.template_instead else handler
