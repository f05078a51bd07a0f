"""Shell completion: click's scripts, installed where each shell looks for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

import click
from click.shell_completion import get_completion_class

from llamacpu.cli.terminal import write
from llamacpu.files import replacing

__all__ = ["install", "script", "show"]

_VARIABLE = "_LLAMACPU_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


def script(shell: str) -> str:
    """The script that makes a shell complete the commands of this program."""
    from llamacpu.cli.group import command_line

    kind: Any = get_completion_class(shell)
    completion = kind(command_line, {}, "llamacpu", _VARIABLE)
    # Not `source()`, which starts bash to check its version.
    text: str = completion.source_template % completion.source_vars()
    return text


def show(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    """Callback of `--show-completion`."""
    if shell is not None and not context.resilient_parsing:
        write(script(_named(shell)))
        context.exit()


def install(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    """Callback of `--install-completion`: write the script and say what remains to be done."""
    if shell is None or context.resilient_parsing:
        return
    shell = _named(shell)
    place = _place(shell)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, "a completion script of llamacpu", _is_script) as file:
            file.write(script(shell).encode())
    except OSError as error:
        raise click.ClickException(
            f"{place}: {error.strerror}; --show-completion {shell} prints the script instead"
        ) from None
    click.echo(f"Wrote {place}.", err=True)
    if shell == "bash":
        click.echo("It needs the package bash-completion. Open a new shell.", err=True)
    elif shell == "zsh":
        click.echo(
            f"Put this into ~/.zshrc, and open a new shell:\n  fpath=({place.parent} $fpath); autoload -Uz compinit; "
            "compinit",
            err=True,
        )
    else:
        click.echo("Open a new shell.", err=True)
    context.exit()


def _is_script(file: BinaryIO) -> bool:
    return _VARIABLE.encode() in file.read(1 << 16)


def _named(shell: str) -> str:
    """The name of the shell; "auto" means the one in the environment variable SHELL. Raises UsageError for others."""
    if shell == "auto":
        shell = Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        raise click.UsageError(f"there is no completion for the shell {shell!r}; name one of {', '.join(SHELLS)}")
    return shell


def _place(shell: str) -> Path:
    home = Path.home()
    if shell == "bash":
        data = os.environ.get("BASH_COMPLETION_USER_DIR")
        folder = (
            Path(data) if data else Path(os.environ.get("XDG_DATA_HOME") or home / ".local/share") / "bash-completion"
        )
        return folder / "completions" / "llamacpu"
    if shell == "zsh":
        return home / ".zfunc" / "_llamacpu"
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "fish" / "completions" / "llamacpu.fish"
