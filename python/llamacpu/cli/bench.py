"""`llamacpu bench`: how fast a model runs on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from llamacpu.cli import adapter_options, opening, options
from llamacpu.cli.terminal import BenchBar, write
from llamacpu.families.memory import amount

if TYPE_CHECKING:
    from llamacpu.engine.duty import DutyCycle
    from llamacpu.engine.interfaces import Load
    from llamacpu.engine.priority import Priority
    from llamacpu.model import Model


# Each value allocates a token list and a context of that length.
_TOKENS = click.IntRange(min=0, max=1 << 24)


@click.command("bench", short_help="Measure how fast a model runs on this machine.")
@click.argument("model", type=str, shell_complete=options.complete_files)
@click.option("--prompt-tokens", type=_TOKENS, default=512, show_default=True, help="0 skips this part.")
@click.option("--generate-tokens", type=_TOKENS, default=128, show_default=True, help="0 skips this part.")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, help="Number of repetitions.")
@click.option(
    "--draft-tokens",
    type=click.IntRange(min=0, max=15),
    default=0,
    help="Also measure the cost of verifying drafts of this many tokens.",
)
@click.option(
    "--draft-model",
    metavar="FILE",
    help="With --draft-tokens: the drafter or small model that would propose them; self for the model's own layers.",
)
@click.option(
    "--load",
    "each",
    type=click.IntRange(min=0, max=100),
    default=0,
    help="Also measure generation beside this many busy processes per processor, and the share of its speed that is "
    "kept.",
)
@options.threads
@options.priority
@options.duty
@options.load
@options.overrides
@adapter_options.adapters
@options.kv_type
@options.as_json
def command(
    model: str,
    prompt_tokens: int,
    generate_tokens: int,
    repeat: int,
    draft_tokens: int,
    draft_model: str | None,
    each: int,
    threads: int | None,
    priority: Priority | None,
    duty: DutyCycle | None,
    load: Load,
    overrides: dict[str, Any],
    lora: Any,
    control_vectors: Any,
    kv_type: str,
    as_json: bool,
) -> None:
    """Measure how fast MODEL (a .gguf file, or a name) reads a prompt and generates, each from an empty context.

    tokens_per_second is the mean over the repetitions, best_tokens_per_second the best of them. A warm-up pass, which
    loads the weights into memory, is not counted; the experts that it does not use are loaded as well if they fit.
    gigabytes_per_second is the bytes of weights that each token reads times the tokens per second, in 10^9 bytes.

    For embedding models, which cannot generate, only prompt processing is measured.

    With --load, generation is measured again while other processes of normal priority keep every processor busy. A
    fair share is what as many threads get among the busy processes if all are treated alike; of_fair_share above 1 is
    more than that. It means something only where nothing else runs.

    With --draft-tokens, the best pass that verifies a draft is compared with the best pass over one token: break_even
    is the average number of drafted tokens that must be accepted for drafting to pay off.
    """
    if draft_model is not None and not draft_tokens:
        raise click.UsageError("--draft-model needs --draft-tokens: how many tokens it drafts at once")
    if each and not generate_tokens:
        raise click.UsageError("--load measures generation; leave out --generate-tokens 0")
    from llamacpu.cli.bench_load import waiting_load
    from llamacpu.engine import machine

    started = perf_counter()
    # The load waits from before the priority is changed, which it would inherit.
    with (
        waiting_load(each) as busy,
        opening.opened(
            model,
            threads=threads,
            priority=priority,
            duty=duty,
            load=load,
            overrides=overrides,
            **adapter_options.opened(lora, control_vectors),
        ) as opened,
    ):
        load_seconds = perf_counter() - started
        if not opened.config["causal"]:
            if draft_tokens:
                raise click.UsageError(f"{Path(opened.path).name} makes vectors of texts; there is nothing to draft")
            generate_tokens = 0
            if not prompt_tokens:
                raise click.UsageError("with --prompt-tokens 0 nothing is left to measure of a model that cannot write")
        first = _prompt_speed(opened, min(prompt_tokens, 64) or 1, 1, kv_type, warm=False)
        if opened.config["experts"] and opened.weight_bytes < (machine.available_memory() or 0):
            opened.prepare()
        document: dict[str, Any] = {
            "model": Path(opened.path).name,
            "weight_bytes": opened.weight_bytes,
            "prompt": None,
            "generate": None,
            "draft": None,
            "beside_load": None,
            "load_seconds": load_seconds,
            "first_pass_seconds": first[0],
            "threads": opened.threads,
            "priority": priority,
            "duty_percent": None if duty is None else duty.percent,
            "kv_type": kv_type,
            "repeat": repeat,
            "machine": machine.describe(),
        }
        show = (lambda _text: None) if as_json else write
        show(_heading(document))
        if prompt_tokens:
            seconds = _prompt_speed(opened, prompt_tokens, repeat, kv_type)
            document["prompt"] = {"tokens": prompt_tokens, **_speeds(prompt_tokens, seconds)}
            show(_row("prompt", document["prompt"]))
        if generate_tokens:
            seconds = _generate_speed(opened, generate_tokens, repeat, kv_type)
            speeds = _speeds(generate_tokens, seconds)
            traffic = bytes_per_token(opened)
            document["generate"] = {
                "tokens": generate_tokens,
                **speeds,
                "bytes_per_token": traffic,
                "gigabytes_per_second": traffic * speeds["tokens_per_second"] / 1e9,
            }
            show(_row("generate", document["generate"]))
        if draft_tokens:
            document["draft"] = _draft_price(opened, draft_tokens, draft_model, repeat, kv_type)
            show(_draft_text(document["draft"]))
        if each and generate_tokens:
            busy.start()
            document["beside_load"] = _beside_load(opened, each, generate_tokens, repeat, kv_type, speeds)
            show(_load_text(document["beside_load"]))
    if as_json:
        write(json.dumps(document) + "\n")


def bytes_per_token(model: Model) -> int:
    """Bytes of weights read per generated token; of the experts, only those in use are counted."""
    experts, used = int(model.config["experts"]), int(model.config["experts_used"])
    if not experts:
        return model.weight_bytes
    of_experts = sum(tensor.nbytes for tensor in model.file.tensors if "_exps." in tensor.name)
    return model.weight_bytes - of_experts * (experts - used) // experts


def _tokens(model: Model, count: int) -> list[int]:
    """Tokens spread over the whole vocabulary, the same ones every time."""
    return [(7919 * place + 1) % model.vocab_size for place in range(count)]


def _prompt_speed(model: Model, tokens: int, repeat: int, kv_type: Any, warm: bool = True) -> list[float]:
    seconds = []
    with _bar("the prompt") as bar:
        for done in range(repeat + warm):
            session = model.session(tokens, kv_type)
            read = session.forward if model.config["causal"] else session.hidden
            bar(done, repeat + warm)
            started = perf_counter()
            read(_tokens(model, tokens))
            seconds.append(perf_counter() - started)
    return seconds[warm:]


def _generate_speed(model: Model, tokens: int, repeat: int, kv_type: Any) -> list[float]:
    seconds = []
    with _bar("generation") as bar:
        for done in range(repeat):
            session = model.session(tokens + 1, kv_type)
            session.forward(_tokens(model, 1))
            bar(done, repeat)
            started = perf_counter()
            for token in _tokens(model, tokens):
                session.forward([token])
            seconds.append(perf_counter() - started)
    return seconds


@contextmanager
def _bar(text: str) -> Iterator[BenchBar]:
    bar = BenchBar(text)
    try:
        yield bar
    finally:
        bar.clear()


def _draft_price(model: Model, tokens: int, draft_model: str | None, repeat: int, kv_type: Any) -> dict[str, Any]:
    """The cost of making and verifying a draft after a short text, best of `repeat`."""
    single: list[float] = []
    checked: list[float] = []
    made = [0.0]
    session = model.session(64 + 1 + tokens, kv_type)
    session.forward(_tokens(model, 64))
    for _ in range(repeat + 1):
        for count, seconds in ((1, single), (1 + tokens, checked)):
            started = perf_counter()
            session.forward(_tokens(model, count), logits="all")
            seconds.append(perf_counter() - started)
            session.truncate(64)
    if draft_model is not None:
        made = _proposal_seconds(model, tokens, draft_model, repeat, kv_type)
    step, whole = min(single), min(checked) + min(made)
    return {
        "tokens": tokens,
        "step_seconds": step,
        "pass_seconds": min(checked),
        "model_seconds": min(made),
        "break_even": whole / step - 1,
        "best_tokens_per_second": (1 + tokens) / whole,
    }


def _beside_load(
    model: Model, each: int, tokens: int, repeat: int, kv_type: Any, quiet: dict[str, Any]
) -> dict[str, Any]:
    """The speed of generation beside the load, as a share of that without."""
    from llamacpu.cli.bench_load import fair_share, processors

    speeds = _speeds(tokens, _generate_speed(model, tokens, repeat, kv_type))
    kept = speeds["tokens_per_second"] / quiet["tokens_per_second"]
    fair = fair_share(model.threads, each, processors())
    return {
        "processes_per_processor": each, "processors": processors(), **speeds,
        "share": kept, "fair_share": fair, "of_fair_share": kept / fair,
    }  # fmt: skip


def _load_text(found: dict[str, Any]) -> str:
    return (
        f"\nbeside {found['processes_per_processor']} busy processes on each of {found['processors']} processors: "
        f"{found['tokens_per_second']:.2f} tokens/s, {100 * found['share']:.1f} % of the speed without them; a fair "
        f"share is {100 * found['fair_share']:.1f} % (ratio {found['of_fair_share']:.2f})\n"
    )


def _proposal_seconds(model: Model, tokens: int, path: str, repeat: int, kv_type: Any) -> list[float]:
    """Seconds that a smaller model or a drafter takes for drafts of `tokens` tokens, however unlikely they are."""
    from llamacpu.drafting import LearnedDraft, open_draft
    from llamacpu.model import Model

    file = path if path == "self" else options.named_file(path)
    draft = open_draft(model, file, model.threads, "map" if model.mapped else "copy")
    try:
        if not isinstance(draft, LearnedDraft):
            with Model(file, threads=model.threads, load="map" if model.mapped else "copy", duty=model.duty) as small:
                _generate_speed(small, tokens, 1, kv_type)
                return _generate_speed(small, tokens, repeat, kv_type)
        draft.least_chance = 0.0
        session = model.session(64 + repeat + 1 + tokens, kv_type)
        text: list[int] = []
        drafter = draft.begin(session, text, None)
        found: list[float] = []
        ids = _tokens(model, 64)
        for _ in range(repeat + 1):
            position = session.position
            [states] = model.step_hidden([(session, ids)], drafter.layers)
            text += ids
            started = perf_counter()
            drafter.observe(position, ids, states.hidden)
            text.append(ids[-1])
            drafter.propose(tokens)
            found.append(perf_counter() - started)
            text.pop()
            ids = ids[-1:]
        return found[1:]
    finally:
        draft.close()


def _speeds(tokens: int, seconds: list[float]) -> dict[str, Any]:
    speeds = [tokens / second for second in seconds]
    return {
        "tokens_per_second": sum(speeds) / len(speeds),
        "best_tokens_per_second": max(speeds),
        "repetitions": speeds,
    }


def _heading(document: dict[str, Any]) -> str:
    where = document["machine"]
    return (
        f"{document['model']}: {amount(document['weight_bytes'])} of weights, loaded in "
        f"{document['load_seconds']:.2f} s, first pass {document['first_pass_seconds']:.2f} s\n"
        f"{where['processor']}, {document['threads']} threads, {where['isa']}\n\n"
        f"{'':<10}{'tokens':>8}{'mean tokens/s':>16}{'best tokens/s':>16}{'GB/s':>8}\n"
    )


def _row(name: str, part: dict[str, Any]) -> str:
    traffic = f"{part['gigabytes_per_second']:>8.2f}" if "gigabytes_per_second" in part else ""
    mean, best = part["tokens_per_second"], part["best_tokens_per_second"]
    return f"{name:<10}{part['tokens']:>8}{mean:>16.2f}{best:>16.2f}{traffic}\n"


def _draft_text(draft: dict[str, Any]) -> str:
    return (
        f"\n{draft['break_even']:.1f} of {draft['tokens']} drafted tokens must be right to lose nothing; "
        f"{draft['best_tokens_per_second']:.1f} tokens/s if all are\n"
    )
