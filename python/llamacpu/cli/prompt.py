"""The text that `run` answers: words of the command line, files, and piped input."""

from __future__ import annotations

import os
import stat
import sys
import threading
from typing import Any

import click

from llamacpu.cli import options

__all__ = ["STANDARD_INPUT", "prompt_of"]

STANDARD_INPUT = "-"
_PATIENCE = 2.0


def prompt_of(given: dict[str, Any]) -> str | None:
    """The text to answer, its parts separated by an empty line; None for a conversation.

    `given` are the options of `run`: "model", "words", "prompt", "prompt_files" and "raw". The model name "-" means
    that no model is named and the prompt is on stdin; it is then set to None in `given`.
    """
    words, files = list(given["words"]), list(given["prompt_files"])
    wanted = given["model"] == STANDARD_INPUT
    if wanted:
        given["model"] = None
    if STANDARD_INPUT in words:
        wanted = True
        words.remove(STANDARD_INPUT)
    parts = [" ".join(words)] if words else []
    if given["prompt"] is not None:
        parts.append(given["prompt"])
    parts += [options.read_text(name) for name in files]
    if STANDARD_INPUT not in files and (wanted or _something_comes(alone=not parts)):
        text = _read(patiently=bool(parts))
        if not parts and not text.strip() and not given["raw"]:
            # An empty or wrong model path is reported first.
            options.check_path(given["model"])
            raise click.UsageError("nothing on stdin; give a prompt after MODEL, --prompt, --file, or text on stdin")
        if text.strip() or not parts:
            parts.append(text)
    return "\n\n".join(parts) if parts else None


def _something_comes(alone: bool) -> bool:
    """Whether text can be expected on stdin: a pipe, a socket or a file.

    alone: whether there is no other prompt; then any stdin that is not a terminal counts, such as /dev/null.
    """
    try:
        if sys.stdin.isatty():
            return False
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return True  # a stream set by the calling program
    return alone or stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _read(patiently: bool) -> str:
    """The text on stdin; if `patiently` is set and it takes long, a line says that stdin is being read."""
    told = threading.Timer(
        _PATIENCE, click.echo, ("Reading more of the prompt from stdin; < /dev/null goes without.",), {"err": True}
    )
    told.daemon = True
    if patiently:
        told.start()
    try:
        return options.read_text(STANDARD_INPUT)
    finally:
        told.cancel()
