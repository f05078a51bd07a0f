"""The table of commands, and the reporting of errors."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import click

COMMANDS = {
    "run": "Talk to a model, or let it answer one prompt.",
    "pull": "Download a model by its name.",
    "list": "List models on this machine, also those of other programs.",
    "show": "Show where a model is stored, its settings, and its licence.",
    "rm": "Remove models that were pulled or created.",
    "cp": "Give a model another name.",
    "create": "Create a named model with its own settings from a Modelfile.",
    "convert": "Convert a checkpoint (safetensors) to a GGUF file.",
    "info": "Show what is in a model file and how much memory it needs.",
    "tokenize": "Show the tokens of a text.",
    "embed": "Turn texts into vectors.",
    "merge": "Merge LoRA adapters into a model file.",
    "control-vector": "Make a control vector from pairs of prompts.",
    "imatrix": "Measure which weights matter, for quantization.",
    "perplexity": "Measure how well a model predicts a text.",
    "compare": "Measure how far a model is from the one it was made from.",
    "bench": "Measure how fast a model runs on this machine.",
    "train": "Train a LoRA adapter on one's own data.",
    "quantize": "Make a smaller file of a model.",
    "window": "Chat in a window.",
    "serve": "Serve models to OpenAI and Ollama clients, with a page.",
    "moderate": "Judge a message with a Llama Guard model.",
    "guard-prompt": "Judge a text with a Prompt Guard model.",
    "doctor": "Show what llamacpu finds and chooses on this machine.",
    "config": "Show the configuration file and what it sets.",
}
"""Command name -> line of help. The command itself is `command` in `llamacpu.cli.<name>`, with `_` for `-`."""

_WORDS_OF_OTHERS = {
    "ls": "list", "models": "list", "ps": "list", "chat": "run", "cli": "run", "generate": "run", "prompt": "run",
    "get": "pull", "download": "pull", "install": "pull", "delete": "rm", "remove": "rm", "copy": "cp",
    "server": "serve", "start": "serve", "benchmark": "bench", "embeddings": "embed", "embedding": "embed",
    "count": "tokenize", "settings": "config", "gui": "window", "version": "--version", "help": "--help",
    "finetune": "train", "fine-tune": "train", "lora": "train",
}  # fmt: skip
"""Names that other programs use -> the corresponding command or option."""
INTERRUPTED = 130
DEBUG = "LLAMACPU_DEBUG"
"""Environment variable: if it is set, every error is shown with its traceback, as with -vv."""
_VERBOSITY = "llamacpu.verbosity"
_LONGEST_ERROR = 400


def _meant(words: Sequence[str]) -> str:
    """A suggestion for an unknown command, to be appended to a sentence; "" if there is none."""
    name = words[0]
    if name.endswith(".gguf") or ":" in name or "/" in name or "." in name:
        return f"; for a conversation: llamacpu run {name}"
    if name.lower() in _WORDS_OF_OTHERS:
        return f"; did you mean {_WORDS_OF_OTHERS[name.lower()]!r}?"
    from llamacpu.arguments import meant

    return meant(name, COMMANDS)


class CommandLine(click.Group):
    """A group whose commands are imported when they are called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"llamacpu.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        if not any("-v" in parameter.opts for parameter in command.params):
            command.params.append(verbose_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and load its defaults from the configuration file."""
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{_meant(args)}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and command is not None and name != "config" and not {"-h", "--help"} & set(rest):
            from llamacpu.cli import configuration

            tables = configuration.read(COMMANDS)
            if tables:
                ctx.default_map = {name: configuration.defaults_for(command, name, tables)}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands in `--help` from the table, without importing them."""
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
            _show_traceback(ctx, error)
            raise _told(error) from error
        except Exception as error:
            from llamacpu.errors import LlamaCpuError

            _show_traceback(ctx, error)
            if isinstance(error, (LlamaCpuError, ValueError, OverflowError, MemoryError, ImportError)):
                raise _told(error) from error
            raise _unforeseen(error) from error

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> NoReturn:  # type: ignore[override]
        """Run and exit with the status documented in `llamacpu.cli`, however the program is called."""
        extra.pop("standalone_mode", None)
        try:
            status = super().main(args, "llamacpu", standalone_mode=False, **extra)
        except click.ClickException as error:
            vars(error)["message"] = _harmless(_shortened(error.message))  # declared final, and may quote user input
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        except OSError as error:
            # The output of --help or --version, for which no command is run, could not be written.
            _told(error).show()
            sys.exit(1)
        except Exception as error:
            # An error before any command has begun: in parsing the command line or importing the command.
            if os.environ.get(DEBUG):
                traceback.print_exception(error)
            (_told(error) if isinstance(error, ImportError) else _unforeseen(error)).show()
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _told(error: BaseException) -> click.ClickException:
    from llamacpu.cli.terminal import one_line

    return click.ClickException(_shortened(one_line(error)))


def _unforeseen(error: BaseException) -> click.ClickException:
    told = f"{type(error).__name__}: {_told(error).message}"
    return click.ClickException(
        f"something went wrong that should not ({told}); please report it, with what -vv or {DEBUG}=1 shows"
    )


def _shortened(text: str) -> str:
    """The text without its middle if it is long: it may quote user input of any length."""
    if len(text) <= _LONGEST_ERROR:
        return text
    half = _LONGEST_ERROR // 2
    return f"{text[:half]} … {text[-half:]}"


def _harmless(text: str) -> str:
    from llamacpu.cli.terminal import shown

    return shown(text)


def _show_traceback(context: click.Context, error: BaseException) -> None:
    if context.meta.get(_VERBOSITY, 0) > 1 or os.environ.get(DEBUG):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


def verbose_option() -> click.Option:
    """The option `-v`: show the log on stderr; if given twice, also the tracebacks of errors."""
    return click.Option(
        ["-v", "--verbose"],
        count=True,
        is_eager=True,
        expose_value=False,
        callback=heed_verbosity,
        help="Show the log on stderr; twice: the traceback of an error, too.",
    )


def note_verbosity(context: click.Context, _option: click.Parameter, count: int) -> int:
    """Callback of `-v` for commands with their own log: if given twice, errors are shown with their tracebacks."""
    context.meta[_VERBOSITY] = count
    return count


def heed_verbosity(context: click.Context, _option: click.Parameter, count: int) -> int:
    """Callback of `-v`: send the log to stderr."""
    note_verbosity(context, _option, count)
    if count and not context.resilient_parsing:
        import logging

        logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
        logging.getLogger("llamacpu").setLevel(logging.DEBUG)
    return count


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        import llamacpu

        click.echo(f"llamacpu {llamacpu.__version__}")
        ctx.exit()


def _completion(name: str) -> Callable[[click.Context, click.Parameter, str | None], None]:
    """A callback that calls the function `name` of `completion.py`, imported only when needed."""

    def call(context: click.Context, option: click.Parameter, shell: str | None) -> None:
        if shell is not None:
            getattr(importlib.import_module("llamacpu.cli.completion"), name)(context, option, shell)

    return call


@click.group(
    "llamacpu", cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--version", is_flag=True, callback=_version, expose_value=False, is_eager=True, help="Show the version and exit."
)
@click.option(
    "--install-completion",
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_completion("install"),
    help="Install completion for bash, zsh, fish, or auto: the shell of this terminal.",
)
@click.option(
    "--show-completion",
    metavar="SHELL",
    is_eager=True,
    expose_value=False,
    callback=_completion("show"),
    help="Print the completion script instead.",
)
def command_line() -> None:
    """Run language models of the Llama family from GGUF files on this machine's processor."""
