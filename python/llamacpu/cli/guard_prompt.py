"""`llamacpu guard-prompt`: does a text try to take over a model? A Prompt Guard model judges it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import opening, options
from llamacpu.cli.terminal import write

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import Load


@click.command("guard-prompt", short_help="Classify a text with a Prompt Guard model.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.argument("text", required=False)
@click.option("-p", "--prompt", help="The text, if it begins with a dash.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Minimum probability of an attack for the text to count as malicious.",
)
@options.threads
@options.load
@options.overrides
@options.as_json
def command(
    model: str,
    text: str | None,
    prompt: str | None,
    threshold: float,
    threads: int | None,
    load: Load,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    """Classify TEXT (or text on stdin) with the Prompt Guard model MODEL: is it an injection or a jailbreak?

    Prints 'benign' or 'malicious', a tab, the probability of an attack, and after another tab the model's label. A text
    that is longer than the model's context is split into overlapping windows, and the highest probability counts.
    """
    from llamacpu.tasks.prompt_guard import guard_prompt

    text = opening.one_text(text, prompt)
    with opening.opened(model, threads=threads, load=load, overrides=overrides) as opened:
        found = guard_prompt(opened, text, threshold=threshold)
    verdict = "malicious" if found.malicious else "benign"
    if as_json:
        document = {
            "verdict": verdict,
            "probability": found.probability,
            "label": found.label,
            "scores": found.scores,
            "windows": found.windows,
        }
        write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        write(f"{verdict}\t{found.probability:.4f}\t{found.label}\n")
