"""The terminal of a conversation: it reads a line and answers it, or does what a command says."""

from __future__ import annotations

import contextlib
import re

import click

from llamacpu.cli.chat_commands import COMMANDS, act
from llamacpu.cli.conversation import Conversation
from llamacpu.cli.options import SAMPLING_NAMES
from llamacpu.cli.terminal import write

_PROMPT = ">>> "
_CONTINUED = "... "
_FENCE = '"""'
# What looks like a command and is none was mistyped; a path, with more slashes, is text.
_COMMAND = re.compile(r"/[a-z]+")


def interact(conversation: Conversation) -> None:
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
            going_on = take_turn(conversation)
        except EOFError:
            write("\n")
            return
        except KeyboardInterrupt:
            write("\n")
            click.echo("Ctrl-D or /exit ends the conversation.", err=True)


def take_turn(conversation: Conversation) -> bool:
    """Read a message and answer it, or do what a command says; False ends the conversation."""
    try:
        # A terminal may send bytes that are no text.
        text = read_message().encode(errors="replace").decode()
    except UnicodeDecodeError:
        click.echo("Error: that is not UTF-8 text; check the terminal's encoding", err=True)
        return True
    name = text.split()[0] if text.startswith("/") else ""
    if name in COMMANDS:
        return not act(conversation, text)
    if _COMMAND.fullmatch(name):
        click.echo(f"Error: there is no command {name}; /help shows all, a space before it makes it text", err=True)
        return True
    if text.strip():
        conversation.answer(text)
    return True


def complete(begun: str, number: int) -> str | None:
    """The commands and settings that begin so, one after the other, for the tab key."""
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
