"""The conversation at the terminal: it reads a line, answers, and remembers both."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli.markdown import Markdown
from llamacpu.cli.options import constraints
from llamacpu.cli.terminal import PromptBar, prepare, summary, write
from llamacpu.errors import LlamaCpuError

if TYPE_CHECKING:
    from llamacpu.engine.model import Session
    from llamacpu.generation.result import GenerationResult

_PROMPT = ">>> "
_CONTINUED = "... "
_FENCE = '"""'
# What looks like a command and is none was mistyped; a path, with more slashes, is text.
_COMMAND = re.compile(r"/[a-z]+")


class Conversation:
    """Messages so far, and the session that has read them."""

    def __init__(
        self,
        session: Session,
        settings: dict[str, Any],
        system: str | None,
        template: str | None,
        stats: bool,
        drawn: bool,
    ) -> None:
        """Begin one.

        settings: what `generate` is called with, but for the prompt, and the `grammar` of the answers.
        drawn: whether Markdown is.
        """
        from llamacpu.chat import Chat

        self.session = session
        self.settings = settings
        self.system = system
        self.stats = stats
        self.drawn = drawn
        self.messages: list[dict[str, str]] = []
        self.result: GenerationResult | None = None
        self._chat = Chat.of(session.model, template)

    def interact(self) -> None:
        """Read and answer until the input ends."""
        with contextlib.suppress(ImportError):
            # With it, the lines that `input` reads have editing and history.
            import readline

            readline.set_completer(complete)
            readline.set_completer_delims(" ")
            readline.parse_and_bind("tab: complete")
        click.echo("Type a message, or /help. Ctrl-C stops an answer, Ctrl-D or /exit ends.", err=True)
        going_on = True
        while going_on:
            try:
                going_on = self._take_turn()
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:
                write("\n")
                click.echo("Ctrl-D or /exit ends the conversation.", err=True)

    def _take_turn(self) -> bool:
        """Read a message and answer it, or do what a command says; False ends the conversation."""
        from llamacpu.cli.chat_commands import COMMANDS, act

        try:
            # A terminal may send bytes that are no text.
            text = read_message().encode(errors="replace").decode()
        except UnicodeDecodeError:
            click.echo("Error: that is not UTF-8 text; check the terminal's encoding", err=True)
            return True
        name = text.split()[0] if text.startswith("/") else ""
        if name in COMMANDS:
            return not act(self, text)
        if _COMMAND.fullmatch(name):
            click.echo(f"Error: there is no command {name}; /help shows all, a space before it makes it text", err=True)
            return True
        if text.strip():
            self.answer(text)
        return True

    def answer(self, text: str) -> None:
        """Answer a message; one that fails or that Ctrl-C stopped before its first word is forgotten."""
        self.messages.append({"role": "user", "content": text})
        try:
            said = self._generate()
        except (LlamaCpuError, ValueError) as error:
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
        page = Markdown(write) if self.drawn else None
        show = write if page is None else page.push
        settings = {**self.settings, "stop": stop}
        settings["logits_processors"] = constraints(settings.pop("grammar"), self.session.model)
        generation = generate(self.session, self.prompt(), on_prompt=bar, **settings)
        try:
            if self.result is None:
                prepare(self.session.model)
            for piece in generation:
                show(piece)
                said += piece
        except KeyboardInterrupt:
            generation.close()
        finally:
            bar.clear()
            if page is not None:
                page.flush()
        write("\n")
        self.result = generation.result
        if self.result.ended_by == "context":
            click.echo("The context is full: /clear forgets, --context and --overflow shift make room.", err=True)
        if self.stats:
            click.echo(summary(self.result), err=True)
        return said


def complete(begun: str, number: int) -> str | None:
    """The commands and settings that begin so, one after the other, for the tab key."""
    from llamacpu.cli.chat_commands import COMMANDS
    from llamacpu.cli.options import SAMPLING_NAMES

    names = [*COMMANDS, *SAMPLING_NAMES, "max_tokens"]
    found = [f"{name} " for name in names if begun and name.startswith(begun)]
    return found[number] if number < len(found) else None


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
