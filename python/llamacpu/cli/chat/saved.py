"""Saved conversations: session files with the messages in their note, or only the messages as JSON."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from llamacpu.engine import saved_sessions, session_format
from llamacpu.engine.adapter_set import default_fingerprint
from llamacpu.errors import SessionError
from llamacpu.files import replacing

if TYPE_CHECKING:
    from llamacpu.cli.chat.conversation import Conversation, Message

__all__ = ["load", "save"]

_KIND = "a saved conversation"
_EXPECTED = "expected what /save writes"
_MOST_BYTES = 1 << 26
_ROLES = ("system", "user", "assistant")


def save(conversation: Conversation, name: str) -> str:
    """Write a conversation to a file; returns a sentence that says what was done.

    If the name ends in .json, only the messages are written; otherwise the keys and values are saved too, so that
    `load` can continue at once. An existing conversation is overwritten if the user confirms; any other existing file
    never is.
    """
    path = _path(name)
    document = {"system": conversation.system, "messages": conversation.messages}
    note = json.dumps(document, ensure_ascii=False, indent=1, default=os.fspath).encode("utf-8", "replace")
    count = len(conversation.messages)
    asked = False
    if path.is_file() and path.stat().st_size:
        with path.open("rb") as older:
            if _is_conversation(older):
                asked = True
                if not click.confirm(f"{name} is there already. Overwrite it?", err=sys.stderr.isatty()):
                    return "Nothing was saved."
    with replacing(path, _KIND, lambda file: asked and _is_conversation(file), private=True) as file:
        if path.suffix == ".json":
            file.write(note)
            return f"Saved {count} messages to {name}; a name without .json keeps keys and values, too."
        saved_sessions.write(conversation.session, file, note)
    return f"Saved {count} messages to {name}, with keys and values of {conversation.session.position} tokens."


def load(conversation: Conversation, name: str) -> str:
    """Continue the conversation in a file; returns a sentence that says what was done.

    Raises ValueError for a file that is not a conversation and SessionError for a damaged session; the current
    conversation is then unchanged.
    """
    path = _path(name)
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"{name} is not a regular file; {_EXPECTED}")
    with path.open("rb") as file:
        if not session_format.is_saved_session(file):
            file.seek(0)
            system, messages = _parsed(file.read(_MOST_BYTES + 1), name)
            conversation.system, conversation.messages = system, messages
            return f"Loaded {len(messages)} messages from {name}."
        header = session_format.read_header(file, name)
        if header.note_bytes == 0:
            raise SessionError(f"{name}: a session without messages, saved by another program; {_EXPECTED}")
        if header.note_bytes > _MOST_BYTES:
            raise SessionError(f"{name}: {header.note_bytes} bytes of messages are too many; {_EXPECTED}")
        system, messages = _parsed(session_format.read_note(file, header, name), name)
        model, context = conversation.session.model, conversation.session.context
        loaded = f"Loaded {len(messages)} messages from {name}"
        if header.fingerprint != bytes.fromhex(default_fingerprint(model)):
            conversation.system, conversation.messages = system, messages
            return f"{loaded}; they are of another model, and will be read again."
        session = saved_sessions.read(model, file, context if header.tokens < context else None, name)
    conversation.session, conversation.system, conversation.messages = session, system, messages
    return f"{loaded}, with keys and values of {session.position} tokens."


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser raises for an unknown user)


def _is_conversation(file: BinaryIO) -> bool:
    """Whether an open file was written by `save`."""
    if session_format.is_saved_session(file):
        return True
    file.seek(0)
    try:
        _parsed(file.read(_MOST_BYTES + 1), "")
    except ValueError:
        return False
    return True


def _parsed(data: bytes, name: str) -> tuple[str | None, list[Message]]:
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{name} has more than {_MOST_BYTES >> 20} MB; {_EXPECTED}")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not UTF-8 text (byte {error.start}); {_EXPECTED}") from None
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply; {_EXPECTED}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} is no JSON (line {error.lineno}); {_EXPECTED}") from None
    except ValueError:
        raise ValueError(f"{name} holds a number that is too long; {_EXPECTED}") from None
    return _checked(document, name)


def _checked(document: Any, name: str) -> tuple[str | None, list[Message]]:
    expected = f'{_EXPECTED}: {{"system": text or null, "messages": [{{"role": ..., "content": ...}}]}}'
    if not isinstance(document, dict) or not isinstance(document.get("messages"), list):
        raise ValueError(f"{name} holds no conversation; {expected}")
    system = document.get("system")
    if system is not None and not isinstance(system, str):
        raise ValueError(f"the system prompt in {name} is no text; {expected}")
    messages = []
    for number, message in enumerate(document["messages"], 1):
        if not isinstance(message, dict) or not all(isinstance(message.get(key), str) for key in ("role", "content")):
            raise ValueError(f"message {number} in {name} has no role and content that are texts; {expected}")
        if message["role"] not in _ROLES:
            raise ValueError(f"message {number} in {name} has the role {message['role'][:40]!r}; expected {_ROLES}")
        plain: Message = {key: _text(message[key]) for key in ("role", "content")}
        images = message.get("images")
        if isinstance(images, list) and images and all(isinstance(image, str) for image in images):
            plain["images"] = [Path(image) for image in images]
        messages.append(plain)
    return None if system is None else _text(system), messages


def _text(given: str) -> str:
    """The text with lone surrogates replaced, which JSON can hold but tokenizers do not accept."""
    return given.encode("utf-8", "replace").decode()
