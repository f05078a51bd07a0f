"""`llamacpu rm`: remove a model that was pulled or created."""

from __future__ import annotations

import click


@click.command("rm", short_help="Remove models that were pulled or created.")
@click.argument("names", nargs=-1, required=True, type=str, metavar="NAME...")
def command(names: tuple[str, ...]) -> None:
    """Remove each NAME from llamacpu's store, along with the files that no other model uses.

    Models of other programs and files elsewhere are never touched.
    """
    from llamacpu.store.own import remove

    for name in names:
        entry = remove(name)
        click.echo(f"removed {entry.name}", err=True)
