"""`llamacpu moderate`: is a message safe? A Llama Guard model judges it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import opening, options
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import Load


@click.command("moderate", short_help="Classify a message with a Llama Guard model.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("text", required=False)
@click.option("-p", "--prompt", help="The user's message, if it begins with a dash.")
@click.option("-a", "--answer", help="Classify this answer of the assistant to the message.")
@click.option(
    "--image",
    "images",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A picture of the user's message, for a model that sees (Llama Guard 4, 11B Vision); may be repeated.",
)
@options.mmproj
@click.option(
    "--category",
    "categories",
    multiple=True,
    metavar="KEY=TEXT",
    help="A custom category that replaces the model's own; may be repeated.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Minimum probability of 'unsafe' for the message to count as unsafe.",
)
@options.context
@options.threads
@options.load
@options.overrides
@options.as_json
def command(
    model: str,
    text: str | None,
    prompt: str | None,
    answer: str | None,
    images: tuple[Path, ...],
    mmproj: str | None,
    categories: tuple[str, ...],
    threshold: float,
    context: int | None,
    threads: int | None,
    load: Load,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    """Classify TEXT (or text on stdin), a user's message, or the --answer to it, with the Llama Guard model MODEL.

    Prints 'safe' or 'unsafe', a tab, the probability of 'unsafe', and after another tab the violated categories.
    """
    from llamacpu.tasks.moderation import moderate

    text = opening.one_text(text, prompt)
    own = dict(_category(given) for given in categories) or None
    shown: dict[str, Any] = {"images": list(images)} if images else {}
    messages: list[dict[str, Any]] = [{"role": "user", "content": text, **shown}]
    if answer is not None:
        messages.append({"role": "assistant", "content": answer})
    with opening.opened(model, threads=threads, load=load, overrides=overrides, mmproj=mmproj) as opened:
        found = moderate(opened.session(context), messages, categories=own, threshold=threshold)
    verdict = "unsafe" if found.unsafe else "safe"
    if as_json:
        document = {"verdict": verdict, "probability": found.probability, "categories": found.categories}
        write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        write("\t".join((verdict, f"{found.probability:.4f}", ",".join(found.categories))).rstrip("\t") + "\n")


def _category(given: str) -> tuple[str, str]:
    key, sign, text = given.partition("=")
    if not sign or not key.strip() or not text.strip():
        raise click.UsageError(f"--category is {given!r}; expected KEY=TEXT, as in S1='Violent crimes'")
    return key.strip(), text.strip()
