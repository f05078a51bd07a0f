"""Commands of the conversation: lines that begin with a slash."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

import click

from llamacpu.cli.chat import saved, settings
from llamacpu.cli.chat.conversation import Conversation
from llamacpu.cli.terminal import one_line, summary, tell, width_of, write

_KEYS = (
    'A line that ends with \\ goes on in the next; a message in """ may have many lines.',
    "With llamacpu[terminal]: Alt-Enter begins a line, Ctrl-R searches, Ctrl-X Ctrl-E opens an editor.",
)


def act(conversation: Conversation, line: str) -> bool:
    """Execute a command line, whose command must be in COMMANDS; returns True if the conversation ends."""
    name, *rest = line.split(None, 1)
    argument = rest[0].strip() if rest else ""
    try:
        return bool(COMMANDS[name].action(conversation, argument))
    except click.Abort:  # Ctrl-C or Ctrl-D in answer to a question
        tell("\nNothing was done.")
    except (OSError, ValueError, RuntimeError, MemoryError, OverflowError, ImportError, click.ClickException) as error:
        text = error.message if isinstance(error, click.ClickException) else one_line(error)
        tell(f"Error: {text}")
    return False


def _exit(_conversation: Conversation, _argument: str) -> bool:
    return True


def _help(_conversation: Conversation, _argument: str) -> None:
    import textwrap

    width = max(width_of(sys.stderr), 20)
    for name, command in COMMANDS.items():
        write(textwrap.fill(f"{name:<8} {command.help}", width, subsequent_indent=" " * 9) + "\n", sys.stderr)
    for line in _KEYS:
        tell(line)


def _clear(conversation: Conversation, _argument: str) -> None:
    conversation.messages.clear()
    conversation.session.truncate(0)
    tell("The conversation is forgotten; the system prompt stays.")


def _system(conversation: Conversation, argument: str) -> None:
    if argument:
        conversation.system = None if argument == "-" else argument
    tell(f"System prompt: {conversation.system or 'none'}")


def _set(conversation: Conversation, argument: str) -> None:
    name, *value = argument.split(None, 1)[:2] or [""]
    if value:
        name = settings.change(conversation, name, value[0].strip())
    elif name and name.replace("-", "_") not in settings.names():
        raise ValueError(f"there is no setting {name[:40]!r}; /set shows all")
    for known in [name.replace("-", "_")] if name else settings.names():
        tell(f"{known} = {settings.shown(conversation, known)}")


def _save(conversation: Conversation, argument: str) -> None:
    if not argument:
        raise ValueError("no file; expected /save FILE")
    tell(saved.save(conversation, argument))


def _load(conversation: Conversation, argument: str) -> None:
    if not argument:
        raise ValueError("no file; expected /load FILE")
    tell(saved.load(conversation, argument))


def _edit(conversation: Conversation, argument: str) -> None:
    """Write a message in an editor: $VISUAL, $EDITOR or the system's default, and answer it."""
    last = next((m["content"] for m in reversed(conversation.messages) if m["role"] == "user"), "")
    begun = argument or last
    text = click.edit(begun, extension=".md", require_save=True)
    if text is None or not text.strip():
        tell("Nothing was sent: the text was not saved, or is empty.")
        return
    conversation.answer(text.rstrip("\n"))


def _retry(conversation: Conversation, _argument: str) -> None:
    kept = list(conversation.messages)
    while conversation.messages and conversation.messages[-1]["role"] != "user":
        conversation.messages.pop()
    if not conversation.messages:
        conversation.messages = kept
        raise ValueError("there is nothing to answer again")
    last = conversation.messages.pop()
    conversation.images = list(last.get("images", ()))
    conversation.answer(last["content"])


def _image(conversation: Conversation, argument: str) -> None:
    """Let pictures go with the next message."""
    if argument == "-":
        conversation.images.clear()
    elif argument:
        conversation.attach(argument)
    names = ", ".join(path.name for path in conversation.images)
    tell(f"With the next message: {names or 'no pictures'}.")


def _stats(conversation: Conversation, _argument: str) -> None:
    if conversation.result is None:
        raise ValueError("there is no answer yet")
    session = conversation.session
    tell(summary(conversation.result))
    tell(f"context: {session.position} of {session.context} tokens, {len(conversation.messages)} messages")


class Command(NamedTuple):
    """A command: its action, its line in the help, and whether it takes an argument."""

    action: Callable[[Conversation, str], bool | None]
    help: str
    argument: bool = False


COMMANDS = {
    "/help": Command(_help, "show this; also /?"),
    "/set": Command(_set, "show the settings, or change one: /set temperature 0.5", True),
    "/system": Command(_system, "show the system prompt, or set it; - clears it", True),
    "/image": Command(_image, "show pictures with the next message: /image FILE; - takes them away", True),
    "/save": Command(_save, "write the conversation to a file, with keys and values (.json: the text alone)", True),
    "/load": Command(_load, "go on with a conversation from a file", True),
    "/edit": Command(_edit, "write a message in an editor ($VISUAL, $EDITOR), beginning with the last", True),
    "/clear": Command(_clear, "forget the conversation"),
    "/retry": Command(_retry, "answer the last message again"),
    "/stats": Command(_stats, "show the speed of the last answer and how full the context is"),
    "/exit": Command(_exit, "end; also /bye, /quit or Ctrl-D"),
    "/bye": Command(_exit, "end"),
    "/quit": Command(_exit, "end"),
    "/?": Command(_help, "show this"),
}
