"""`ChatTemplate`: renders a conversation as the text that a model was trained to continue."""

from __future__ import annotations

import functools
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.chat.data import PlainData
from llamacpu.chat.limits import Budget, Limits
from llamacpu.chat.segments import Segment, cut
from llamacpu.chat.traced import Traced
from llamacpu.errors import TemplateError
from llamacpu.locks import cached_property

if TYPE_CHECKING:
    from llamacpu.chat.environment import ChatEnvironment


@functools.cache
def _environment() -> ChatEnvironment:
    from llamacpu.chat.environment import ChatEnvironment

    return ChatEnvironment()


class ChatTemplate:
    """A Jinja chat template, as in ``tokenizer.chat_template`` of a GGUF file.

    It renders like ``apply_chat_template`` of Hugging Face transformers, in a sandbox: no attribute of a Python object
    is reachable, and time, steps, output and memory are bounded by `limits`. Every error, from a syntax error to the
    template's own ``raise_exception``, is a `TemplateError`.

    `bos_token` and `eos_token` are the texts of these tokens, "" for a model without them.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        name: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.name = name
        self.limits: Limits = limits or Limits()
        if len(source) > self.limits.source:
            raise TemplateError(
                f"the chat template has {len(source)} characters, at most {self.limits.source} are allowed"
            )

    def __repr__(self) -> str:
        return f"ChatTemplate({self.name or self.source[:40]!r})"

    @cached_property
    def _code(self) -> types.CodeType:
        from llamacpu.chat.environment import compile_template

        with _template_errors():
            return compile_template(_environment(), self.source)

    @property
    def reads(self) -> str:
        """The `source` argument of `forms`: the source of the template."""
        return self.source

    def check(self) -> None:
        """Raise TemplateError if the source is not a valid template; nothing is rendered."""
        _ = self._code

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template reads but does not define: messages, tools, enable_thinking and so on."""
        from jinja2 import meta

        with _template_errors():
            return frozenset(meta.find_undeclared_variables(_environment().parse(self.source)))

    def render(
        self,
        messages: Iterable[Any],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt as one string.

        `messages` are dicts with "role" and "content" (and "tool_calls", "tool_call_id", "name"); `tools` are OpenAI
        tool definitions; `add_generation_prompt` ends the text where the assistant's answer begins. `variables` are
        passed to the template. To tokenize the prompt, use `segments`, which keeps control tokens out of the messages.
        """
        return "".join((self._run(False, messages, tools, add_generation_prompt, variables),))

    def segments(
        self,
        messages: Iterable[Any],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
        *,
        control_tokens: Collection[str],
        **variables: Any,
    ) -> list[Segment]:
        """The same prompt as segments for the tokenizer, in order.

        A segment's `special` says whether control tokens are parsed in it. A control token spelled out in a message, a
        tool or a variable ends up in a segment where it is plain text, whatever the template did to it, so a message
        cannot end its own turn and begin another. `control_tokens` are the texts of the vocabulary's control tokens.
        """
        text = self._run(True, messages, tools, add_generation_prompt, variables)
        return cut(text, control_tokens)

    def _run(
        self,
        trace: bool,
        messages: Iterable[Any],
        tools: Sequence[Any] | None,
        prompt: bool,
        variables: Mapping[str, Any],
    ) -> str:
        data = PlainData(trace)
        with _template_errors():
            context = {
                "bos_token": self.bos_token,
                "eos_token": self.eos_token,
                "documents": None,
                **{name: data.plain(value) for name, value in variables.items()},
                "messages": data.messages(messages),
                "tools": data.plain(list(tools)) if tools is not None else None,
                "add_generation_prompt": prompt,
            }
            return _environment().render(self._code, Budget(self.limits, data.size, trace), context)


class _template_errors:  # noqa: N801 (used as a statement)
    """Turns every exception that a template can raise into a TemplateError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, TemplateError) or not isinstance(error, Exception):
            return
        from jinja2.exceptions import TemplateError as JinjaError
        from jinja2.exceptions import TemplateSyntaxError

        if isinstance(error, TemplateSyntaxError):
            raise TemplateError(f"the chat template is not valid, line {error.lineno}: {error.message}") from error
        if isinstance(error, JinjaError):
            raise TemplateError(error.message or type(error).__name__) from error
        if isinstance(error, RecursionError):
            raise TemplateError("the chat template is nested too deeply") from None
        raise TemplateError(f"the chat template failed: {type(error).__name__}: {error}") from error


__all__ = ["ChatTemplate", "Traced"]
