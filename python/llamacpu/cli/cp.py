"""`llamacpu cp`: give a model another name."""

from __future__ import annotations

import click


@click.command("cp", short_help="Give a model another name.")
@click.argument("source", type=str)
@click.argument("target", type=str)
def command(source: str, target: str) -> None:
    """Give the model SOURCE the additional name TARGET. Its weights are not copied."""
    from llamacpu.store.own import copy

    entry = copy(source, target)
    click.echo(f"{entry.name} is now a name of {source}", err=True)
