"""`llamacpu create`: a custom model from a Modelfile."""

from __future__ import annotations

from pathlib import Path

import click

from llamacpu.cli import options


@click.command("create", short_help="Create a named model with its own settings from a Modelfile.")
@click.argument("name", type=str)
@click.option(
    "-f",
    "--file",
    "path",
    default="Modelfile",
    show_default=True,
    shell_complete=options.complete_files,
    help="The Modelfile; - for stdin.",
)
def command(name: str, path: str) -> None:
    """Create the model NAME from a Modelfile, as for Ollama: FROM names a .gguf file or a model, which stays where it
    is and is downloaded if it is missing; PARAMETER, SYSTEM, TEMPLATE, MESSAGE and LICENSE are stored with the name
    and apply wherever it is used.

    ADAPTER names a LoRA adapter in a .gguf file, which also stays where it is. A chat template in the .gguf file takes
    precedence over TEMPLATE, unless the model is run with --template modelfile.
    """
    from llamacpu.chat import check_template, templates_in
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.store.create import create
    from llamacpu.store.modelfile import parse_modelfile

    if path != "-" and not Path(path).is_file():
        raise click.ClickException(f"there is no file {path}; name the Modelfile with -f, or - for stdin")
    folder = Path() if path == "-" else Path(path).parent
    modelfile = parse_modelfile(options.read_text(path), "stdin" if path == "-" else path)
    entry = create(name, modelfile, folder, get=options.entry_of, check_template=check_template)
    preset = entry.preset
    if modelfile.template:
        with GGUFFile(entry.path) as file:
            if templates_in(file.metadata):
                click.echo(
                    "The file has a chat template, which is used; --template modelfile uses that of the Modelfile.",
                    err=True,
                )
    if preset.without_effect:
        click.echo(f"Settings that have no effect here: {', '.join(preset.without_effect)}.", err=True)
    click.echo(f"created {entry.name}", err=True)
