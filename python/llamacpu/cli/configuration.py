"""The configuration file: defaults for the command line, one table per command.

    [defaults]              # for every command that has the option
    threads = 4

    [run]
    model = "models/llama.gguf"
    system = "Answer in one sentence."
    temperature = 0.5

Keys are the long names of options, and `model`. The command line takes precedence.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

__all__ = ["PLACE", "defaults_for", "key_of", "path", "read"]

PLACE = "LLAMACPU_CONFIG"
"""Environment variable with the path of another file; if it is empty, no file is read."""
_ALL = "defaults"
_MOST_BYTES = 1 << 20


def path() -> Path | None:
    """The path of the file, which need not exist; None if the environment variable is empty."""
    given = os.environ.get(PLACE)
    if given is not None:
        return Path(given).expanduser() if given else None
    import platformdirs

    return Path(platformdirs.user_config_dir("llamacpu", appauthor=False)) / "config.toml"


def read(commands: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The tables of the file; empty if there is no file.

    commands: the names that tables can have. Raises ClickException if the file cannot be used.
    """
    place = path()
    if place is None:
        return {}
    try:
        with place.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _wrong(place, f"cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise _wrong(place, "has more than a megabyte; expected a few lines of settings")
    tables = _parsed(place, data)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise _wrong(place, f"has {name} = {table!r} outside of a table; expected it below [defaults] or [run]")
        if name != _ALL and name not in commands:
            raise _wrong(place, f"has {name!r}, which is no command{_meant(name, [_ALL, *commands])}")
    return tables


def defaults_for(command: click.Command, name: str, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings for a command: parameter name -> value.

    Raises ClickException for a key that the command does not have and for a value that it does not take.
    """
    known = {key_of(parameter): parameter for parameter in command.params if parameter.expose_value}
    found = {}
    for table in (_ALL, name):
        for written, value in tables.get(table, {}).items():
            parameter = known.get(written.replace("_", "-"))
            if parameter is None and table == _ALL:
                continue
            if parameter is None:
                place = path()
                assert place is not None
                raise _wrong(place, f"sets {written!r} in [{table}], which is no option of it{_meant(written, known)}")
            assert parameter.name is not None
            found[parameter.name] = _checked(command, parameter, table, written, value)
    return found


def key_of(parameter: click.Parameter) -> str:
    """The name of a parameter in the file."""
    longest = max(parameter.opts, key=len)
    return longest.lstrip("-")


def _checked(command: click.Command, parameter: click.Parameter, table: str, key: str, value: Any) -> Any:
    place = path()
    assert place is not None
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    several = parameter.multiple if isinstance(parameter, click.Option) else parameter.nargs == -1
    if several and _plain(value):
        value = [value]
    expected = "true or false" if flag else "a list of texts" if several else "a text or a number"
    right = isinstance(value, bool) if flag else isinstance(value, list) if several else _plain(value)
    if not right or (isinstance(value, list) and not all(map(_plain, value))):
        raise _wrong(place, f"sets {key} in [{table}] to {value!r}; expected {expected}")
    try:
        parameter.type_cast_value(click.Context(command), value)
    except click.BadParameter as error:
        raise _wrong(place, f"sets {key} in [{table}] to {value!r}: {error.message.rstrip('.')}") from None
    return value


def _plain(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _parsed(place: Path, data: bytes) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _wrong(place, f"is not UTF-8 text (byte {error.start})") from None
    except RecursionError:
        raise _wrong(place, "is nested too deeply") from None
    except ValueError as error:
        raise _wrong(place, f"is no TOML: {error}") from None


def _wrong(place: Path, what: str) -> click.ClickException:
    return click.ClickException(f"the configuration file {place} {what}; correct it, or set {PLACE}= to go without")


def _meant(given: str, known: Any) -> str:
    close = difflib.get_close_matches(given, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
