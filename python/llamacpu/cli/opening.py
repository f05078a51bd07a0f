"""What commands that run a model have in common: opening it, and errors in its input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import options

if TYPE_CHECKING:
    from llamacpu.cli.terminal import ProgressBar
    from llamacpu.model import Model

__all__ = ["one_text", "opened", "wrong_values"]


@contextlib.contextmanager
def opened(name: str, **settings: Any) -> Iterator[Model]:
    """Open the model that a name refers to, and say if it is too large for memory; `settings` are those of `Model`."""
    from llamacpu.model import Model

    with Model(options.named_file(name) if name else name, **settings) as model:
        options.say_what_stays_on_disk(model)
        yield model


def one_text(text: str | None, prompt: str | None) -> str:
    """The text that a command is given: an argument, the option for one that begins with a dash, or stdin."""
    if text is not None and prompt is not None:
        raise click.UsageError("more than one text; give one of TEXT and --prompt")
    found = prompt if text is None else text
    if found is not None:
        return found
    if sys.stdin.isatty():
        raise click.UsageError("no text; give TEXT, or text on stdin")
    return options.read_text("-")


@contextlib.contextmanager
def wrong_values(bar: ProgressBar) -> Iterator[None]:
    """Report a ValueError, but none of our own exceptions, as an error in the arguments; then clear the bar."""
    try:
        yield
    except ValueError as error:
        if type(error) is ValueError:
            raise click.UsageError(str(error)) from None
        raise
    finally:
        bar.clear()
