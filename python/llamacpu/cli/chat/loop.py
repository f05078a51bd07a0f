"""The main loop of a conversation: read a message and answer it, or execute a command."""

from __future__ import annotations

import os
import re
import sys
from typing import Protocol

from llamacpu.cli.chat import history
from llamacpu.cli.chat.commands import COMMANDS, act
from llamacpu.cli.chat.conversation import Conversation
from llamacpu.cli.chat.lines import Lines
from llamacpu.cli.terminal import tell, write

__all__ = ["interact", "reader", "take_turn"]

# A line that looks like an unknown command was mistyped; a path, which has more slashes, is text.
_COMMAND = re.compile(r"/[a-z]+")


class Reader(Protocol):
    """The source of messages."""

    def read(self) -> str:
        """Read a message. Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C."""


def interact(conversation: Conversation, kept: bool = True) -> None:
    """Read and answer messages until the input ends.

    kept: whether the input is saved in the history for later conversations.
    """
    going_on = True
    with conversation:
        typed = reader(kept)
        tell("Type a message, or /help. Ctrl-C stops an answer, Ctrl-D or /exit ends.")
        while going_on:
            try:
                going_on = take_turn(conversation, typed)
            except EOFError:
                write("\n")
                return
            except KeyboardInterrupt:
                write("\n")
                tell("Ctrl-D or /exit ends the conversation.")


def reader(kept: bool) -> Reader:
    """The best reader that this terminal and the installed packages allow."""
    terminal = sys.stdin.isatty() and (sys.stdout.isatty() or sys.stderr.isatty())
    place = history.path() if kept and terminal else None
    if not terminal or os.environ.get("TERM", "dumb" if os.name == "posix" else "") in ("dumb", "unknown"):
        return Lines()
    try:
        from llamacpu.cli.chat.editor import Editor
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "prompt_toolkit":
            raise
        tell('Markdown and editing across lines come with: pip install "llamacpu[terminal]"')
        return Lines(place)
    return Editor(place)


def take_turn(conversation: Conversation, typed: Reader) -> bool:
    """Read a message and answer it, or execute a command; returns False if the conversation ends."""
    conversation.awaits_message()
    try:
        # A terminal may send bytes that are not valid text.
        text = typed.read().encode(errors="replace").decode()
    except UnicodeDecodeError:
        tell("Error: that is not UTF-8 text; check the terminal's encoding")
        return True
    name = text.split()[0] if text.startswith("/") else ""
    if name in COMMANDS:
        return not act(conversation, text)
    if _COMMAND.fullmatch(name):
        tell(f"Error: there is no command {name}; /help shows all, a space before it makes it text")
        return True
    if text.strip():
        conversation.answer(text)
    return True
