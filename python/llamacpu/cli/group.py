"""The table of commands, and how errors leave the program."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

COMMANDS = {
    "run": "Talk to a model, or let it answer one prompt.",
    "info": "Show what is in a model file and how much memory it needs.",
    "tokenize": "Show the tokens of a text.",
    "embed": "Turn texts into vectors.",
    "bench": "Measure how fast a model runs on this machine.",
    "serve": "Serve models to OpenAI and Ollama clients, with a page.",
    "moderate": "Judge a message with a Llama Guard model.",
    "guard-prompt": "Judge a text with a Prompt Guard model.",
    "doctor": "Show what llamacpu finds on this machine and what it chooses.",
}
"""Name and one line of help; the command itself is `command` in `llamacpu.cli.<name>`, with `_` for `-`."""

INTERRUPTED = 130
DEBUG = "LLAMACPU_DEBUG"
"""Environment variable: set, an error that nothing expects comes with its traceback."""


class CommandLine(click.Group):
    """A group whose commands are imported when they are called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"llamacpu.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in `--help`, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error becomes one line on stderr and exit status 1."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            raise _told(error) from error
        except Exception as error:
            from llamacpu.errors import LlamaCpuError

            if isinstance(error, (LlamaCpuError, ValueError, OverflowError, MemoryError, ImportError)):
                raise _told(error) from error
            if os.environ.get(DEBUG):
                raise
            told = f"{type(error).__name__}: {_told(error).message}"
            raise click.ClickException(
                f"something went wrong that should not ({told}); please report it, with what {DEBUG}=1 shows"
            ) from error

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run and exit with the status that the package's documentation names, however the program is called."""
        extra.pop("standalone_mode", None)
        try:
            status = super().main(args, "llamacpu", standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except OSError as error:
            # What no command has begun for, the help and the version, has nowhere to go.
            _told(error).show()
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _told(error: BaseException) -> click.ClickException:
    from llamacpu.cli.terminal import one_line

    return click.ClickException(one_line(error))


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import llamacpu

        click.echo(f"llamacpu {llamacpu.__version__}")
        ctx.exit()


@click.group(
    "llamacpu", cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version and exit."
)
def command_line() -> None:
    """Run language models of the Llama family from GGUF files on this machine's processor."""
