"""`llamacpu config`: the configuration file and its settings."""

from __future__ import annotations

import importlib
import json
from typing import Any

import click

from llamacpu.cli import configuration, options
from llamacpu.cli.terminal import write

_EXAMPLE = """\
# Defaults of the command line. Keys are the long names of options; `llamacpu COMMAND --help` lists them.

[defaults]  # for every command that has the option
# threads = 4
# context = 8192

[run]
# model = "/path/to/model.gguf"
# system = "Answer in one sentence."
# temperature = 0.7
"""


@click.command("config", short_help="Show the configuration file and its settings.")
@click.option("--path", "only_path", is_flag=True, help="Print only the path of the file.")
@click.option("--init", is_flag=True, help="Create a file with commented examples if there is none yet.")
@options.as_json
def command(only_path: bool, init: bool, as_json: bool) -> None:
    """Show the configuration file, which sets defaults for command-line options, and its settings.

    It is a TOML file with a table for each command, such as [run], and one for all commands, [defaults]. Keys are the
    long names of options (system, temperature, kv-type) and model. LLAMACPU_CONFIG names another file; if it is empty,
    no file is read.
    """
    from llamacpu.cli.group import COMMANDS

    place = configuration.path()
    if place is None:
        raise click.ClickException(f"{configuration.PLACE} is empty, so that no file is read; unset it, or name one")
    if init:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with place.open("x", encoding="utf-8") as file:
                file.write(_EXAMPLE)
        except FileExistsError:
            raise click.ClickException(f"{place} is there already; edit it, or remove it first") from None
    if only_path:
        write(f"{place}\n")
        return
    settings = _checked(COMMANDS)
    if as_json:
        document = {"path": str(place), "exists": place.exists(), "settings": settings}
        write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    there = "" if place.exists() else "  (not there; --init writes one with examples)"
    lines = [f"file  {place}{there}"]
    for name, table in settings.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
        ]
    write("\n".join(lines) + "\n")


def _checked(commands: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The tables of the file, with every setting checked as its command would check it."""
    tables = configuration.read(commands)
    known: set[str] = set()
    for name in commands if tables else ():
        command = importlib.import_module(f"llamacpu.cli.{name.replace('-', '_')}").command
        configuration.defaults_for(command, name, tables)
        known.update(configuration.key_of(parameter) for parameter in command.params)
    unknown = [key for key in tables.get("defaults", {}) if key.replace("_", "-") not in known]
    if unknown:
        raise click.ClickException(f"[defaults] sets {unknown[0]!r}, which is an option of no command; correct it")
    return tables
