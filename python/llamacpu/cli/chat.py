"""The conversation at the terminal: it reads a line, answers, and remembers both."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli.terminal import PromptBar, summary, write
from llamacpu.errors import LlamaCpuError

if TYPE_CHECKING:
    from llamacpu.generation_result import GenerationResult
    from llamacpu.model import Session

_PROMPT = ">>> "
_CONTINUED = "... "
_FENCE = '"""'


class Conversation:
    """Messages so far, and the session that has read them."""

    def __init__(
        self, session: Session, settings: dict[str, Any], system: str | None, template: str | None, stats: bool
    ) -> None:
        """settings: what `generate` is called with, but for the prompt."""
        from llamacpu.chat import Chat

        self.session = session
        self.settings = settings
        self.system = system
        self.stats = stats
        self.messages: list[dict[str, str]] = []
        self.result: GenerationResult | None = None
        self._chat = Chat.of(session.model, template)
        self._commands: dict[str, Callable[[str], bool]] = {}

    def interact(self) -> None:
        """Read and answer until the input ends."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (editing and history of the lines that `input` reads)
        from llamacpu.cli.chat_commands import COMMANDS, act

        click.echo("Type a message, or /help. Ctrl-C stops an answer, Ctrl-D or /exit ends.", err=True)
        while True:
            try:
                text = read_message()
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:
                write("\n")
                click.echo("Ctrl-D or /exit ends the conversation.", err=True)
                continue
            if not text.strip():
                continue
            if text.startswith("/") and text.split()[0] in COMMANDS:
                if act(self, text):
                    return
            else:
                self.answer(text)

    def answer(self, text: str) -> None:
        """Answer a message; one that fails or that Ctrl-C stopped before its first word is forgotten."""
        self.messages.append({"role": "user", "content": text})
        try:
            said = self._generate()
        except LlamaCpuError as error:
            self.messages.pop()
            click.echo(f"Error: {error}", err=True)
            return
        if said:
            self.messages.append({"role": "assistant", "content": said})
        else:
            self.messages.pop()

    def prompt(self) -> list[int]:
        """The ids of the conversation so far, ready for an answer."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return self._chat.encode([*system, *self.messages])

    def _generate(self) -> str:
        from llamacpu.generation import generate

        stop = (*self.settings["stop"], *self._chat.stop)
        bar = PromptBar()
        said = ""
        generation = generate(self.session, self.prompt(), on_prompt=bar, **{**self.settings, "stop": stop})
        try:
            for piece in generation:
                write(piece)
                said += piece
        except KeyboardInterrupt:
            generation.close()
        finally:
            bar.clear()
        write("\n")
        self.result = generation.result
        if self.result.ended_by == "context":
            click.echo("The context is full: /clear forgets, --context and --overflow shift make room.", err=True)
        if self.stats:
            click.echo(summary(self.result), err=True)
        return said


def read_message() -> str:
    """A message from the terminal.

    It ends with its line, unless that ends with a backslash or the message begins with triple quotes: then it ends
    with the next triple quotes.
    """
    line = input(_PROMPT)
    if line.startswith(_FENCE):
        lines = [line[len(_FENCE) :]]
        while not lines[-1].rstrip().endswith(_FENCE) or (len(lines) == 1 and lines[0].strip() == ""):
            lines.append(input(_CONTINUED))
        text = "\n".join(lines).rstrip()
        return text[: -len(_FENCE)].strip("\n")
    while line.endswith("\\"):
        line = line[:-1] + "\n" + input(_CONTINUED)
    return line
