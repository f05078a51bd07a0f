"""`llamacpu pull`: download a model."""

from __future__ import annotations

import json
from typing import Any

import click

from llamacpu.cli import options
from llamacpu.cli.download_bar import DownloadBar, show
from llamacpu.cli.terminal import write


@click.command("pull", short_help="Download a model by its name.")
@click.argument("name", type=str)
@click.option("--plan", "only_plan", is_flag=True, help="Show what would be downloaded, without downloading it.")
@click.option("--force", is_flag=True, help="Download the model even if it does not fit or cannot run here.")
@options.context
@options.kv_type
@options.as_json
def command(name: str, only_plan: bool, force: bool, context: int | None, kv_type: str, as_json: bool) -> None:
    """Download NAME: llama3.2 or llama3.1:8b as in Ollama's registry, or hf:owner/repository[:QUANT or file], also as
    the URL of its page.

    Only the start of the file is fetched first: size, memory with --context, free disk space and the expected speed
    are shown, and what does not fit is refused. Without QUANT, the best quantization that fits is chosen. Interrupted
    downloads are resumed, and every file is verified. Files are stored in LLAMACPU_MODELS; the path is printed.

    HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and the usual proxy variables are respected.
    """
    from llamacpu.cli.download_bar import expected_speed, lines
    from llamacpu.store.pull import plan_of, pull

    if only_plan:
        plan = plan_of(name, None, context, kv_type)
        told: dict[str, Any] = {**plan.as_dict(), "expected_tokens_per_second": expected_speed(plan)}
        write(json.dumps(told, ensure_ascii=False) + "\n" if as_json else "".join(f"{line}\n" for line in lines(plan)))
        return
    bar = DownloadBar()
    try:
        entry = pull(name, context=context, kv_type=kv_type, force=force, on_plan=show, on_progress=bar)
    finally:
        bar.clear()
    if as_json:
        from llamacpu.store.facts import describe

        write(json.dumps(describe(entry, context, kv_type), ensure_ascii=False) + "\n")
    else:
        write(f"{entry.path}\n")
