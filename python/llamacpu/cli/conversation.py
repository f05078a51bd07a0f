"""A conversation with a model: messages so far, the session that has read them, and how an answer is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli.markdown import Markdown
from llamacpu.cli.terminal import PromptBar, prepare, summary, write
from llamacpu.errors import ContextOverflow, LlamaCpuError

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.chat import Chat
    from llamacpu.engine.session import Session
    from llamacpu.generation.result import GenerationResult


class Conversation:
    """Messages so far, and the session that has read them."""

    def __init__(
        self,
        session: Session,
        settings: dict[str, Any],
        how: dict[str, Any],
        system: str | None,
        chat: Chat | None,
        stats: bool,
        drawn: bool,
    ) -> None:
        """Begin one.

        settings: what `chat_question` is called with. how: what `answer` is called with.
        chat: how the model is talked to; None where it only continues the text so far.
        drawn: whether Markdown is.
        """
        self.session = session
        self.settings = settings
        self.how = how
        self.system = system
        self.stats = stats
        self.drawn = drawn
        self.messages: list[dict[str, str]] = []
        self.result: GenerationResult | None = None
        self._chat = chat

    def answer(self, text: str) -> None:
        """Answer a message; one that fails or that Ctrl-C stopped before its first word is forgotten."""
        self.messages.append({"role": "user", "content": text})
        try:
            said = self._within_context()
        except (LlamaCpuError, ValueError) as error:
            self.messages.pop()
            click.echo(f"Error: {error}", err=True)
            return
        if said:
            self.messages.append({"role": "assistant", "content": said})
        else:
            self.messages.pop()

    def _within_context(self) -> str:
        """Answer, without the oldest turns where the context does not hold all of them."""
        while True:
            try:
                return self._generate()
            except ContextOverflow:
                kept = next((i for i, m in enumerate(self.messages) if i and m["role"] == "user"), None)
                if kept is None:
                    raise
                del self.messages[:kept]
                click.echo("The context is full: the oldest turn is dropped.", err=True)

    def _question(self) -> Question:
        from llamacpu.answers import chat_prompt, chat_question, raw_question

        if self._chat is None:
            text = "".join(message["content"] for message in self.messages)
            return raw_question(self.session.model, text, **self.settings)
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        prompt = chat_prompt(self._chat, [*system, *self.messages])
        return chat_question(self._chat, prompt, reasoning=False, **self.settings)

    def _generate(self) -> str:
        from llamacpu.answers import answer

        question = self._question()
        bar = PromptBar()
        said = ""
        page = Markdown(write) if self.drawn else None
        show = write if page is None else page.push
        running = answer(self.session, question, on_prompt=bar, **self.how)
        try:
            if self.result is None:
                prepare(self.session.model)
            for piece in running.text():
                show(piece)
                said += piece
        except KeyboardInterrupt:
            running.close()
        finally:
            bar.clear()
            if page is not None:
                page.flush()
        write("\n")
        self.result = running.result
        if self.result.ended_by == "context":
            click.echo("The context is full: /clear forgets, --context and --overflow shift make room.", err=True)
        if self.stats:
            click.echo(summary(self.result), err=True)
        return said
