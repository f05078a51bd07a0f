"""`llamacpu tokenize`: the tokens of a text."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.cli.terminal import write


@click.command("tokenize", short_help="Show the tokens of a text.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("text", required=False, callback=options.utf8)
@click.option("-p", "--prompt", callback=options.utf8, help="The text, if it begins with a dash.")
@click.option("-f", "--file", "text_file", help="Read the text from this file ('-': stdin).")
@click.option("--no-bos", is_flag=True, help="Leave out the start and end tokens that the model adds to a text.")
@click.option("--special", is_flag=True, help="Parse control tokens written in the text.")
@click.option("--ids", "only_ids", is_flag=True, help="Print only the ids, on one line.")
@click.option("--count", is_flag=True, help="Print only the number of tokens.")
@options.overrides
@options.as_json
def command(
    model: str,
    text: str | None,
    prompt: str | None,
    text_file: str | None,
    no_bos: bool,
    special: bool,
    only_ids: bool,
    count: bool,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    """Show the tokens of TEXT (or of text on stdin) with the tokenizer of MODEL, a .gguf file or a name.

    Prints a line for each token: its id, a tab, and its text in quotes. A vocabulary without weights is enough.
    """
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.text.tokenizer import Tokenizer

    if sum(given is not None for given in (text, prompt, text_file)) > 1:
        raise click.UsageError("more than one text; give one of TEXT, --prompt and --file")
    if sum((only_ids, count, as_json)) > 1:
        raise click.UsageError("more than one form of output; give one of --ids, --count and --json")
    text = prompt if text is None else text
    if text is None:
        if text_file is None and sys.stdin.isatty():
            raise click.UsageError("no text; give TEXT, --file, or text on stdin")
        text = options.read_text(text_file or "-")
    with GGUFFile(options.named_file(model) if model else model, overrides) as file:
        tokenizer = Tokenizer(file)
        ids = tokenizer.encode(text, add_special=not no_bos, parse_special=special)
        pieces = [tokenizer.id_to_piece(token) for token in ids]
    if as_json:
        write(json.dumps({"count": len(ids), "ids": ids, "pieces": pieces}, ensure_ascii=False) + "\n")
    elif count:
        write(f"{len(ids)}\n")
    elif only_ids:
        write(" ".join(map(str, ids)) + "\n")
    else:
        lines = zip(ids, pieces, strict=True)
        write("".join(f"{token}\t{json.dumps(piece, ensure_ascii=False)}\n" for token, piece in lines))
