"""What drafting gains and costs, as Markdown tables: generation with and without drafts, interleaved in one run.

    python benches/drafting.py MODEL.gguf [--draft-model SMALL.gguf] [--rounds 3] [--threads 2]

First the price of a pass over several tokens against a pass over one. Then, for texts that repeat themselves and for
texts that do not, tokens per second without drafts, with the n-gram lookup that is the default, and with a draft model;
each round runs all of them one after the other, and the best round of each counts. The texts must be the same.

With a drafter as draft model (benches/big_drafters.py writes some), `--only drafter` prints what its proposals cost.

At last the model is made to write given texts, whatever it would have said: what n-grams gain on such texts.

The tasks are made for the demo model. `python benches/grown_demo.py FILE` writes a model that says the same at the cost
of a model of a billion weights. With other models the texts differ, and so does what can be gained.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import llamacpu
from compare import processor
from llamacpu.chat import Chat
from llamacpu.drafting import LearnedDraft
from llamacpu.generation import GenerationResult, generate

SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)
Message = dict[str, str]


def cost(model: llamacpu.Model, context: int, rounds: int) -> dict[int, float]:
    """Return the best seconds of a pass by its number of tokens, with the logits of all, after `context` tokens."""
    session = model.session(context + 16)
    ids = [(7919 * place + 1) % model.vocab_size for place in range(context)]
    session.forward(ids, logits="none")
    best = dict.fromkeys(SIZES, float("inf"))
    for _ in range(rounds):
        for size in SIZES:
            started = time.perf_counter()
            session.forward(ids[:size], logits="all")
            best[size] = min(best[size], time.perf_counter() - started)
            session.truncate(context)
    return best


def print_cost(model: llamacpu.Model, rounds: int) -> None:
    """Print the table of passes."""
    print("| tokens in one pass, context | " + " | ".join(str(size) for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 1) + "|")
    for context in (64, min(4096, model.context_length - 32)):
        best = cost(model, context, rounds)
        cells = " | ".join(f"{best[size] / best[1]:.2f}" for size in SIZES)
        print(f"| cost, {context} ({best[1] * 1e3:.2f} ms) | {cells} |", flush=True)
    print()


def print_drafter(model: llamacpu.Model, path: Path, rounds: int) -> None:
    """Print what a drafter takes for the states of a prompt, and for proposals that it finds however unlikely."""
    lengths = (1, 2, 4, 8, 15)
    context = 512
    single = cost(model, context, rounds)[1]
    draft = model.open_draft(path)
    assert isinstance(draft, LearnedDraft), f"{path} is no drafter"
    draft.least_chance = 0.0
    ids = [(7919 * place + 1) % model.vocab_size for place in range(context)]
    reading, plain, with_states = [float("inf")] * 3
    best = dict.fromkeys(lengths, float("inf"))
    for _ in range(rounds):
        session, text = model.session(context + 64), list(ids)
        started = time.perf_counter()
        session.forward(ids, logits="none")
        plain = min(plain, time.perf_counter() - started)
        session.truncate(0)
        drafter = draft.begin(session, text, None)
        started = time.perf_counter()
        [found] = model.step_hidden([(session, ids)], drafter.layers)
        with_states = min(with_states, time.perf_counter() - started)
        drafter.observe(0, ids, found.hidden)
        text.append(1)
        started = time.perf_counter()
        drafter.propose(1)
        reading = min(reading, time.perf_counter() - started)
        for count in lengths:
            position = session.position
            [found] = model.step_hidden([(session, [1])], drafter.layers)
            text.append(1)
            started = time.perf_counter()
            drafter.observe(position, [1], found.hidden)
            drafter.propose(count)
            best[count] = min(best[count], time.perf_counter() - started)
    draft.close()
    print(f"{draft!r}: the states of {context} tokens of a prompt make it {with_states / plain:.3f} times as long, and")
    print(f"reading them takes {reading * 1e3:.1f} ms ({reading / with_states:.3f} of the prompt).")
    print(f"In passes over one token, {single * 1e3:.2f} ms each:\n")
    print("| tokens in a proposal | " + " | ".join(str(count) for count in lengths) + " |")
    print("|---" * (len(lengths) + 1) + "|")
    print("| cost | " + " | ".join(f"{best[count] / single:.2f}" for count in lengths) + " |\n", flush=True)


def tasks(model: llamacpu.Model) -> list[tuple[str, list[int], Sequence[str], llamacpu.Sampling]]:
    """Return name, prompt, stop strings and sampling settings of each task."""
    chat = Chat.of(model)
    greedy = llamacpu.Sampling(temperature=0)

    def user(text: str) -> Message:
        return {"role": "user", "content": text}

    def answered(question: str) -> list[Message]:
        found = generate(model, chat.encode([user(question)]), sampling=greedy, max_tokens=200, stop=chat.stop).read()
        return [user(question), {"role": "assistant", "content": found.text}]

    story = answered("Tell me a short story.")
    lines = [message for question in ("Write a little poem.", "Tell me a joke.") for message in answered(question)]

    def task(name: str, messages: list[Message], sampling: llamacpu.Sampling) -> Any:
        return name, chat.encode(messages), chat.stop, sampling

    quoted = story[1]["content"]
    return [
        task("nothing repeats: a story", story[:1], greedy),
        task("nothing repeats: what it can do", [user("What can you do?")], greedy),
        task("a story, temperature 1", story[:1], llamacpu.Sampling(temperature=1.0, seed=7)),
        task("another story after one like it", [*story, story[0]], greedy),
        task("another story, temperature 0.8", [*story, story[0]], llamacpu.Sampling(temperature=0.8, seed=2)),
        task("the same poem again", [*lines, lines[0]], greedy),
        ("a text quoted", model.tokenizer.encode(f"{quoted}\n\n{quoted}\n\n{quoted[:40]}"), [], greedy),
    ]


def replays(model: llamacpu.Model) -> list[tuple[str, list[int], list[int]]]:
    """Return name, prompt and the text to generate, both short enough to be timed."""
    root = Path(__file__).parent.parent
    code = (root / "python" / "llamacpu" / "tokenizer.py").read_text(encoding="utf-8")
    prose = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")

    def ids(text: str, count: int) -> list[int]:
        return model.tokenizer.encode(text, add_special=False)[:count]

    begin = model.tokenizer.encode("Write it down.\n")
    return [
        ("prose", begin, ids(prose, 250)),
        ("a Python file", begin, ids(code, 250)),
        ("the file again, a name changed", begin + ids(code, 400), ids(code.replace("metadata", "facts"), 250)),
    ]


def replay(session: llamacpu.Session, prompt: list[int], text: list[int], draft: Any) -> GenerationResult:
    """Run one timed generation of a given text."""

    def only_the_next(history: Any, logits: Any) -> Any:
        logits[:] = -np.inf
        logits[text[len(history) - len(prompt)]] = 0
        return logits

    greedy = llamacpu.Sampling(temperature=0)
    return generate(
        session, prompt, sampling=greedy, max_tokens=len(text), logits_processors=[only_the_next], draft=draft
    ).read()


def answer(model: llamacpu.Model, task: Any, draft: Any) -> GenerationResult:
    """Run one timed generation."""
    _, prompt, stop, sampling = task
    return generate(model, prompt, sampling=sampling, stop=stop, max_tokens=200, draft=draft).read()


def compare(name: str, drafts: dict[str, Any], run: Callable[[Any], GenerationResult], rounds: int) -> None:
    """Print one row for each kind of draft."""
    best: dict[str, GenerationResult] = {}
    for _ in range(rounds):
        for kind, draft in drafts.items():
            result = run(draft)
            known = best.get(kind)
            if known is None or speed(result) > speed(known):
                best[kind] = result
    plain = best["none"]
    for kind, result in best.items():
        if result.tokens != plain.tokens:
            raise SystemExit(f"{name}: the text with drafts ({kind}) is another one")
        timings = result.timings
        print(
            f"| {name} | {kind} | {len(result.tokens)} | {timings.steps} | {timings.accepted_tokens} of "
            f"{timings.drafted_tokens} | {speed(result):.1f} | {speed(result) / speed(plain):.2f} |",
            flush=True,
        )


def speed(result: GenerationResult) -> float:
    """Return tokens per second after the prompt."""
    return result.timings.tokens_per_second or 0.0


def main() -> None:
    """Read the options and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--draft-model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--only", choices=["cost", "drafter", "tasks", "replay"])
    options = parser.parse_args()
    with llamacpu.Model(options.model, threads=options.threads) as model:
        print(f"{processor()}, {model.threads} threads; llamacpu {llamacpu.__version__}; {model.path};")
        print(f"best of {options.rounds} rounds, interleaved.\n")
        if options.only in (None, "cost"):
            print_cost(model, 3 * options.rounds)
        if options.only == "cost":
            return
        if options.only == "drafter":
            print_drafter(model, options.draft_model, options.rounds)
            return
        drafts: dict[str, Any] = {"none": None, "n-gram": "auto"}
        if options.draft_model is not None:
            # One thread: a small model does not benefit from more.
            drafts["model"] = model.open_draft(options.draft_model, threads=1)
        print("| text | drafts | tokens | passes | confirmed | tokens/s | ratio |")
        print("|---|---|---|---|---|---|---|")
        if options.only in (None, "tasks"):
            for task in tasks(model):
                compare(task[0], drafts, partial(answer, model, task), options.rounds)
        if options.only in (None, "replay"):
            drafts.pop("model", None)
            for name, prompt, text in replays(model):
                compare(name, drafts, partial(replay, model.session(), prompt, text), options.rounds)


if __name__ == "__main__":
    main()
