"""`llamacpu window`: a chat window."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llamacpu.cli import options

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import KVType
    from llamacpu.engine.priority import Priority


@click.command("window", short_help="Chat in a window.")
@click.argument("model", required=False, type=str, shell_complete=options.complete_files)
@click.option("-s", "--system", callback=options.utf8, help="The system prompt: how the model is to behave.")
@options.context
@options.kv_type
@options.threads
@options.priority
@options.duty
@options.mmproj
def command(
    model: str | None, system: str | None, context: int | None, kv_type: KVType, threads: int | None,
    priority: Priority | None, duty: DutyCycle | None, mmproj: str | None,
) -> None:  # fmt: skip
    """Open a window to chat with MODEL, a .gguf file or a name; by default the small demo model.

    Return sends a message, Escape stops an answer. Requires tkinter, which most Python builds include.
    """
    from llamacpu.gguf.file import GGUFFile
    from llamacpu.window import show

    settings = {
        "n_ctx": context or 0, "type_k": kv_type, "type_v": kv_type, "n_threads": threads, "mmproj": mmproj,
        "priority": priority, "duty": duty,
    }  # fmt: skip
    if model is not None:
        found = options.named_model(model, context, kv_type)
        # Report problems with the file here, like the other commands, rather than in a window.
        if isinstance(found, Path):
            GGUFFile(found).close()
        show(found, system, settings)
        return
    with resources.as_file(resources.files("llamacpu") / "data" / "demo.gguf") as demo:
        show(Path(demo), system, settings)
