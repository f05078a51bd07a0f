"""The commands of the conversation: lines that begin with a slash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import click

from llamacpu.cli import options
from llamacpu.cli.conversation import Conversation
from llamacpu.cli.terminal import one_line, summary
from llamacpu.files import replacing


def act(conversation: Conversation, line: str) -> bool:
    """Do what the line says; True ends the conversation."""
    name, _, argument = line.partition(" ")
    action, _ = COMMANDS[name.strip()]
    try:
        return bool(action(conversation, argument.strip()))
    except (OSError, ValueError, click.ClickException) as error:
        text = error.message if isinstance(error, click.ClickException) else one_line(error)
        click.echo(f"Error: {text}", err=True)
        return False


def _say(text: str) -> None:
    click.echo(text, err=True)


def _exit(_conversation: Conversation, _argument: str) -> bool:
    return True


def _help(_conversation: Conversation, _argument: str) -> None:
    for name, (_, text) in COMMANDS.items():
        _say(f"{name:<9} {text}")
    _say('A line that ends with \\ goes on in the next; a message in """ may have many lines.')


def _clear(conversation: Conversation, _argument: str) -> None:
    conversation.messages.clear()
    conversation.session.truncate(0)
    _say("The conversation is forgotten; the system prompt stays.")


def _system(conversation: Conversation, argument: str) -> None:
    if argument:
        conversation.system = None if argument == "-" else argument
    _say(f"System prompt: {conversation.system or 'none'}")


def _set(conversation: Conversation, argument: str) -> None:
    name, _, value = argument.partition(" ")
    name = name.replace("-", "_")
    if not value:
        sampling = conversation.settings["sampling"]
        for known in options.SAMPLING_NAMES:
            _say(f"{known} = {getattr(sampling, options.field_of(known))}")
        _say(f"max_tokens = {conversation.settings['max_tokens']}")
        return
    if name == "max_tokens":
        try:
            limit = int(value)
        except ValueError:
            raise ValueError(f"max_tokens is {value!r}; expected a whole number, -1 for no limit") from None
        if limit < -1:
            raise ValueError(f"max_tokens is {limit}; expected -1 (no limit) or more")
        conversation.settings["max_tokens"] = None if limit == -1 else limit
    elif name in options.SAMPLING_NAMES:
        conversation.settings["sampling"] = options.changed(conversation.settings["sampling"], name, value)
    else:
        raise ValueError(f"there is no setting {name!r}; /set shows all")
    _say(f"{name} = {value}")


def _save(conversation: Conversation, argument: str) -> None:
    if not argument:
        raise ValueError("no file; expected /save FILE")
    document = {"system": conversation.system, "messages": conversation.messages}
    data = json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    with replacing(Path(argument).expanduser(), "a saved conversation", _is_conversation) as file:
        file.write(data)
    _say(f"Saved {len(conversation.messages)} messages to {argument}.")


def _is_conversation(file: BinaryIO) -> bool:
    try:
        _checked(json.load(file))
    except (ValueError, RecursionError):
        return False
    return True


def _load(conversation: Conversation, argument: str) -> None:
    if not argument:
        raise ValueError("no file; expected /load FILE")
    try:
        document = json.loads(options.read_text(str(Path(argument).expanduser())))
    except json.JSONDecodeError as error:
        raise ValueError(f"{argument} is no JSON (line {error.lineno}); expected what /save writes") from None
    except RecursionError:
        raise ValueError(f"{argument} is nested too deeply; expected what /save writes") from None
    system, messages = _checked(document)
    conversation.system, conversation.messages = system, messages
    _say(f"Loaded {len(messages)} messages from {argument}.")


def _checked(document: object) -> tuple[str | None, list[dict[str, str]]]:
    expected = 'expected what /save writes: {"system": text or null, "messages": [{"role": ..., "content": ...}]}'
    if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
        raise ValueError(f"the file holds no conversation; {expected}")
    system = document.get("system")
    if system is not None and not isinstance(system, str):
        raise ValueError(f"the system prompt is no text; {expected}")
    messages = []
    for message in document["messages"]:
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"a message has no role and content; {expected}")
        messages.append({"role": message["role"], "content": message["content"]})
    return system, messages


def _retry(conversation: Conversation, _argument: str) -> None:
    while conversation.messages and conversation.messages[-1]["role"] != "user":
        conversation.messages.pop()
    if not conversation.messages:
        raise ValueError("there is nothing to answer again")
    conversation.answer(conversation.messages.pop()["content"])


def _stats(conversation: Conversation, _argument: str) -> None:
    if conversation.result is None:
        raise ValueError("there is no answer yet")
    session = conversation.session
    _say(summary(conversation.result))
    _say(f"context: {session.position} of {session.context} tokens, {len(conversation.messages)} messages")


COMMANDS: dict[str, tuple[Callable[[Conversation, str], bool | None], str]] = {
    "/help": (_help, "show this"),
    "/set": (_set, "show the settings, or change one: /set temperature 0.5"),
    "/system": (_system, "show the system prompt, or set it; - clears it"),
    "/save": (_save, "write the conversation to a file"),
    "/load": (_load, "go on with a conversation from a file"),
    "/clear": (_clear, "forget the conversation"),
    "/retry": (_retry, "answer the last message again"),
    "/stats": (_stats, "show the speed of the last answer and how full the context is"),
    "/exit": (_exit, "end; also /bye or Ctrl-D"),
    "/bye": (_exit, "end"),
    "/quit": (_exit, "end"),
    "/?": (_help, "show this"),
}
